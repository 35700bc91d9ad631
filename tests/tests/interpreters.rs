//! Runtime names on the interpreters that are installed: the versions that run, what is said of a substitution, the vendor's
//! paths, and what programs ask the machine. What is expected is computed from what is here: one of each language will do.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dunlin_testkit::{Options, Platform, cache};
use serde_json::{Value, json};

fn with(args: &[&str]) -> Result<Platform> {
    Platform::start(&Options { args: args.iter().map(|arg| (*arg).to_owned()).collect(), ..Options::default() })
}

/// What `dunlin runtime ls` says, by the runtimes' names.
fn runtimes(platform: &Platform) -> Result<BTreeMap<String, Value>> {
    let output = platform.cli(&["runtime", "ls", "--json"])?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let list: Vec<Value> = serde_json::from_slice(&output.stdout)?;
    list.into_iter().map(|row| Ok((row["runtime"].as_str().context("a name")?.to_owned(), row))).collect()
}

fn answer(platform: &Platform, name: &str, event: &[u8]) -> Result<String> {
    let reply = platform.api.invoke(name, event)?;
    ensure!(reply.status == 200 && reply.header("x-fc-error-type").is_none(), "{name}: {}", reply.text());
    Ok(reply.text())
}

fn get(platform: &Platform, name: &str) -> Result<Value> {
    platform.api.json("GET", &format!("/functions/{name}"), "GetFunction", &Value::Null)?.json()
}

const PYTHON: &[(&str, &str)] = &[(
    "index.py",
    "import ssl, sys, uuid\ndef handler(event, context):\n    uuid.uuid4()\n    return '%d.%d.%d' % sys.version_info[:3] + ' ' + sys.executable\n",
)];
const NODE: &[(&str, &str)] =
    &[("index.js", "exports.handler = async () => process.version.slice(1) + ' ' + process.execPath;\n")];

const PHP: &[(&str, &str)] =
    &[("index.php", "<?php\nfunction handler($event, $context)\n{\n    return PHP_VERSION . ' ' . PHP_BINARY;\n}\n")];

#[test]
fn every_runtime_runs_on_the_interpreter_that_the_list_names_and_a_substitution_is_said() -> Result<()> {
    let platform = Platform::fresh()?;
    let runtimes = runtimes(&platform)?;
    let (mut ran, mut substituted) = (0, 0);
    for (runtime, row) in &runtimes {
        let code = match row["language"].as_str() {
            Some("python") => PYTHON,
            Some("node") => NODE,
            Some("php") => PHP,
            _ => continue,
        };
        let (served, version) = (row["served"].as_str().unwrap_or_default(), row["version"].as_str().unwrap_or_default());
        ensure!(["exact", "newer", "older"].contains(&served), "this machine has a {row}");
        let name = runtime.replace('.', "-");
        let created = platform.api.create(&name, runtime, code, json!({}))?;
        let said = answer(&platform, &name, b"")?;
        let program = row["program"].as_str().unwrap_or_default();
        ensure!(said.starts_with(&format!("{version} ")), "{runtime} ran on {said} instead of {version}");
        let ran_on = fs::canonicalize(said.split_once(' ').context("a program")?.1)?;
        assert_eq!(ran_on, fs::canonicalize(program)?, "{runtime}");
        let reason = get(&platform, &name)?["stateReason"].clone();
        assert_eq!(reason, created["stateReason"], "{runtime}");
        if served == "exact" {
            assert_eq!(reason, Value::Null, "{runtime}");
            let numbers = runtime.trim_start_matches(|c: char| !c.is_ascii_digit());
            assert!(format!("{version}.").starts_with(&format!("{numbers}.")), "{runtime} is not {version}");
        } else {
            let reason = reason.as_str().unwrap_or_default();
            assert!(reason.contains(version) && reason.contains(&format!("the nearest {served} version")), "{runtime}: {reason}");
            substituted += 1;
        }
        ran += 1;
    }
    // nodejs8 is older than any Node.js that serves.
    assert!(ran >= 10 && substituted >= 1, "{ran} ran, {substituted} of them on another version");
    let list = platform.api.json("GET", "/functions?limit=100", "ListFunctions", &Value::Null)?.json()?;
    let reasons = list["functions"].as_array().into_iter().flatten().filter(|function| function["stateReason"].is_string());
    assert_eq!(reasons.count(), substituted);
    // The command line says it where a person looks.
    let shown = platform.cli(&["fn", "get", "nodejs8"])?;
    assert!(String::from_utf8_lossy(&shown.stdout).contains("nodejs8 is not installed"), "{shown:?}");
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("index.js"), NODE[0].1)?;
    let path = folder.path().display().to_string();
    let deployed =
        platform.cli(&["deploy", &path, "--name", "deployed", "--runtime", "nodejs8", "--handler", "index.handler"])?;
    assert!(String::from_utf8_lossy(&deployed.stderr).contains("nodejs8 is not installed"), "{deployed:?}");
    Ok(())
}

