//! The hello functions that are measured, and the bare interpreters they are compared with.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use dunlin_testkit::{Api, Connection, Response};
use serde_json::{Value, json};

/// One language's hello.
pub(crate) struct Language {
    pub(crate) name: &'static str,
    pub(crate) runtime: &'static str,
    pub(crate) file: &'static str,
    pub(crate) code: &'static str,
    /// The interpreter doing nothing.
    pub(crate) bare: &'static [&'static str],
    /// P1, as ratios to the bare start: a cell waits, none does.
    pub(crate) promised: (f64, f64),
}

pub(crate) const PYTHON: Language = Language {
    name: "python",
    runtime: "python3.10",
    file: "index.py",
    code: "def handler(event, context):\n    return 'hello'\n",
    bare: &["/usr/bin/python3", "-c", "pass"],
    promised: (0.15, 0.35),
};

pub(crate) const NODE: Language = Language {
    name: "node",
    runtime: "nodejs20",
    file: "index.js",
    code: "exports.handler = async () => 'hello';\n",
    bare: &["/usr/bin/node", "-e", "0"],
    promised: (0.06, 1.2),
};

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
        Self::new(api, language.runtime, (language.file, language.code), name, members)
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
