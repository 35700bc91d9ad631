//! Every operation of the table, unsigned, badly signed, and asked for another account's things.

use dunlin_api::{Need, ROUTES, Route, Served};
use dunlin_auth::sign;
use serde_json::{Value, json};

use crate::rig::{Rig, key_of};

fn path_of(route: &Route, function: &str) -> String {
    let path = route.path.replace("{functionName}", function).replace("{triggerName}", "web");
    let path = path.replace("{versionId}", "1").replace("{aliasName}", "prod");
    let parts: Vec<&str> = path.split('/').map(|part| if part.starts_with('{') { "x" } else { part }).collect();
    let query = if route.need == Need::Own { format!("?functionName={function}") } else { String::new() };
    format!("{}{query}", parts.join("/"))
}

fn body_of(served: Option<Served>) -> String {
    match served {
        Some(Served::CreateFunction) => crate::rig::function("mine", b"zip").to_string(),
        Some(Served::UpdateFunction) => json!({"timeout": 9}).to_string(),
        Some(Served::CreateTrigger) => {
            json!({"triggerName": "new", "triggerType": "http", "triggerConfig": "{\"methods\":[\"GET\"]}"}).to_string()
        }
        Some(Served::CreateAlias) => json!({"aliasName": "new", "versionId": "1"}).to_string(),
        Some(Served::UpdateAlias) => json!({"description": "changed"}).to_string(),
        Some(Served::PutConcurrencyConfig) => json!({"reservedConcurrency": 1}).to_string(),
        Some(Served::CreateVpcBinding) => json!({"vpcId": "vpc-1"}).to_string(),
        Some(Served::UpdateTrigger) => json!({"description": "changed"}).to_string(),
        Some(Served::PutProvisionConfig) => json!({}).to_string(),
        _ => String::new(),
    }
}

#[tokio::test]
async fn no_operation_answers_without_a_signature_that_holds() {
    let rig = Rig::new().await;
    rig.create("theirs", b"zip").await;
    for route in ROUTES {
        let target = format!("/2023-03-30{}", path_of(route, "theirs"));
        let body = body_of(route.served);
        let host = [("host".to_owned(), "127.0.0.1:7900".to_owned())];
        let unsigned = rig.raw(route.method, &target, &host, body.as_bytes()).await;
        assert_eq!(unsigned.refused(403).0, "AccessDenied", "{}", route.name);

        let mut wrong = key_of(1);
        wrong.secret.push('x');
        let headers = sign(&wrong, route.method, &target, &host, body.as_bytes());
        let badly = rig.raw(route.method, &target, &headers, body.as_bytes()).await;
        assert_eq!(badly.refused(403).0, "SignatureNotMatch", "{}", route.name);

        if route.served.is_some() {
            let headers = sign(&key_of(1), route.method, &target, &host, body.as_bytes());
            let other = rig.raw(route.method, &target, &headers, b"another body").await;
            assert_eq!(other.refused(403).0, "SignatureNotMatch", "{}", route.name);
        }
    }
    assert!(rig.ask("GET", "/functions/theirs", Value::Null).await.status.is_success(), "nothing of it happened");
}

