//! The hello functions that are measured, and the bare interpreters they are compared with.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dunlin_testkit::{Api, Connection, Response, cache};
use serde_json::{Value, json};

/// One language's hello.
pub(crate) struct Language {
    pub(crate) name: &'static str,
    pub(crate) runtime: &'static str,
    pub(crate) file: &'static str,
    pub(crate) code: &'static str,
    /// A package in place of the file, in base64, and its handler.
    pub(crate) package: Option<(&'static str, &'static str)>,
    /// The interpreter doing nothing.
    pub(crate) bare: &'static [&'static str],
    /// P1, as ratios to the bare start: a cell waits, none does.
    pub(crate) promised: (f64, f64),
}

pub(crate) const PYTHON: Language = Language {
    name: "python",
    // The Python of the bare start beside it.
    runtime: "python3",
    file: "index.py",
    code: "def handler(event, context):\n    return 'hello'\n",
    package: None,
    bare: &["/usr/bin/python3", "-c", "pass"],
    promised: (0.15, 0.35),
};

pub(crate) const NODE: Language = Language {
    name: "node",
    runtime: "nodejs20",
    file: "index.js",
    code: "exports.handler = async () => 'hello';\n",
    package: None,
    bare: &["/usr/bin/node", "-e", "0"],
    promised: (0.06, 1.2),
};

pub(crate) const PHP: Language = Language {
    name: "php",
    runtime: "php7.2",
    file: "index.php",
    code: "<?php\nfunction handler($event, $context) { return 'hello'; }\n",
    package: None,
    bare: &["/usr/bin/php", "-r", ""],
    promised: (0.10, 1.2),
};

/// Java's hello: a stream handler of the vendor's library, and a `main` for the bare virtual machine.
const JAVA_HELLO: &str = r#"
public class Hello implements com.aliyun.fc.runtime.StreamRequestHandler {
    public void handleRequest(java.io.InputStream in, java.io.OutputStream out, com.aliyun.fc.runtime.Context context)
            throws java.io.IOException {
        out.write("hello".getBytes());
    }

    static class Bare {
        public static void main(String[] arguments) {
            System.out.println("hello");
        }
    }
}
"#;

/// Java's hello, compiled once.
pub(crate) fn java() -> Result<&'static Language> {
    static JAVA: std::sync::OnceLock<Language> = std::sync::OnceLock::new();
    if let Some(made) = JAVA.get() {
        return Ok(made);
    }
    let place = tempfile::tempdir()?.keep();
    let source = place.join("Hello.java");
    std::fs::write(&source, JAVA_HELLO)?;
    let library = cache().join("m2/com/aliyun/fc/runtime/fc-java-core/1.4.1/fc-java-core-1.4.1.jar");
    let classes = place.join("classes");
    run(Command::new("javac").arg("-cp").arg(library).arg("-d").arg(&classes).arg(source)).context("run scripts/setup first")?;
    let jar = place.join("hello.jar");
    run(Command::new("jar").arg("cf").arg(&jar).arg("-C").arg(&classes).arg("."))?;
    let package = STANDARD.encode(std::fs::read(&jar)?);
    let path = classes.to_str().context("a temporary directory has a plain name")?.to_owned();
    let bare = ["/usr/bin/java".to_owned(), "-cp".to_owned(), path, "Hello$Bare".to_owned()];
    Ok(JAVA.get_or_init(|| Language {
        name: "java",
        runtime: "java11",
        file: "Hello.java",
        code: JAVA_HELLO,
        package: Some((package.leak(), "Hello::handleRequest")),
        bare: Vec::leak(bare.map(|word| &*word.leak()).into()),
        promised: (0.10, 1.8),
    }))
}

/// WebAssembly's hello, as it comes with the examples. There is no bare interpreter to compare it with.
pub(crate) fn wasm() -> Result<&'static Language> {
    static WASM: std::sync::OnceLock<Language> = std::sync::OnceLock::new();
    const PROGRAM: &[u8] = include_bytes!("../../../examples/wasm-hello/main.wasm");
    let package = dunlin_testkit::zip_of(&[("main.wasm", PROGRAM)])?;
    Ok(WASM.get_or_init(|| Language {
        name: "wasm",
        runtime: "wasm",
        file: "main.wasm",
        code: "",
        package: Some((package.leak(), "main.wasm")),
        bare: &[],
        promised: (0.0, 0.0),
    }))
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {}", command.get_program().display()))?;
    ensure!(status.success(), "{} failed: {status}", command.get_program().display());
    Ok(())
}

