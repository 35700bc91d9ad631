//! Functions: created, read, changed, called, listed, fetched, deleted; and what is refused.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dunlin_model::{Crc64, RequestId};
use dunlin_telemetry::LogEntry;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::rig::{BAD_ZIP, Rig, function};

#[tokio::test]
async fn a_function_reads_back_as_the_contract_shows_it() {
    let rig = Rig::new().await;
    let mut body = function("f", b"zip");
    body["tags"] = json!([]);
    body["layers"] = json!([]);
    body["vpcConfig"] = json!({"vpcId": "", "vSwitchIds": [], "securityGroupId": ""});
    body["nasConfig"] = json!({"userId": -1, "groupId": -1, "mountPoints": []});
    body["environmentVariables"] = json!({});
    body["unknownMember"] = json!(1);
    let created = rig.ask("POST", "/functions", body).await;
    assert_eq!(created.status, 200, "{}", created.json());
    let mut shown = created.json();
    let members = shown.as_object_mut().unwrap();
    for member in ["functionId", "createdTime", "lastModifiedTime"] {
        let text = members.remove(member).unwrap();
        let text = text.as_str().unwrap();
        assert!(member == "functionId" || (text.len() == 20 && text.ends_with('Z')), "{text}");
    }
    assert_eq!(
        shown,
        json!({
            "functionName": "f", "runtime": "python3.10", "handler": "index.handler", "description": "", "memorySize": 128,
            "timeout": 3, "internetAccess": true, "role": "", "instanceIsolationMode": "SHARE", "sessionAffinity": "NONE",
            "disableOndemand": false, "functionArn": "acs:fc:cn-hangzhou:0000000000000001:functions/f",
            "codeChecksum": Crc64::of(b"zip").to_string(), "codeSize": 3,
        })
    );
    assert_eq!(rig.ask("GET", "/functions/f?qualifier=LATEST", Value::Null).await.json(), created.json());
    assert_eq!(rig.ask("GET", "/functions/f?qualifier=3", Value::Null).await.refused(404).0, "VersionNotFound");
    assert_eq!(rig.ask("GET", "/functions/f?qualifier=prod", Value::Null).await.refused(404).0, "AliasNotFound");
    assert_eq!(rig.create("f", b"zip").await.refused(409).0, "FunctionAlreadyExists");
    assert_eq!(rig.ask("DELETE", "/functions/f", Value::Null).await.status, 204);
    assert_eq!(rig.ask("DELETE", "/functions/f", Value::Null).await.refused(404).0, "FunctionNotFound");
}

#[tokio::test]
async fn a_function_on_another_version_says_so_and_one_without_an_interpreter_is_refused() {
    let rig = Rig::new().await;
    let of = |name: &str, runtime: &str| json!({"functionName": name, "runtime": runtime, "handler": "index.handler", "code": {"zipFile": STANDARD.encode(b"zip")}});
    for (runtime, reason) in [
        ("nodejs18", json!("nodejs18 is not installed: Node.js 20.2.0 serves it, the nearest newer version")),
        ("python3.12", json!("python3.12 is not installed: Python 3.10.13 serves it, the nearest older version")),
        ("nodejs20", Value::Null),
        ("custom.debian12", Value::Null),
    ] {
        let name = runtime.replace('.', "-");
        let created = rig.ask("POST", "/functions", of(&name, runtime)).await.json();
        assert_eq!(created["stateReason"], reason, "{runtime}");
        assert_eq!(rig.ask("GET", &format!("/functions/{name}"), Value::Null).await.json()["stateReason"], reason);
        let updated = rig.ask("PUT", &format!("/functions/{name}"), json!({"timeout": 9})).await.json();
        assert_eq!((&updated["stateReason"], &updated["timeout"]), (&reason, &json!(9)), "{runtime}");
    }
    let list = rig.ask("GET", "/functions", Value::Null).await.json();
    assert_eq!(list["functions"].as_array().unwrap().iter().filter(|one| one["stateReason"].is_string()).count(), 2);
    let mut java = of("java", "java11");
    java["handler"] = "example.App::handleRequest".into();
    let refused = rig.ask("POST", "/functions", java).await.refused(400);
    assert_eq!(refused.0, "InvalidArgument");
    assert!(refused.1.starts_with("runtime 'java11' cannot be served: no Java"), "{}", refused.1);
    assert!(refused.1.contains("/opt/java/bin/java hangs") && refused.1.contains("default-jre-headless"), "{}", refused.1);
    let refused = rig
        .ask("PUT", "/functions/nodejs20", json!({"runtime": "java8", "handler": "example.App::handleRequest"}))
        .await
        .refused(400);
    assert!(refused.1.starts_with("runtime 'java8'"), "{}", refused.1);
    assert_eq!(rig.ask("GET", "/functions/nodejs20", Value::Null).await.json()["runtime"], "nodejs20", "untouched");

    let served = rig.ask("GET", "/dunlin/runtimes", Value::Null).await.json();
    let row =
        |runtime: &str| served["runtimes"].as_array().unwrap().iter().find(|row| row["runtime"] == runtime).unwrap().clone();
    let program = "/usr/bin/python3";
    assert_eq!(
        row("python3.9"),
        json!({"runtime": "python3.9", "language": "python", "served": "newer", "version": "3.10.13", "program": program})
    );
    assert_eq!(row("go1"), json!({"runtime": "go1", "language": "go", "served": "own"}));
    for missing in ["java8", "dotnetcore3.1", "python2.7"] {
        assert!(row(missing)["served"] == "missing" && row(missing)["fix"].is_string(), "{}", row(missing));
    }
    assert_eq!(
        served["interpreters"][2],
        json!({"language": "java", "program": "/opt/java/bin/java", "standing": "broken", "version": null, "why": "hangs"})
    );
}

