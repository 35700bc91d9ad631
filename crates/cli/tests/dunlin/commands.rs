//! Each command: what it asks the platform, what it prints where, and how it exits.

use std::fs;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::support::{Answer, answer, bare, platform, run};

const FUNCTION: &str = r#"{"functionName":"hello","runtime":"python3.10","handler":"index.handler","memorySize":128,"timeout":3,"codeSize":200,"lastModifiedTime":"2026-01-01T00:00:00Z"}"#;
const TRIGGER: &str = r#"{"triggerName":"http","triggerType":"http","triggerConfig":"{\"authType\":\"function\",\"methods\":[\"GET\"]}","httpTrigger":{"urlInternet":"http://p.fn.localhost:7900/"}}"#;
const TRIGGERS: &str = r#"{"triggers":[{"triggerName":"http","triggerType":"http","triggerConfig":"{\"authType\":\"function\",\"methods\":[\"GET\"]}","httpTrigger":{"urlInternet":"http://p.fn.localhost:7900/"}}]}"#;

macro_rules! layer {
    () => {
        r#"{"layerName":"tools","version":2,"layerVersionArn":"acs:fc:r:1:layers/tools/versions/2","codeSize":2000,"acl":"1","createTime":"2026-01-01T00:00:00Z"}"#
    };
}
const LAYER: &str = layer!();

const GET: &str = "GET /2023-03-30/functions/hello";

fn folder(files: &[(&str, &str)]) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("there is room");
    let code = folder.path().join("hello");
    for (name, text) in files {
        let path = code.join(name);
        fs::create_dir_all(path.parent().expect("below the folder")).expect("there is room");
        fs::write(path, text).expect("there is room");
    }
    let path = code.display().to_string();
    (folder, path)
}