/// What every hello answers.
pub(crate) const HELLO: &[u8] = b"hello";

/// A function that was made for a measurement.
#[derive(Clone, Debug)]
pub(crate) struct Deployed {
    pub(crate) name: String,
    /// The host of its URL.
    pub(crate) host: String,
}

impl Deployed {
    /// Makes the language's hello under a name of its own.
    pub(crate) fn hello(api: &Api, language: &Language, name: &str, members: Value) -> Result<Self> {
        let mut all = match language.package {
            Some((package, handler)) => json!({"code": {"zipFile": package}, "handler": handler}),
            None => json!({}),
        };
        if let (Some(all), Some(members)) = (all.as_object_mut(), members.as_object()) {
            all.extend(members.clone());
        }
        Self::new(api, language.runtime, (language.file, language.code), name, all)
    }

    pub(crate) fn new(api: &Api, runtime: &str, file: (&str, &str), name: &str, members: Value) -> Result<Self> {
        let mut all = json!({"memorySize": 256, "timeout": 120});
        if let (Some(all), Some(members)) = (all.as_object_mut(), members.as_object()) {
            all.extend(members.clone());
        }
        api.create(name, runtime, &[file], all)?;
        Ok(Self { name: name.to_owned(), host: api.expose(name)? })
    }

    /// One call on `connection`; the body is checked.
    pub(crate) fn call(&self, connection: &mut Connection) -> Result<Response> {
        let reply = connection.request("GET", "/", &[("host".to_owned(), self.host.clone())], b"")?;
        ensure!(reply.status == 200 && reply.body == HELLO, "{}: {} {}", self.name, reply.status, reply.text());
        Ok(reply)
    }

    pub(crate) fn remove(&self, api: &Api) -> Result<()> {
        api.json("DELETE", &format!("/functions/{}/triggers/web", self.name), "DeleteTrigger", &Value::Null)?;
        api.json("DELETE", &format!("/functions/{}", self.name), "DeleteFunction", &Value::Null)?;
        Ok(())
    }
}

/// `dur=` of one entry of a `Server-Timing` header; 0 when it is not there.
pub(crate) fn phase(reply: &Response, name: &str) -> f64 {
    let header = reply.header("server-timing").unwrap_or_default();
    header
        .split(',')
        .filter_map(|entry| entry.trim().strip_prefix(name)?.strip_prefix(";dur="))
        .find_map(|text| text.parse().ok())
        .unwrap_or(0.0)
}

/// A bare interpreter's whole run, in milliseconds. Its environment is empty: a variable that makes it read certificates
/// would triple its time.
pub(crate) fn bare(words: &[&str]) -> Result<f64> {
    let started = Instant::now();
    finish(start(words)?, words)?;
    Ok(ms(started.elapsed()))
}

/// `count` bare interpreters started at once; each one's time.
pub(crate) fn bare_at_once(words: &[&str], count: usize) -> Result<Vec<f64>> {
    std::thread::scope(|scope| {
        let started = Instant::now();
        let all: Vec<_> = (0..count)
            .map(|_| {
                scope.spawn(move || {
                    finish(start(words)?, words)?;
                    Ok(ms(started.elapsed()))
                })
            })
            .collect();
        all.into_iter().map(|one| one.join().expect("starting a program does not panic")).collect()
    })
}

fn start(words: &[&str]) -> Result<Child> {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).env_clear().env("PATH", "/usr/bin:/bin").env("HOME", "/root").env("LANG", "C.UTF-8");
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command.spawn().with_context(|| format!("cannot start {}", words[0]))
}

fn finish(mut child: Child, words: &[&str]) -> Result<()> {
    let status = child.wait()?;
    ensure!(status.success(), "{} failed: {status}", words[0]);
    Ok(())
}

pub(crate) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