#[tokio::test]
async fn an_update_changes_what_is_present_and_retires_only_when_something_changed() {
    let rig = Rig::new().await;
    rig.create("f", b"zip").await;
    let updated = rig.ask("PUT", "/functions/f", json!({"timeout": 9, "code": {}})).await.json();
    assert_eq!((&updated["timeout"], &updated["memorySize"]), (&json!(9), &json!(128)));
    assert_eq!(rig.pool.retired.lock().unwrap().len(), 1);
    assert_eq!(rig.pool.expected.lock().unwrap().len(), 2, "one for the create, one for the update");
    rig.ask("PUT", "/functions/f", json!({"timeout": 9})).await;
    assert_eq!(rig.pool.retired.lock().unwrap().len(), 1, "nothing changed");
    let updated = rig.ask("PUT", "/functions/f", json!({"code": {"zipFile": STANDARD.encode(b"new")}})).await.json();
    assert_eq!(updated["codeChecksum"], Crc64::of(b"new").to_string());
    assert_eq!(rig.kept().await, (2, 2), "calls in flight may still use the old code");
    rig.control.reconcile().await.unwrap();
    assert_eq!(rig.kept().await, (1, 1));
    assert_eq!(rig.ask("PUT", "/functions/nobody", json!({})).await.refused(404).0, "FunctionNotFound");
    assert_eq!(rig.ask("PUT", "/functions/f", json!({"memorySize": 100})).await.refused(400).0, "InvalidArgument");
}

#[tokio::test]
async fn of_parallel_creates_one_wins_and_nothing_of_the_others_is_left() {
    let rig = Rig::new().await;
    let zips: Vec<String> = (0..40).map(|i| format!("zip {}", i % 4)).collect();
    let replies = futures_util::future::join_all(zips.iter().map(|zip| rig.create("same", zip.as_bytes()))).await;
    assert_eq!(replies.iter().filter(|reply| reply.status == 200).count(), 1);
    for reply in replies.iter().filter(|reply| reply.status != 200) {
        assert_eq!(reply.refused(409).0, "FunctionAlreadyExists");
    }
    assert_eq!(rig.kept().await, (1, 1));
}

#[tokio::test]
async fn the_limit_of_functions_holds_under_parallel_creates() {
    let rig = Rig::new().await;
    let names: Vec<String> = (0..50).map(|i| format!("f{i}")).collect();
    let replies = futures_util::future::join_all(names.iter().map(|name| rig.create(name, b"zip"))).await;
    assert_eq!(replies.iter().filter(|reply| reply.status == 200).count(), 30);
    for reply in replies.iter().filter(|reply| reply.status != 200) {
        let (code, message) = reply.refused(400);
        assert!(code == "LimitExceededError" && message.contains("30"), "{message}");
    }
}

