//! HTTP triggers.

use serde_json::{Value, json};

use crate::rig::Rig;

fn http(name: &str) -> Value {
    json!({"triggerName": name, "triggerType": "http", "qualifier": "LATEST", "triggerConfig": "{\"authType\":\"anonymous\",\"methods\":[\"GET\"]}"})
}

#[tokio::test]
async fn a_trigger_lives_and_its_function_waits_for_its_end() {
    let rig = Rig::new().await;
    rig.create("Fn_x", b"zip").await;
    let created = rig.ask("POST", "/functions/Fn_x/triggers", http("web")).await;
    assert_eq!(created.status, 200, "{}", created.json());
    let created = created.json();
    let url = created["httpTrigger"]["urlInternet"].as_str().unwrap();
    assert!(url.starts_with("http://web-fn-x-") && url.ends_with(".fn.localhost:7900"), "{url}");
    assert_eq!(created["triggerConfig"], http("web")["triggerConfig"], "given back unchanged");
    assert_eq!(rig.ask("GET", "/functions/Fn_x/triggers/web", Value::Null).await.json(), created);
    assert_eq!(rig.ask("GET", "/functions/Fn_x/triggers", Value::Null).await.json()["triggers"], json!([created]));
    assert_eq!(rig.ask("DELETE", "/functions/Fn_x", Value::Null).await.refused(409).0, "FunctionNotEmpty");

    let updated = rig
        .ask("PUT", "/functions/Fn_x/triggers/web", json!({"description": "d", "triggerConfig": "{\"methods\":[\"PUT\"]}"}))
        .await
        .json();
    assert_eq!((&updated["description"], &updated["httpTrigger"]), (&json!("d"), &created["httpTrigger"]), "the URL stays");
    assert_eq!(rig.ask("DELETE", "/functions/Fn_x/triggers/web", Value::Null).await.status, 204);
    assert_eq!(rig.ask("GET", "/functions/Fn_x/triggers/web", Value::Null).await.refused(404).0, "TriggerNotFound");
    assert_eq!(rig.ask("DELETE", "/functions/Fn_x", Value::Null).await.status, 204);
}

#[tokio::test]
async fn a_version_has_one_http_trigger_also_when_many_are_made_at_once() {
    let rig = Rig::new().await;
    rig.create("f", b"zip").await;
    let names: Vec<String> = (0..20).map(|i| format!("t{i}")).collect();
    let replies =
        futures_util::future::join_all(names.iter().map(|name| rig.ask("POST", "/functions/f/triggers", http(name)))).await;
    assert_eq!(replies.iter().filter(|reply| reply.status == 200).count(), 1);
    for reply in replies.iter().filter(|reply| reply.status != 200) {
        assert_eq!(reply.refused(409).0, "TriggerAlreadyExists");
    }
}

#[tokio::test]
async fn a_wrong_trigger_is_refused_by_the_member_that_is_wrong() {
    let rig = Rig::new().await;
    rig.create("f", b"zip").await;
    for (member, value, named) in [
        ("triggerName", json!("9"), "triggerName"),
        ("triggerType", json!("timer"), "triggerType 'timer' is not supported yet"),
        ("triggerType", json!("x"), "triggerType"),
        ("triggerConfig", json!({"methods": ["GET"]}), "triggerConfig"),
        ("triggerConfig", json!("{"), "triggerConfig"),
        ("triggerConfig", json!("{\"methods\":[\"BREW\"]}"), "triggerConfig.methods"),
        ("triggerConfig", json!("{\"methods\":[]}"), "triggerConfig.methods"),
        ("description", json!("x".repeat(257)), "description"),
    ] {
        let mut body = http("web");
        body[member] = value;
        let (code, message) = rig.ask("POST", "/functions/f/triggers", body).await.refused(400);
        assert!(code == "InvalidArgument" && message.starts_with(named), "{named}: {message}");
    }
    let mut body = http("web");
    body["qualifier"] = json!("prod");
    assert_eq!(rig.ask("POST", "/functions/f/triggers", body).await.refused(404).0, "AliasNotFound");
    assert_eq!(rig.ask("GET", "/functions/f/triggers", Value::Null).await.json(), json!({"triggers": []}));
}
