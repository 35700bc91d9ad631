//! Layers at `/opt`: what functions of each language find in them without being told where they are.

use std::fs;
use std::io::{Cursor, Write as _};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dunlin_testkit::{Options, Platform, cache};
use serde_json::{Value, json};

/// A zip in base64. What lies in `bin` can be run.
fn zip_of(files: &[(&str, &[u8])]) -> Result<String> {
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in files {
        let mode = if name.starts_with("bin/") || *name == "bootstrap" { 0o755 } else { 0o644 };
        archive.start_file(*name, zip::write::SimpleFileOptions::default().unix_permissions(mode))?;
        archive.write_all(bytes)?;
    }
    Ok(STANDARD.encode(archive.finish()?.into_inner()))
}

/// Publishes a version of a layer; returns its resource name.
fn publish(platform: &Platform, name: &str, files: &[(&str, &[u8])]) -> Result<String> {
    let body = json!({"code": {"zipFile": zip_of(files)?}});
    let reply = platform.api.json("POST", &format!("/layers/{name}/versions"), "CreateLayerVersion", &body)?;
    ensure!(reply.status == 200, "CreateLayerVersion answered {}: {}", reply.status, reply.text());
    Ok(reply.json()?["layerVersionArn"].as_str().context("a name")?.to_owned())
}