#[test]
fn java_runs_on_the_interpreter_that_the_list_names() -> Result<()> {
    let platform = Platform::fresh()?;
    let runtimes = runtimes(&platform)?;
    let work = tempfile::tempdir()?;
    let source = work.path().join("Index.java");
    fs::write(
        &source,
        "public class Index { public String handler(String event) { return System.getProperty(\"java.version\") + \" \" + \
         Runtime.getRuntime().availableProcessors(); } }\n",
    )?;
    let compiled =
        Command::new("javac").args(["--release", "8", "-Xlint:-options", "-d"]).arg(work.path()).arg(&source).output()?;
    ensure!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    archive.start_file("Index.class", zip::write::SimpleFileOptions::default())?;
    std::io::Write::write_all(&mut archive, &fs::read(work.path().join("Index.class"))?)?;
    let code = STANDARD.encode(archive.finish()?.into_inner());
    for runtime in ["java8", "java11"] {
        let members = json!({"handler": "Index::handler", "memorySize": 256});
        platform.api.create_from(runtime, runtime, &code, members)?;
        let said = answer(&platform, runtime, b"\"x\"")?;
        let version = runtimes[runtime]["version"].as_str().context("this machine has a Java")?;
        let (ran, processors) = said.trim_matches('"').split_once(' ').context("two words")?;
        // Java 8 calls itself 1.8.0_392.
        assert!(ran.starts_with(version) || ran.starts_with("1.8.0"), "{runtime}: {ran} is not {version}");
        assert!(processors.parse::<u32>()? >= 1, "{processors}");
    }
    Ok(())
}