#[test]
fn a_new_function_is_created_with_a_url() {
    let platform = platform(vec![
        answer("POST /2023-03-30/functions/hello/triggers", 200, TRIGGER),
        answer("POST /2023-03-30/functions", 200, FUNCTION),
        answer("GET /2023-03-30/functions/hello/triggers", 200, r#"{"triggers":[]}"#),
    ]);
    let (_folder, path) = folder(&[
        ("index.py", "def handler(e, c): return e"),
        (".git/config", "x"),
        ("a/__pycache__/x.pyc", "x"),
        ("secret.txt", "x"),
        (".dunlinignore", "secret.*"),
    ]);
    let ran = platform.dunlin(&[
        "deploy",
        &path,
        "--env",
        "A=b=c",
        "--memory",
        "256",
        "--http",
        "anonymous",
        "--internet",
        "false",
        "--layer",
        "acs:one",
        "--layer",
        "acs:two",
    ]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.contains("hello") && ran.out.contains("http://p.fn.localhost:7900/"), "{ran:?}");
    assert!(ran.err.contains("created hello"), "{ran:?}");
    let asked = platform.asked();
    let lines: Vec<&str> = asked.iter().map(|asked| asked.line.as_str()).collect();
    assert_eq!(
        lines,
        [
            GET,
            "POST /2023-03-30/functions",
            "GET /2023-03-30/functions/hello/triggers?limit=100",
            "POST /2023-03-30/functions/hello/triggers"
        ]
    );
    let mut body = asked[1].json();
    let zip = STANDARD.decode(body["code"]["zipFile"].take().as_str().expect("a zip")).expect("base64");
    assert_eq!(body["code"]["checksum"], dunlin_model::Crc64::of(&zip).to_string());
    let names = String::from_utf8_lossy(&zip);
    assert!(names.contains("index.py") && !names.contains(".git") && !names.contains("pyc") && !names.contains("secret"));
    body["code"] = Value::Null;
    assert_eq!(
        body,
        json!({"functionName": "hello", "runtime": "python3.10", "handler": "index.handler", "memorySize": 256, "internetAccess": false,
            "environmentVariables": {"A": "b=c"}, "layers": ["acs:one", "acs:two"], "code": null})
    );
    let config: Value = serde_json::from_str(asked[3].json()["triggerConfig"].as_str().expect("JSON in a text")).expect("JSON");
    assert_eq!(config["authType"], "anonymous");
    for asked in &asked {
        assert!(
            asked.header("authorization").is_some_and(|value| value.starts_with("ACS3-HMAC-SHA256 Credential=test-key,")),
            "{asked:?}"
        );
        assert_eq!(asked.header("x-acs-version"), Some("2023-03-30"));
    }
}

#[test]
fn a_known_function_is_updated_and_only_what_was_given_changes() {
    let platform = platform(vec![
        answer("GET /2023-03-30/functions/hello/triggers", 200, TRIGGERS),
        answer(GET, 200, FUNCTION),
        answer(GET, 200, r#"{"customRuntimeConfig":{"command":["/code/old"],"port":8080}}"#),
        answer("PUT /2023-03-30/functions/hello/triggers/http", 200, TRIGGER),
        answer("PUT /2023-03-30/functions/hello", 200, FUNCTION),
    ]);
    let (_folder, path) = folder(&[("bootstrap", "#!/bin/sh\n")]);
    let ran = platform.dunlin(&[
        "deploy",
        &path,
        "--command",
        "node server.js",
        "--args",
        "--verbose",
        "--http",
        "anonymous",
        "--json",
        "--quiet",
    ]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{ran:?}");
    assert_eq!(ran.json()["urlInternet"], "http://p.fn.localhost:7900/");
    let put =
        platform.asked().into_iter().find(|asked| asked.line.starts_with("PUT /2023-03-30/functions/hello")).expect("an update");
    let mut body = put.json();
    body["code"] = Value::Null;
    assert_eq!(
        body,
        json!({"customRuntimeConfig": {"command": ["node", "server.js"], "args": ["--verbose"], "port": 8080}, "code": null})
    );
    let trigger = platform
        .asked()
        .into_iter()
        .find(|asked| asked.line.contains("PUT /2023-03-30/functions/hello/triggers/http"))
        .expect("the switch");
    assert!(
        trigger.json()["triggerConfig"].as_str().is_some_and(|config| config.contains("anonymous") && config.contains("GET"))
    );
}

#[test]
fn code_that_says_nothing_needs_a_runtime() {
    let platform = platform(Vec::new());
    let (_folder, path) = folder(&[("main.rb", "")]);
    let ran = platform.dunlin(&["deploy", &path]);
    assert_eq!(ran.code, 64, "{ran:?}");
    assert!(ran.err.contains("next:") && ran.err.contains("--runtime python3.10"), "{ran:?}");
    let ran = platform.dunlin(&["deploy", &format!("{path}/main.rb")]);
    assert!(ran.code == 64 && ran.err.contains("neither a folder nor a zip file"), "{ran:?}");
    assert_eq!(platform.dunlin(&["deploy", "/nowhere/at-all"]).code, 1);
}

fn invocation(headers: &'static [(&'static str, &'static str)], body: &'static str) -> Answer {
    Answer { line: "POST /2023-03-30/functions/hello/invocations", status: 200, headers, body }
}

#[test]
fn a_call_prints_the_answer_and_nothing_else_on_stdout() {
    let platform = platform(vec![invocation(&[("x-fc-log-result", "bG9nIHRleHQK")], "hello world")]);
    let ran = platform.dunlin(&["invoke", "hello", "-d", "world", "--tail", "--qualifier", "LATEST"]);
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, "hello world", "log text\n"));
    let asked = &platform.asked()[0];
    assert_eq!(
        (asked.line.as_str(), asked.body.as_slice()),
        ("POST /2023-03-30/functions/hello/invocations?qualifier=LATEST", &b"world"[..])
    );
    assert_eq!(asked.header("x-fc-log-type"), Some("Tail"));
}

#[test]
fn an_event_comes_from_a_file_or_standard_input() {
    let platform = platform(vec![invocation(&[], ""), invocation(&[], "")]);
    let (_folder, path) = folder(&[("event.json", "{\"a\":1}")]);
    assert_eq!(platform.dunlin(&["invoke", "hello", "-d", &format!("@{path}/event.json")]).code, 0);
    assert_eq!(platform.dunlin(&["invoke", "hello", "-d", "-"]).code, 0);
    let asked = platform.asked();
    assert_eq!((asked[0].body.as_slice(), asked[1].body.as_slice()), (&b"{\"a\":1}"[..], &b""[..]));
    assert_eq!(platform.dunlin(&["invoke", "hello", "-d", "@/nowhere"]).code, 1);
}

#[test]
fn a_function_that_raises_fails_the_command_with_its_traceback() {
    let error = r#"{"errorMessage":"'who'","errorType":"KeyError","stackTrace":[["File \"/code/index.py\"","line 4","in handler","raise KeyError('who')"]]}"#;
    let failing = || invocation(&[("x-fc-error-type", "UnhandledInvocationError")], error);
    let platform = platform(vec![failing(), failing()]);
    let ran = platform.dunlin(&["invoke", "hello"]);
    assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{ran:?}");
    assert_eq!(
        ran.err,
        "error: 'hello' failed with UnhandledInvocationError: KeyError: 'who'\n    File \"/code/index.py\", line 4, in handler, raise KeyError('who')\n  \
         next: dunlin logs hello\n  request id: 1-11111111-11111111-111111111111\n"
    );
    let ran = platform.dunlin(&["invoke", "hello", "--json"]);
    assert_eq!((ran.code, ran.json()["errorType"].as_str()), (1, Some("UnhandledInvocationError")));
}

#[test]
fn each_kind_of_refusal_has_an_exit_code() {
    for (status, code) in [(400, 1), (403, 4), (404, 3), (409, 5), (412, 5), (429, 6), (503, 6), (504, 7), (500, 1)] {
        let platform = platform(vec![answer("GET", status, r#"{"Code":"SomeCode","Message":"it is so","RequestId":"1-2"}"#)]);
        let ran = platform.dunlin(&["fn", "get", "hello"]);
        assert_eq!((ran.code, ran.out.as_str()), (code, ""), "{status}: {ran:?}");
        assert!(ran.err.starts_with("error: cannot show 'hello': it is so (SomeCode)\n"), "{ran:?}");
        assert!(ran.err.ends_with("  request id: 1-11111111-11111111-111111111111\n"), "{ran:?}");
    }
    let nobody = bare(&["fn", "ls", "--endpoint", "http://127.0.0.1:1", "--access-key-id", "a", "--access-key-secret", "b"]);
    assert_eq!(nobody.code, 8, "{nobody:?}");
    assert!(nobody.err.contains("dunlin up"), "{nobody:?}");
    assert_eq!(bare(&["fn", "ls", "--data", "/nowhere"]).code, 4);
    for usage in [
        &["nonsense"][..],
        &["invoke"],
        &["fn", "ls", "--output", "xml"],
        &["deploy", ".", "--env", "A"],
        &["logs", "f", "--since", "soon", "--endpoint", "http://a", "--access-key-id", "a", "--access-key-secret", "b"],
    ] {
        assert_eq!(bare(usage).code, 64, "{usage:?}");
    }
    assert_eq!(bare(&["--help"]).code, 0);
    assert_eq!(bare(&["--version"]).code, 0);
}

#[test]
fn lists_are_tables_arrays_or_names() {
    let first = r#"{"functions":[{"functionName":"a","runtime":"custom","memorySize":128,"timeout":3}],"nextToken":"t+1"}"#;
    let second = r#"{"functions":[{"functionName":"b","runtime":"python3.10","handler":"x.y","memorySize":64,"timeout":9}]}"#;
    for (arguments, expected) in [
        (
            &["fn", "ls"][..],
            "NAME  RUNTIME     HANDLER  MEMORY  TIMEOUT  CODE  CHANGED\na     custom      -        128 MB  3 s      0 KB  -\nb     python3.10  x.y      64 MB   9 s      0 KB  -\n",
        ),
        (&["fn", "ls", "-o", "name"], "a\nb\n"),
    ] {
        let platform = platform(vec![
            answer("GET /2023-03-30/functions?limit=100&nextToken=t%2B1", 200, second),
            answer("GET /2023-03-30/functions?limit=100", 200, first),
        ]);
        let ran = platform.dunlin(arguments);
        assert_eq!((ran.code, ran.out.as_str()), (0, expected), "{ran:?}");
    }
    let platform = platform(vec![answer("GET", 200, second)]);
    let ran = platform.dunlin(&["fn", "ls", "--json"]);
    assert_eq!(ran.json()[0]["functionName"], "b");
}

#[test]
fn a_function_is_shown_with_its_url() {
    let platform = platform(vec![answer("GET /2023-03-30/functions/hello/triggers", 200, TRIGGERS), answer(GET, 200, FUNCTION)]);
    let shown = platform.dunlin(&["fn", "get", "hello", "--json"]).json();
    assert_eq!(
        (shown["urlInternet"].as_str(), shown["runtime"].as_str()),
        (Some("http://p.fn.localhost:7900/"), Some("python3.10"))
    );
}

#[test]
fn removing_takes_the_triggers_first_and_never_guesses() {
    let removal = || platform(vec![answer("GET", 200, TRIGGERS), answer("DELETE", 204, ""), answer("DELETE", 204, "")]);
    let careful = removal();
    let ran = careful.dunlin(&["fn", "rm", "hello"]);
    assert!(ran.code == 64 && ran.err.contains("--yes"), "{ran:?}");
    assert_eq!(careful.lines().len(), 1);
    let willing = removal();
    assert_eq!(willing.dunlin(&["fn", "rm", "hello", "--yes"]).code, 0);
    assert_eq!(willing.lines()[1..], ["DELETE /2023-03-30/functions/hello/triggers/http", "DELETE /2023-03-30/functions/hello"]);
}

#[test]
fn logs_are_lines_and_cannot_steer_the_terminal() {
    let lines = r#"{"lines":[{"time":"2026-01-01T00:00:00.000001Z","requestId":"1-a","instanceId":"c-a","text":"plain \u001b[2J text"}]}"#;
    let platform = platform(vec![
        answer(
            "GET /2023-03-30/dunlin/logs?functionName=hello&requestId=1-a&contains=a%20b&since=2026-01-01T00%3A00%3A00Z",
            200,
            lines,
        ),
        answer("GET", 200, lines),
    ]);
    let ran = platform.dunlin(&["logs", "hello", "--request-id", "1-a", "--grep", "a b", "--since", "2026-01-01T00:00:00Z"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "2026-01-01T00:00:00.000001Z plain \u{fffd}[2J text\n"), "{ran:?}");
    let ran = platform.dunlin(&["logs", "hello", "--json"]);
    assert_eq!(ran.json()["instanceId"], "c-a");
}

#[test]
fn following_prints_lines_until_the_platform_ends_it() {
    let stream = "{\"time\":\"T1\",\"instanceId\":\"c-a\",\"text\":\"one\"}\n\n{\"missed\":7}\n{\"time\":\"T2\",\"instanceId\":\"c-a\",\"text\":\"two\"}\n";
    let platform = platform(vec![answer("GET /2023-03-30/dunlin/logs?functionName=hello&follow=true", 200, stream)]);
    let ran = platform.dunlin(&["logs", "hello", "-f"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "T1 one\nT2 two\n"), "{ran:?}");
    assert!(ran.err.contains("7 lines"), "{ran:?}");
    assert_eq!(platform.dunlin(&["logs", "hello", "-f"]).code, 3);
}

#[test]
fn records_and_instances_are_listed() {
    let records = r#"{"records":[{"requestId":"1-a","started":"2026-01-01T00:00:00Z","outcome":"succeeded","cold":true,"queueUs":1,"initUs":0,"handlerUs":12345,"billedMs":13,"memoryPeakBytes":1048577}]}"#;
    let platform = platform(vec![
        answer("GET /2023-03-30/dunlin/records?functionName=hello&limit=1000", 200, records),
        answer("GET /2023-03-30/dunlin/records?functionName=hello&limit=20", 200, records),
        answer(
            "GET /2023-03-30/functions/hello/instances",
            200,
            r#"{"instances":[{"instanceId":"c-1","status":"Running","versionId":"0","createdTimeMs":0}]}"#,
        ),
    ]);
    let ran = platform.dunlin(&["records", "hello", "--json", "--limit", "1000"]);
    assert_eq!(ran.json()[0]["requestId"], "1-a", "{ran:?}");
    let ran = platform.dunlin(&["records", "hello"]);
    assert!(
        ran.out.contains("cold") && ran.out.contains("12.3 ms") && ran.out.contains("13 ms") && ran.out.contains("2 MB"),
        "{ran:?}"
    );
    let ran = platform.dunlin(&["instance", "ls", "hello"]);
    assert!(ran.out.contains("c-1") && ran.out.contains("1970-01-01T00:00:00Z"), "{ran:?}");
}

#[test]
fn a_layer_is_published_shown_shared_and_removed() {
    let platform = platform(vec![
        answer("POST /2023-03-30/layers/tools/versions", 200, LAYER),
        answer("GET /2023-03-30/layers?limit=100&nextToken=t", 200, concat!(r#"{"layers":["#, layer!(), "]}")),
        answer("GET /2023-03-30/layers?limit=100", 200, concat!(r#"{"layers":["#, layer!(), r#"],"nextToken":"t"}"#)),
        answer("GET /2023-03-30/layers/tools/versions?limit=100&startVersion=3", 200, concat!(r#"{"layers":["#, layer!(), "]}")),
        answer(
            "GET /2023-03-30/layers/tools/versions?limit=100",
            200,
            concat!(r#"{"layers":["#, layer!(), r#"],"nextVersion":3}"#),
        ),
        answer("GET /2023-03-30/layers/tools/versions/2", 200, LAYER),
        answer("GET /2023-03-30/layers/tools/versions/2", 200, LAYER),
        answer("PUT /2023-03-30/layers/tools/acl?acl=1", 204, ""),
        answer("PUT /2023-03-30/layers/tools/acl?acl=0", 204, ""),
        answer("DELETE /2023-03-30/layers/tools/versions/2", 204, ""),
        answer("GET /2023-03-30/layers/tools/versions/2", 404, r#"{"Code":"LayerVersionNotFound","Message":"gone"}"#),
    ]);
    let (_folder, path) = folder(&[("python/shared.py", "x = 1")]);
    let ran = platform.dunlin(&[
        "layer",
        "publish",
        "tools",
        &path,
        "--description",
        "d",
        "--runtime",
        "python3.10",
        "--runtime",
        "custom",
    ]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "acs:fc:r:1:layers/tools/versions/2\n"), "{ran:?}");
    let mut body = platform.asked()[0].json();
    let zip = STANDARD.decode(body["code"]["zipFile"].take().as_str().expect("a zip")).expect("base64");
    assert!(String::from_utf8_lossy(&zip).contains("python/shared.py"));
    assert_eq!(body["code"]["checksum"].take(), dunlin_model::Crc64::of(&zip).to_string());
    assert_eq!((&body["description"], &body["compatibleRuntime"]), (&json!("d"), &json!(["python3.10", "custom"])));

    let ran = platform.dunlin(&["layer", "ls"]);
    assert!(
        ran.code == 0 && ran.out.matches("tools").count() == 4 && ran.out.contains("2 KB") && ran.out.contains("all accounts"),
        "{ran:?}"
    );
    let ran = platform.dunlin(&["layer", "ls", "tools", "--json"]);
    assert_eq!(ran.json().as_array().map(Vec::len), Some(2), "both pages: {ran:?}");
    assert_eq!(platform.dunlin(&["layer", "get", "tools", "2", "--json"]).json()["version"], 2);
    assert!(platform.dunlin(&["layer", "get", "tools", "2"]).out.contains("layerVersionArn"));
    assert_eq!(platform.dunlin(&["layer", "share", "tools"]).code, 0);
    assert_eq!(platform.dunlin(&["layer", "share", "tools", "--private"]).code, 0);
    let ran = platform.dunlin(&["layer", "rm", "tools", "2"]);
    assert!(ran.code == 64 && ran.err.contains("--yes"), "{ran:?}");
    assert_eq!(platform.dunlin(&["layer", "rm", "tools", "2", "--yes"]).code, 0);
    let ran = platform.dunlin(&["layer", "get", "tools", "2"]);
    assert!(ran.code == 3 && ran.err.contains("dunlin layer ls"), "{ran:?}");
}

#[test]
fn credentials_come_from_the_data_directory() {
    let platform = platform(vec![answer("GET", 200, r#"{"functions":[]}"#), answer("GET", 200, r#"{"functions":[]}"#)]);
    let data = tempfile::tempdir().expect("there is room");
    let file = data.path().join("credentials.json");
    let text = json!({"endpoint": platform.endpoint(), "region": "r", "accountId": "1", "accessKeyId": "file-key", "accessKeySecret": "s"}).to_string();
    fs::write(&file, text).expect("there is room");
    let dunlin = || Command::new(env!("CARGO_BIN_EXE_dunlin"));
    assert_eq!(run(dunlin().arg("--data").arg(data.path()).args(["fn", "ls"])).code, 0);
    assert_eq!(run(dunlin().env("DUNLIN_CREDENTIALS", &file).args(["fn", "ls"])).code, 0);
    for asked in platform.asked() {
        assert!(asked.header("authorization").is_some_and(|value| value.contains("Credential=file-key,")), "{asked:?}");
    }
    assert_eq!(platform.lines().len(), 2);
}

#[test]
fn the_hidden_verbs_are_hidden_and_completions_are_printed() {
    let help = bare(&["--help"]).out;
    assert!(help.contains("deploy") && !help.contains("spawner"), "{help}");
    let completion = bare(&["completion", "bash"]);
    assert!(completion.code == 0 && completion.out.contains("_dunlin"), "{completion:?}");
}