fn answer(platform: &Platform, name: &str) -> Result<String> {
    let reply = platform.api.invoke(name, b"")?;
    ensure!(reply.status == 200 && reply.header("x-fc-error-type").is_none(), "{name}: {}", reply.text());
    Ok(reply.text())
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("start {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Two libraries, one of which needs the other: the linker has to find that by itself.
struct Libraries {
    inner: Vec<u8>,
    outer: Vec<u8>,
}

impl Libraries {
    fn build() -> Result<Self> {
        let work = tempfile::tempdir()?;
        let path = |name: &str| work.path().join(name);
        fs::write(path("inner.c"), "int inner(void) { return 41; }\n")?;
        fs::write(path("outer.c"), "int inner(void);\nint outer(void) { return inner() + 1; }\n")?;
        let gcc = || {
            let mut gcc = Command::new("gcc");
            gcc.current_dir(work.path()).args(["-shared", "-fPIC", "-o"]);
            gcc
        };
        run(gcc().args(["libinner.so", "inner.c"]))?;
        run(gcc().args(["libouter.so", "outer.c", "-L.", "-linner"]))?;
        Ok(Self { inner: fs::read(path("libinner.so"))?, outer: fs::read(path("libouter.so"))? })
    }

    /// The layer's files of them.
    fn files(&self) -> [(&str, &[u8]); 2] {
        [("lib/libinner.so", &self.inner), ("lib/libouter.so", &self.outer)]
    }
}

#[test]
fn python_finds_modules_libraries_and_programs() -> Result<()> {
    let platform = Platform::fresh()?;
    let libraries = Libraries::build()?;
    let tools = publish(&platform, "tools", &[("bin/greet", b"#!/bin/sh\necho greeted $1\n"), ("data/text", b"text")])?;
    let native = publish(&platform, "native", &libraries.files())?;
    let modules =
        publish(&platform, "modules", &[("python/shared.py", b"NAME = 'shared'\n"), ("python/both.py", b"NAME = 'first'\n")])?;
    let more = publish(&platform, "more", &[("python/both.py", b"NAME = 'second'\n"), ("python/own.py", b"NAME = 'layer'\n")])?;
    let code = "import both, ctypes, json, os, own, shared, subprocess, sys
def handler(event, context):
    child = subprocess.run([sys.executable, '-c', 'import shared; print(shared.NAME)'], capture_output=True, text=True)
    try:
        open('/opt/python/shared.py', 'w')
        error = 'none'
    except OSError as problem:
        error = os.strerror(problem.errno)
    return json.dumps([shared.NAME, both.NAME, own.NAME, child.stdout, open('/opt/data/text').read(), error,
        subprocess.check_output(['greet', 'me'], text=True), ctypes.CDLL('libouter.so').outer()])
";
    let files = [("index.py", code), ("own.py", "NAME = 'code'\n")];
    platform.api.create("f", "python3.10", &files, json!({"layers": [tools, native, modules, more]}))?;
    let expected = |both: &str| json!(["shared", both, "code", "shared\n", "text", "Read-only file system", "greeted me\n", 42]);
    assert_eq!(serde_json::from_str::<Value>(&answer(&platform, "f")?)?, expected("first"));
    let swapped = json!({"layers": [more, modules, tools, native]});
    platform.api.json("PUT", "/functions/f", "UpdateFunction", &swapped)?;
    assert_eq!(serde_json::from_str::<Value>(&answer(&platform, "f")?)?, expected("second"));
    Ok(())
}

#[test]
fn node_finds_modules_and_libraries() -> Result<()> {
    let platform = Platform::fresh()?;
    let libraries = Libraries::build()?;
    let native = publish(&platform, "native", &libraries.files())?;
    let module: &[u8] = b"module.exports = { name: 'shared', deeper: require('deeper') };\n";
    let package: &[u8] = b"{\"name\": \"shared\", \"main\": \"main.js\"}\n";
    let modules = publish(
        &platform,
        "modules",
        &[
            ("nodejs/node_modules/shared/package.json", package),
            ("nodejs/node_modules/shared/main.js", module),
            ("nodejs/node_modules/deeper/index.js", b"module.exports = 'deeper';\n"),
        ],
    )?;
    // What is no addon is loaded, and then found to be none.
    let code = "const shared = require('shared');
exports.handler = async () => {
  let problem = '';
  try { process.dlopen({ exports: {} }, 'libouter.so'); } catch (error) { problem = error.message; }
  let written = '';
  try { require('fs').writeFileSync('/opt/x', ''); } catch (error) { written = error.code; }
  return [shared.name, shared.deeper, problem.split(':')[0], written].join('|');
};
";
    platform.api.create("f", "nodejs20", &[("index.js", code)], json!({"layers": [native, modules]}))?;
    assert_eq!(answer(&platform, "f")?, "shared|deeper|Module did not self-register|EROFS");
    Ok(())
}

#[test]
fn java_finds_jars_and_libraries() -> Result<()> {
    let platform = Platform::fresh()?;
    let libraries = Libraries::build()?;
    let work = tempfile::tempdir()?;
    let (classes, code) = (work.path().join("classes"), work.path().join("code"));
    let source = work.path().join("Greeter.java");
    fs::write(
        &source,
        "package shared;\npublic class Greeter {\n  public static String greet() { return \"from a layer\"; }\n}\n",
    )?;
    run(Command::new("javac").arg("-d").arg(&classes).arg(&source))?;
    let jar = work.path().join("greeter.jar");
    run(Command::new("jar").arg("cf").arg(&jar).arg("-C").arg(&classes).arg("."))?;
    let handler = work.path().join("App.java");
    fs::write(
        &handler,
        "import com.aliyun.fc.runtime.*;
import java.io.*;
public class App implements StreamRequestHandler {
  public void handleRequest(InputStream in, OutputStream out, Context context) throws IOException {
    System.loadLibrary(\"outer\");
    out.write(shared.Greeter.greet().getBytes());
  }
}
",
    )?;
    let library = cache().join("m2/com/aliyun/fc/runtime/fc-java-core/1.4.1/fc-java-core-1.4.1.jar");
    ensure!(library.exists(), "run scripts/setup first");
    let path = format!("{}:{}", library.display(), classes.display());
    run(Command::new("javac").arg("-cp").arg(path).arg("-d").arg(&code).arg(&handler))?;

    let native = publish(&platform, "native", &libraries.files())?;
    let (jar, library) = (fs::read(jar)?, fs::read(library)?);
    let jars = publish(&platform, "jars", &[("java/lib/greeter.jar", &jar), ("lib/fc-java-core.jar", &library)])?;
    let members = json!({"handler": "App::handleRequest", "memorySize": 256, "layers": [native, jars]});
    let class = fs::read(code.join("App.class"))?;
    platform.api.create_from("f", "java11", &zip_of(&[("App.class", &class)])?, members)?;
    assert_eq!(answer(&platform, "f")?, "from a layer");
    Ok(())
}

#[test]
fn php_finds_files_and_libraries() -> Result<()> {
    if !Path::new("/usr/bin/php").exists() {
        writeln!(std::io::stderr(), "there is no PHP on this machine\n0 passed, 0 failed, 1 skipped")?;
        return Ok(());
    }
    let platform = Platform::fresh()?;
    let libraries = Libraries::build()?;
    let native = publish(&platform, "native", &libraries.files())?;
    let files = publish(&platform, "files", &[("php/shared.php", b"<?php\nfunction shared() { return 'shared'; }\n")])?;
    let code = "<?php
require_once 'shared.php';
function handler($event, $context)
{
    return shared() . '|' . FFI::cdef('int outer(void);', 'libouter.so')->outer() . '|' . var_export(@file_put_contents('/opt/x', ''), true);
}
";
    platform.api.create("f", "php7.2", &[("index.php", code)], json!({"layers": [native, files]}))?;
    assert_eq!(answer(&platform, "f")?, "shared|42|false");
    Ok(())
}

#[test]
fn a_custom_runtime_may_be_a_layer() -> Result<()> {
    let platform = Platform::fresh()?;
    let libraries = Libraries::build()?;
    let server = b"#!/usr/bin/env python3
import ctypes, http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = ('%s %d' % (open('/code/word').read(), ctypes.CDLL('libouter.so').outer())).encode()
        self.send_response(200)
        self.send_header('content-length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.HTTPServer(('0.0.0.0', 9000), Handler).serve_forever()
";
    let mut files = libraries.files().to_vec();
    files.push(("bin/serve", server));
    let runtime = publish(&platform, "runtime", &files)?;
    // The same bytes again are the same package.
    publish(&platform, "again", &files)?;
    let members = json!({"customRuntimeConfig": {"command": ["serve"]}, "layers": [runtime], "memorySize": 256});
    platform.api.create("f", "custom.debian12", &[("word", "one")], members.clone())?;
    platform.api.create("g", "custom.debian12", &[("word", "two")], members)?;
    assert_eq!((answer(&platform, "f")?, answer(&platform, "g")?), ("one 42".to_owned(), "two 42".to_owned()));
    let trees = fs::read_dir(platform.data.join("trees"))?.count();
    assert_eq!(trees, 3, "of two functions and two layers with the same bytes");
    Ok(())
}

/// Prints what is in the file `word` of the fourth folder it was given, after `/code`, `.` and `/tmp`.
const READER: &str = r#"(module
  (import "wasi_snapshot_preview1" "path_open"
    (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\40\00\00\00\20\00\00\00")
  (data (i32.const 128) "word")
  (func (export "_start")
    (drop (call $open (i32.const 6) (i32.const 1) (i32.const 128) (i32.const 4) (i32.const 0) (i64.const 2) (i64.const 0)
      (i32.const 0) (i32.const 8)))
    (drop (call $read (i32.load (i32.const 8)) (i32.const 0) (i32.const 1) (i32.const 12)))
    (i32.store (i32.const 4) (i32.load (i32.const 12)))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 16)))))"#;

#[test]
fn webassembly_reads_layers() -> Result<()> {
    let platform = Platform::fresh()?;
    let words = publish(&platform, "words", &[("word", b"from a layer")])?;
    let program = wat::parse_str(READER)?;
    let members = json!({"handler": "main.wasm", "layers": [words]});
    platform.api.create_from("f", "wasm", &zip_of(&[("main.wasm", &program)])?, members)?;
    assert_eq!(answer(&platform, "f")?, "from a layer");
    Ok(())
}

#[test]
fn functions_and_versions_keep_a_deleted_layer_through_a_restart() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let options = Options { data: Some(folder.path().join("data")), ..Options::default() };
    let platform = Platform::start(&options)?;
    let api = |platform: &Platform, method: &str, path: &str, action: &str, body: Value| -> Result<Value> {
        let reply = platform.api.json(method, path, action, &body)?;
        ensure!(reply.status < 300, "{action} answered {}: {}", reply.status, reply.text());
        if reply.status == 204 { Ok(Value::Null) } else { reply.json() }
    };
    let one = publish(&platform, "words", &[("python/word.py", b"WORD = 'one'\n")])?;
    let two = publish(&platform, "words", &[("python/word.py", b"WORD = 'two'\n")])?;
    let code = [("index.py", "import word\ndef handler(event, context):\n    return word.WORD\n")];
    platform.api.create("f", "python3.10", &code, json!({"layers": [one]}))?;
    api(&platform, "POST", "/functions/f/versions", "PublishFunctionVersion", json!({}))?;
    api(&platform, "PUT", "/functions/f", "UpdateFunction", json!({"layers": [two]}))?;
    for version in [1, 2] {
        api(&platform, "DELETE", &format!("/layers/words/versions/{version}"), "DeleteLayerVersion", Value::Null)?;
    }
    let answers = |platform: &Platform| -> Result<(String, String)> {
        let reply = platform.api.send("POST", "/2023-03-30/functions/f/invocations?qualifier=1", "InvokeFunction", &[], b"")?;
        Ok((answer(platform, "f")?, reply.text()))
    };
    let expected = ("two".to_owned(), "one".to_owned());
    assert_eq!(answers(&platform)?, expected);
    platform.kill()?;
    let platform = Platform::start(&options)?;
    assert_eq!(answers(&platform)?, expected);
    assert_eq!(publish(&platform, "words", &[("x", b"x")])?.rsplit('/').next(), Some("3"), "no number is used twice");
    Ok(())
}