#[test]
fn both_official_clients_read_the_substitution() -> Result<()> {
    let platform = Platform::fresh()?;
    let reason = platform.api.create("old", "nodejs8", NODE, json!({}))?["stateReason"].clone();
    let reason = reason.as_str().context("no Node.js 8 serves anywhere")?;
    platform.api.create("own", "custom.debian12", &[("bootstrap", "#!/bin/sh\n")], json!({}))?;
    let credentials = platform.data.join("credentials.json");
    let python = "import json, sys
from alibabacloud_fc20230330.client import Client
from alibabacloud_fc20230330 import models
from alibabacloud_tea_openapi.models import Config
key = json.load(open(sys.argv[1]))
sdk = Client(Config(access_key_id=key['accessKeyId'], access_key_secret=key['accessKeySecret'], protocol='http',
                    endpoint=key['endpoint'].split('//')[1], region_id=key['region']))
print(sdk.get_function('old', models.GetFunctionRequest()).body.state_reason)
print(sdk.get_function('own', models.GetFunctionRequest()).body.state_reason)
";
    let node = "const { default: Client, GetFunctionRequest } = require('@alicloud/fc20230330');
const { $OpenApiUtil } = require('@alicloud/openapi-core');
const key = require(process.argv[1]);
const sdk = new Client(new $OpenApiUtil.Config({ accessKeyId: key.accessKeyId, accessKeySecret: key.accessKeySecret, protocol: 'http',
  endpoint: key.endpoint.split('//')[1], regionId: key.region }));
(async () => {
  for (const name of ['old', 'own']) console.log((await sdk.getFunction(name, new GetFunctionRequest({}))).body.stateReason);
})();
";
    let mut by_python = Command::new(cache().join("python-sdk/bin/python"));
    by_python.args(["-c", python]).arg(&credentials);
    let mut by_node = Command::new("node");
    by_node.env("NODE_PATH", cache().join("node-sdk/node_modules")).args(["-e", node]).arg(&credentials);
    for (mut client, nothing) in [(by_python, "None"), (by_node, "undefined")] {
        let output = client.output().context("run scripts/setup first")?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(said, format!("{reason}\n{nothing}\n"), "{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// In front of a platform: every program of `runtimes`' `language` is hidden from it.
fn without(runtimes: &BTreeMap<String, Value>, language: &str) -> Result<Vec<String>> {
    let programs = runtimes.values().filter(|row| row["language"] == language).filter_map(|row| row["program"].as_str());
    let mut hide = String::from("set -e\n");
    for program in programs.map(fs::canonicalize).collect::<std::io::Result<std::collections::BTreeSet<_>>>()? {
        hide.push_str(&format!("mount --bind /dev/null '{}'\n", program.display()));
    }
    hide.push_str("exec \"$@\"");
    Ok(["unshare", "-m", "sh", "-c", &hide, "sh"].map(str::to_owned).to_vec())
}

#[test]
fn a_language_without_an_interpreter_is_refused_when_a_function_is_created() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let options = Options { data: Some(folder.path().join("data")), ..Options::default() };
    let platform = Platform::start(&options)?;
    let hidden = Options { wrapper: without(&runtimes(&platform)?, "node")?, ..options };
    platform.api.create("before", "nodejs20", NODE, json!({}))?;
    platform.api.create("python", "python3", PYTHON, json!({}))?;
    platform.stop()?;

    let platform = Platform::start(&hidden)?;
    let row = &runtimes(&platform)?["nodejs20"];
    assert!(row["served"] == "missing" && row["fix"].as_str().is_some_and(|fix| fix.contains("apt-get install nodejs")), "{row}");
    let code = json!({"zipFile": dunlin_testkit::zip_of(NODE)?});
    let create = json!({"functionName": "f", "runtime": "nodejs20", "handler": "index.handler", "code": code});
    for (method, path, action, body) in [
        ("POST", "/functions", "CreateFunction", create),
        ("PUT", "/functions/python", "UpdateFunction", json!({"runtime": "nodejs18", "handler": "index.handler"})),
    ] {
        let reply = platform.api.json(method, path, action, &body)?;
        let said = reply.json()?;
        let message = said["Message"].as_str().unwrap_or_default();
        assert_eq!((reply.status, said["Code"].as_str()), (400, Some("InvalidArgument")), "{said}");
        assert!(message.starts_with("runtime 'nodejs") && message.contains("no Node.js"), "{message}");
        assert!(message.contains("apt-get install nodejs") && message.contains("--interpreter"), "{message}");
    }
    assert_eq!(platform.api.json("GET", "/functions/f", "GetFunction", &Value::Null)?.status, 404);
    // One from before says why it does not run, and other languages are as they were.
    let reason = get(&platform, "before")?["stateReason"].clone();
    assert!(reason.as_str().is_some_and(|reason| reason.contains("no Node.js")), "{reason}");
    let refused = platform.api.invoke("before", b"")?;
    assert_eq!((refused.status, refused.json()?["Code"].as_str()), (412, Some("RuntimeNotInstalled")), "{}", refused.text());
    answer(&platform, "python", b"")?;
    // Debian has no .NET, and the tests' own is not where anybody looks.
    for runtime in ["dotnetcore2.1", "dotnetcore3.1"] {
        let members = json!({"handler": "A::B::C"});
        let refused = platform.api.create("net", runtime, NODE, members).expect_err("there is no .NET").to_string();
        assert!(refused.contains("400") && refused.contains("no .NET that can serve functions"), "{refused}");
    }
    Ok(())
}

#[test]
fn the_vendors_paths_lead_to_the_same_interpreters_inside_a_custom_runtime() -> Result<()> {
    let platform = Platform::fresh()?;
    let runtimes = runtimes(&platform)?;
    let server = "import http.server, json, os, subprocess, sys
def said(*command):
    ended = subprocess.run(command, capture_output=True, text=True)
    return (ended.stdout + ended.stderr).strip()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.dumps({
            'python': '%d.%d.%d' % sys.version_info[:3],
            'python3.9': said('/var/fc/lang/python3.9/bin/python3.9', '--version'),
            'node': said('/var/fc/lang/nodejs20/bin/node', '-p', 'process.versions.node'),
            'java': said('/var/fc/lang/java11/bin/java', '-version'),
            'root': sorted(os.listdir('/root')),
        }).encode()
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.HTTPServer(('0.0.0.0', 9000), Handler).serve_forever()
";
    let command = ["/var/fc/lang/python3.10/bin/python3", "/code/server.py"];
    let members = json!({"customRuntimeConfig": {"command": command, "port": 9000}, "memorySize": 512, "timeout": 60});
    platform.api.create("custom", "custom.debian12", &[("server.py", server)], members)?;
    let said: Value = serde_json::from_str(&answer(&platform, "custom", b"x")?)?;
    let version = |runtime: &str| runtimes[runtime]["version"].as_str().unwrap_or("missing").to_owned();
    assert_eq!(said["python"], version("python3.10"));
    assert_eq!(said["python3.9"], format!("Python {}", version("python3.9")));
    assert_eq!(said["node"], version("nodejs20"));
    assert!(said["java"].as_str().is_some_and(|java| java.contains(&format!("\"{}", version("java11")))), "{said}");
    // Of root's home, what leads to interpreters and nothing else.
    let programs: Vec<&str> = runtimes.values().filter_map(|row| row["program"].as_str()).collect();
    let names = said["root"].as_array().into_iter().flatten().filter_map(Value::as_str);
    for name in names {
        assert!([".pyenv", ".nvm", ".sdkman", ".local"].contains(&name), "guests see /root/{name}; programs are {programs:?}");
    }
    Ok(())
}

#[test]
fn an_interpreter_that_the_operator_names_is_used_and_shown_read_only() -> Result<()> {
    // Not below /tmp, of which functions have their own.
    let folder = tempfile::tempdir_in("/var/lib")?;
    let program = folder.path().join("own/bin/python3.11");
    fs::create_dir_all(program.parent().context("it has one")?)?;
    fs::write(&program, "#!/bin/sh\nexport OWN=yes\nexec /usr/bin/python3 \"$@\"\n")?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    fs::write(folder.path().join("secret"), "secret")?;
    let path = program.display().to_string();
    let platform = with(&["--interpreter", &path])?;
    let row = &runtimes(&platform)?["python3"];
    assert_eq!((row["program"].as_str(), row["served"].as_str()), (Some(&*path), Some("exact")));
    let code = format!(
        "import os, subprocess, sys
FOLDER = {:?}
def handler(event, context):
    try:
        open(FOLDER + '/own/new', 'w')
        return 'written'
    except OSError:
        pass
    return repr([os.listdir(FOLDER), os.path.exists(FOLDER + '/secret'), os.path.basename(os.readlink('/var/fc/lang/python3/bin/python3'))])
",
        folder.path()
    );
    platform.api.create("own", "python3", &[("index.py", &code)], json!({}))?;
    assert_eq!(answer(&platform, "own", b"")?, "[['own'], False, 'python3.11']");
    platform.stop()?;

    let missing = folder.path().join("nothing").display().to_string();
    for (path, why) in
        [(&*missing, "cannot be found"), ("/bin/sh", "is neither an interpreter"), ("/var/lib", "is neither an interpreter")]
    {
        let refused = with(&["--interpreter", path]).expect_err("it is no interpreter").to_string();
        assert!(refused.contains(path) && refused.contains(why), "{refused}");
    }
    Ok(())
}

/// A function with psutil beside it, which says what each probe answers.
fn probes(platform: &Platform) -> Result<(Value, Value)> {
    let folder = tempfile::tempdir()?;
    let copied = Command::new("cp").arg("-r").arg(cache().join("psutil")).arg(folder.path().join("python")).status()?;
    ensure!(copied.success(), "run scripts/setup first");
    let code = "import json, os, subprocess, sys
sys.path.insert(0, '/code/python')
import psutil
def tried(probe):
    try:
        return probe()
    except Exception as error:
        return type(error).__name__
def handler(event, context):
    return {
        'os.cpu_count': tried(os.cpu_count),
        'nproc': tried(lambda: int(subprocess.run(['nproc'], capture_output=True, text=True).stdout)),
        'psutil.cpu_count': tried(psutil.cpu_count),
        'psutil.virtual_memory': tried(lambda: psutil.virtual_memory().total > 0),
        'psutil.memory_info': tried(lambda: psutil.Process().memory_info().rss > 0),
        'psutil.pids': tried(lambda: sorted(psutil.pids())[0]),
        'processes': max(int(name) for name in os.listdir('/proc') if name.isdigit()) < 100,
        'sysctl': tried(lambda: open('/proc/sys/kernel/hostname', 'w')),
    }
";
    fs::write(folder.path().join("index.py"), code)?;
    platform.api.create_from("python", "python3", &dunlin_testkit::zip_of_folder(folder.path())?, json!({"memorySize": 256}))?;
    let code = "const os = require('os');
exports.handler = async () => ({
  parallelism: os.availableParallelism ? os.availableParallelism() : -1, cpus: os.cpus().length, totalmem: os.totalmem() >> 20, model: os.cpus()[0].model,
  interfaces: Object.keys(os.networkInterfaces()), loadavg: os.loadavg().length, uptime: os.uptime() > 0, hostname: os.hostname(),
});
";
    platform.api.create("node", "nodejs20", &[("index.js", code)], json!({"memorySize": 256, "internetAccess": false}))?;
    let said = |name| -> Result<Value> { Ok(serde_json::from_str(&answer(platform, name, b"")?)?) };
    Ok((said("python")?, said("node")?))
}

fn processors() -> Result<usize> {
    Ok(std::thread::available_parallelism()?.get())
}

#[test]
fn what_programs_ask_the_machine_is_answered_without_the_rest_of_proc() -> Result<()> {
    let platform = Platform::fresh()?;
    let (python, node) = probes(&platform)?;
    let count = processors()?;
    for probe in ["os.cpu_count", "nproc", "psutil.cpu_count"] {
        assert_eq!(python[probe], count, "{probe}: {python}");
    }
    assert_eq!(
        (&python["psutil.memory_info"], &python["psutil.pids"], &python["processes"]),
        (&json!(true), &json!(1), &json!(true))
    );
    assert_eq!((&node["totalmem"], &node["cpus"]), (&json!(256), &json!(count)), "{node}");
    assert_eq!(node["parallelism"], count, "{node}");
    assert_eq!(node["interfaces"], json!(["lo"]), "{node}");
    assert_eq!(node["hostname"], "fn");
    // The deviations that the specification names.
    assert_eq!(python["psutil.virtual_memory"], "FileNotFoundError", "{python}");
    assert_eq!(node["model"], "unknown", "{node}");
    Ok(())
}

#[test]
fn a_full_proc_answers_the_rest_and_still_shows_no_other_process() -> Result<()> {
    let platform = with(&["--full-proc"])?;
    let (python, node) = probes(&platform)?;
    assert_eq!(
        (&python["psutil.virtual_memory"], &python["psutil.pids"], &python["processes"]),
        (&json!(true), &json!(1), &json!(true))
    );
    assert_eq!(python["sysctl"], "PermissionError", "{python}");
    assert_eq!(node["cpus"], processors()?, "{node}");
    assert_ne!(node["model"], "unknown", "{node}");
    Ok(())
}

/// Where Chromium is installed; nothing else of the platform needs it.
#[test]
fn a_headless_browser_renders_a_page() -> Result<()> {
    const PROGRAM: &str = "/usr/lib/chromium/chromium";
    if !Path::new(PROGRAM).exists() {
        eprintln!("there is no {PROGRAM} here");
        return Ok(());
    }
    let platform = Platform::fresh()?;
    let code = format!(
        "import subprocess
def handler(event, context):
    ended = subprocess.run(
        ['{PROGRAM}', '--headless', '--no-sandbox', '--disable-gpu', '--user-data-dir=/tmp/profile', '--dump-dom',
         'data:text/html,<script>document.write(6 * 7)</script>'],
        capture_output=True, text=True, timeout=100)
    return ended.stdout or ended.stderr[-4000:]
"
    );
    platform.api.create("browser", "python3", &[("index.py", &code)], json!({"memorySize": 1024, "timeout": 120}))?;
    let said = answer(&platform, "browser", b"")?;
    assert!(said.contains("42</body>"), "{said}");
    Ok(())
}