#[tokio::test]
async fn a_refused_package_leaves_nothing() {
    let rig = Rig::new().await;
    let (code, message) = rig.create("f", BAD_ZIP).await.refused(400);
    assert!(code == "InvalidArgument" && message.contains("code.zipFile") && message.contains("'../evil'"), "{message}");
    assert_eq!(rig.kept().await, (0, 0));
    rig.create("f", b"good").await;
    assert_eq!(
        rig.ask("PUT", "/functions/f", json!({"code": {"zipFile": STANDARD.encode(BAD_ZIP)}})).await.refused(400).0,
        "InvalidArgument"
    );
    assert_eq!(rig.kept().await, (1, 1));
    assert_eq!(rig.ask("GET", "/functions/f", Value::Null).await.json()["codeSize"], 4);
}

#[tokio::test]
async fn a_wrong_member_is_named_with_its_path() {
    let rig = Rig::new().await;
    for (member, value, named) in [
        ("memorySize", json!("128"), "memorySize"),
        ("memorySize", json!(128.5), "memorySize"),
        ("memorySize", json!(9_223_372_036_854_775_808_u64), "memorySize"),
        ("functionName", json!("..%2f"), "functionName"),
        ("environmentVariables", json!({"A": 1}), "environmentVariables.A"),
        (
            "customRuntimeConfig",
            json!({"healthCheckConfig": {"periodSeconds": "x"}}),
            "customRuntimeConfig.healthCheckConfig.periodSeconds",
        ),
        ("tags", json!([{"Key": 1}]), "tags[0].Key"),
        ("code", json!({"zipFile": 7}), "code.zipFile"),
        ("code", json!({"checksum": "1"}), "code"),
        ("code", json!({"ossBucketName": "b", "ossObjectName": "o"}), "code.ossBucketName"),
        ("logConfig", json!("x".repeat(200_000)), "logConfig"),
    ] {
        let mut body = function("f", b"zip");
        body[member] = value;
        let (code, message) = rig.ask("POST", "/functions", body).await.refused(400);
        assert!(code == "InvalidArgument" && message.starts_with(named), "{named}: {message}");
    }
    for body in [&b""[..], b"[]", b"{} x", b"{\"a\":1,\"a\":2}", b"\xef\xbb\xbf{}"] {
        assert_eq!(rig.signed(1, "POST", "/functions", &[], body).await.refused(400).0, "InvalidArgument");
    }
    let typed = rig.signed(1, "POST", "/functions", &[("content-type", "text/html")], b"{}").await;
    assert_eq!(typed.refused(415).0, "UnsupportedMediaType");
    let coded = rig.signed(1, "POST", "/functions", &[("content-encoding", "gzip")], b"{}").await;
    assert_eq!(coded.refused(415).0, "UnsupportedMediaType");
    assert_eq!(rig.kept().await, (0, 0));
}