#[tokio::test]
async fn another_accounts_function_looks_exactly_like_none() {
    let rig = Rig::new().await;
    assert!(rig.create("theirs", b"zip").await.status.is_success());
    let trigger = body_of(Some(Served::CreateTrigger)).replace("\"new\"", "\"web\"");
    let made = rig.signed(1, "POST", "/functions/theirs/triggers", &[], trigger.as_bytes()).await;
    assert!(made.status.is_success(), "{}", made.json());
    assert!(rig.ask("POST", "/functions/theirs/versions", Value::Null).await.status.is_success());
    let prod = json!({"aliasName": "prod", "versionId": "1"});
    assert!(rig.ask("POST", "/functions/theirs/aliases", prod).await.status.is_success());
    let concerns = |route: &&Route| route.path.contains("{functionName}") || route.need == Need::Own;
    // What is pushed is the caller's own, whatever others have of that name: `images` has the case.
    for route in ROUTES.iter().filter(concerns).filter(|route| route.served != Some(Served::DunlinPushImage)) {
        let body = body_of(route.served);
        let there = rig.signed(2, route.method, &path_of(route, "theirs"), &[], body.as_bytes()).await;
        let nowhere = rig.signed(2, route.method, &path_of(route, "nobody"), &[], body.as_bytes()).await;
        assert_eq!(there.status, nowhere.status, "{}", route.name);
        let text =
            |reply: &crate::rig::Received| String::from_utf8_lossy(&reply.bytes).replace(reply.header("x-fc-request-id"), "ID");
        assert_eq!(text(&there).replace("theirs", "nobody"), text(&nowhere), "{}", route.name);
        match route.served {
            // The machine's, and nobody's own.
            Some(Served::DunlinListRuntimes) => assert_eq!(there.json()["runtimes"][0]["runtime"], "python2.7"),
            Some(Served::DunlinListImages) => assert_eq!(there.json()["images"], json!([])),
            Some(Served::DunlinDeleteImage) => assert_eq!(nowhere.refused(404).0, "ImageNotFound"),
            Some(Served::DunlinListRecords) => assert_eq!(there.json()["records"], json!([])),
            Some(_) => assert_eq!(there.refused(404).0, "FunctionNotFound", "{}", route.name),
            None => assert_eq!(there.refused(400).0, "NotSupported", "{}", route.name),
        }
    }
    let list = rig.signed(2, "GET", "/functions", &[], b"").await;
    assert_eq!(list.json(), json!({"functions": []}));
    rig.ask("PUT", "/functions/theirs/concurrency", json!({"reservedConcurrency": 1})).await;
    rig.ask("PUT", "/functions/theirs/async-invoke-config", json!({})).await;
    let tag = json!({"ResourceType": "function", "ResourceId": ["theirs"], "Tag": [{"Key": "k", "Value": "v"}]});
    assert_eq!(rig.ask("POST", "/tags-v2", tag).await.status, 204);
    for path in ["/concurrency-configs", "/async-invoke-configs", "/concurrency-configs?functionName=theirs"] {
        assert_eq!(rig.signed(2, "GET", path, &[], b"").await.json(), json!({"configs": []}), "{path}");
    }
    let tags = rig.signed(2, "GET", "/tags-v2?ResourceType=function", &[], b"").await;
    assert_eq!(tags.json()["TagResources"], json!([]));
    assert_eq!(rig.ask("GET", "/functions/theirs", Value::Null).await.json()["timeout"], 3, "untouched");
}

#[tokio::test]
async fn an_operation_that_is_not_supported_says_so_by_name() {
    let rig = Rig::new().await;
    for route in ROUTES.iter().filter(|route| route.served.is_none()) {
        let reply = rig.signed(1, route.method, &path_of(route, "f"), &[], b"{}").await;
        let (code, message) = reply.refused(400);
        assert_eq!(code, "NotSupported");
        assert!(message.contains(route.name), "{message}");
    }
}

#[tokio::test]
async fn a_path_or_method_that_is_no_operation_is_refused_after_the_signature() {
    let rig = Rig::new().await;
    for (method, path) in
        [("GET", "/nothing"), ("PATCH", "/functions"), ("GET", "/functions/f/"), ("TRACE", "/functions"), ("GET", "//functions")]
    {
        assert_eq!(rig.signed(1, method, path, &[], b"").await.refused(400).0, "PathNotSupported", "{method} {path}");
    }
}

#[tokio::test]
async fn a_scheme_that_is_not_served_is_named() {
    let rig = Rig::new().await;
    for (value, scheme) in [("FC LTAI-1:c2ln", "FC"), ("OSS LTAI-1:c2ln", "OSS"), ("MNS LTAI-1:c2ln", "MNS")] {
        let headers = [("authorization".to_owned(), value.to_owned())];
        let (code, message) = rig.raw("GET", "/2023-03-30/functions", &headers, b"").await.refused(403);
        assert!(code == "NotSupported" && message.contains(scheme) && message.contains("not supported yet"), "{message}");
    }
}