#[tokio::test]
async fn functions_are_listed_by_page_prefix_and_filter() {
    let rig = Rig::new().await;
    for name in ["a1", "a2", "a3", "b1"] {
        rig.create(name, b"zip").await;
    }
    let mut tagged = function("a4", b"zip");
    tagged["tags"] = json!([{"Key": "team", "Value": "x"}]);
    rig.ask("POST", "/functions", tagged).await;
    let names = |page: &Value| -> Vec<String> {
        page["functions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|function| function["functionName"].as_str().unwrap().to_owned())
            .collect()
    };
    let first = rig.ask("GET", "/functions?prefix=a&limit=3", Value::Null).await.json();
    assert_eq!(names(&first), ["a1", "a2", "a3"]);
    let token = first["nextToken"].as_str().unwrap();
    let second = rig.ask("GET", &format!("/functions?prefix=a&limit=3&nextToken={token}"), Value::Null).await.json();
    assert_eq!((names(&second), second.get("nextToken")), (vec!["a4".to_owned()], None));
    let filtered = rig
        .ask("GET", "/functions?limit=1&tags=%5B%7B%22Key%22%3A%22team%22%2C%22Value%22%3A%22x%22%7D%5D", Value::Null)
        .await
        .json();
    assert_eq!(names(&filtered), ["a4"]);
    assert_eq!(names(&rig.ask("GET", "/functions?runtime=nodejs20", Value::Null).await.json()), Vec::<String>::new());

    for path in [
        format!("/functions?nextToken={token}x"),
        "/functions?nextToken=YTE".to_owned(),
        "/functions?limit=0".to_owned(),
        "/functions?limit=1000000000".to_owned(),
        "/functions?limit=x".to_owned(),
    ] {
        assert_eq!(rig.ask("GET", &path, Value::Null).await.refused(400).0, "InvalidArgument", "{path}");
    }
    let foreign = rig.signed(2, "GET", &format!("/functions?nextToken={token}"), &[], b"").await;
    assert_eq!(foreign.refused(400).0, "InvalidArgument");
}

#[tokio::test]
async fn code_is_fetched_by_a_link_without_a_signature() {
    let rig = Rig::new().await;
    rig.create("f", b"zip bytes").await;
    let link = rig.ask("GET", "/functions/f/code", Value::Null).await.json();
    assert_eq!(link["checksum"], Crc64::of(b"zip bytes").to_string());
    let path = link["url"].as_str().unwrap().strip_prefix("http://127.0.0.1:7900").unwrap();
    let fetched = rig.raw("GET", path, &[], b"").await;
    assert_eq!((fetched.status.as_u16(), &fetched.bytes[..]), (200, &b"zip bytes"[..]));
    assert_eq!(rig.raw("GET", &format!("{path}A"), &[], b"").await.refused(403).0, "AccessDenied");
    assert_eq!(rig.raw("GET", "/-/code/", &[], b"").await.refused(403).0, "AccessDenied");
}

#[tokio::test]
async fn a_call_answers_with_the_contracts_headers() {
    let rig = Rig::new().await;
    rig.create("f", b"zip").await;
    let path = "/functions/f/invocations";
    let reply = rig.signed(1, "POST", path, &[("x-fc-log-type", "Tail")], b"\x00event").await;
    assert_eq!((reply.status.as_u16(), &reply.bytes[..]), (200, &b"\x00event"[..]));
    for (name, value) in [
        ("content-type", "application/octet-stream"),
        ("x-fc-instance-id", "c-00000000-00000000-000000000001"),
        ("x-fc-code-checksum", "7"),
        ("x-fc-invocation-service-version", "LATEST"),
        ("x-fc-invocation-duration", "5.00"),
        ("x-fc-max-memory-usage", "3.00"),
        ("server-timing", "queue;dur=0.000, bind;dur=0.000, load;dur=0.000, init;dur=0.000, handler;dur=5.000"),
        ("x-fc-log-result", "RkMgSW52b2tlIFN0YXJ0Cg=="),
        ("x-fc-error-type", ""),
    ] {
        assert_eq!(reply.header(name), value, "{name}");
    }
    let failed = rig.signed(1, "POST", path, &[], b"fail").await;
    assert_eq!((failed.status.as_u16(), failed.header("x-fc-error-type")), (200, "UnhandledInvocationError"));
    assert_eq!(failed.json()["errorMessage"], "oops");
    assert_eq!(rig.signed(1, "POST", path, &[], b"exit").await.refused(412).0, "CAExited");
    assert_eq!(rig.signed(1, "POST", path, &[], &vec![b'x'; (1 << 20) + 1]).await.refused(400).0, "EntityTooLarge");
    assert_eq!(rig.signed(1, "POST", path, &[("x-fc-invocation-type", "Sync")], b"").await.status, 200);
    for (name, value, words) in [
        ("x-fc-log-type", "x", "LogType is set to an invalid value (allowed: Tail | None, actual: 'x')"),
        ("x-fc-invocation-type", "Async", "not supported yet"),
        ("x-fc-invocation-type", "x", "(allowed: Sync | Async, actual: 'x')"),
    ] {
        let (code, message) = rig.signed(1, "POST", path, &[(name, value)], b"").await.refused(400);
        assert!(code == "InvalidArgument" && message.contains(words), "{message}");
    }
}

#[tokio::test]
async fn instances_and_regions_are_listed() {
    let rig = Rig::new().await;
    rig.create("f", b"zip").await;
    let listed = rig.ask("GET", "/functions/f/instances?withAllActive=True", Value::Null).await.json();
    assert_eq!(listed["instances"][0]["versionId"], "0");
    assert_eq!(listed["instances"][0]["createdTimeMs"], 1_700_000_000_000_i64);
    let none = rig.ask("GET", "/functions/f/instances?instanceIds=%5B%22c-9%22%5D", Value::Null).await.json();
    assert_eq!(none["instances"], json!([]));
    let regions = rig.ask("GET", "/regions", Value::Null).await.json();
    assert_eq!(regions["Regions"]["Region"][0]["RegionId"], "cn-hangzhou");
}

#[tokio::test]
async fn logs_are_this_functions_and_not_its_deleted_namesakes() {
    let rig = Rig::new().await;
    rig.create("f", b"zip").await;
    let key = dunlin_model::FunctionKey::from_stored("0000000000000001".parse().unwrap(), "f".parse().unwrap());
    let request = RequestId::random();
    let instance: dunlin_model::InstanceId = "c-00000000-00000000-000000000001".parse().unwrap();
    let entry = |time: Timestamp, text: &[u8]| LogEntry {
        time,
        request: Some(request.clone()),
        instance: instance.clone(),
        text: text.into(),
    };
    rig.logs.append(&key, entry(Timestamp::now(), b"new"));
    let lines = rig.ask("GET", &format!("/dunlin/logs?functionName=f&requestId={request}"), Value::Null).await.json();
    assert_eq!((&lines["lines"][0]["text"], lines["lines"].as_array().unwrap().len()), (&json!("new"), 1), "{lines}");
    assert_eq!(lines["lines"][0]["requestId"], json!(request));
    let old = rig.ask("GET", "/dunlin/logs?functionName=f&until=2020-01-01T00:00:00Z", Value::Null).await.json();
    assert_eq!(old["lines"], json!([]));
    for path in [
        "/dunlin/logs",
        "/dunlin/logs?functionName=f&limit=0",
        "/dunlin/logs?functionName=f&since=x",
        "/dunlin/logs?functionName=f&requestId=x",
        "/dunlin/records?nextToken=x",
    ] {
        assert_eq!(rig.ask("GET", path, Value::Null).await.refused(400).0, "InvalidArgument", "{path}");
    }
}

#[tokio::test]
async fn a_follower_gets_what_is_stored_and_then_what_comes_each_line_once() {
    use http_body_util::BodyExt as _;
    let rig = Rig::new().await;
    rig.create("f", b"zip").await;
    let key = dunlin_model::FunctionKey::from_stored("0000000000000001".parse().unwrap(), "f".parse().unwrap());
    let instance: dunlin_model::InstanceId = "c-00000000-00000000-000000000001".parse().unwrap();
    let print = |text: &str| {
        rig.logs.append(
            &key,
            LogEntry { time: Timestamp::now(), request: None, instance: instance.clone(), text: text.as_bytes().into() },
        )
    };
    print("stored");
    let host = [("host".to_owned(), "h".to_owned())];
    let target = "/2023-03-30/dunlin/logs?functionName=f&follow=true";
    let mut request = http::Request::builder().uri(target);
    for (name, value) in dunlin_auth::sign(&crate::rig::key_of(1), "GET", target, &host, b"") {
        request = request.header(name, value);
    }
    let reply = rig.api.handle(request.body(http_body_util::Full::new(bytes::Bytes::new())).unwrap()).await;
    assert_eq!(reply.headers()["content-type"], "application/x-ndjson");
    let mut body = reply.into_body();
    for text in ["stored", "later", "last"] {
        if text != "stored" {
            print(text);
        }
        let line = body.frame().await.unwrap().unwrap().into_data().unwrap();
        let line: Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(line["text"], text);
    }
}

#[tokio::test]
async fn of_parallel_updates_none_is_lost_and_the_others_are_told() {
    let rig = Rig::new().await;
    rig.create("f", b"zip").await;
    let bodies: Vec<Value> = (0..100).map(|i| json!({"environmentVariables": {"A": i.to_string()}})).collect();
    let replies = futures_util::future::join_all(bodies.iter().map(|body| rig.ask("PUT", "/functions/f", body.clone()))).await;
    let won = replies.iter().filter(|reply| reply.status == 200).count();
    assert!(won >= 1);
    for reply in replies.iter().filter(|reply| reply.status != 200) {
        assert_eq!(reply.refused(409).0, "ConcurrentUpdateError");
    }
    assert_eq!(rig.pool.retired.lock().unwrap().len(), won, "one new revision for every one that won");
}
