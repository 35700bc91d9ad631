//! What is said about a function beside its configuration.

use serde_json::{Value, json};

use crate::rig::Rig;

const ARN: &str = "acs:fc:cn-hangzhou:0000000000000001:functions/f";

async fn rig() -> Rig {
    let rig = Rig::new().await;
    rig.create("f", b"zip").await;
    rig.create("g", b"zip").await;
    rig
}

#[tokio::test]
async fn reserved_instances_are_set_aside_up_to_nine_tenths_of_the_account() {
    let rig = rig().await;
    let (path, none) = ("/functions/f/concurrency", Value::Null);
    assert_eq!(rig.ask("GET", path, none.clone()).await.refused(404).0, "OnDemandConfigNotFound");
    let put = rig.ask("PUT", path, json!({"reservedConcurrency": 200})).await.json();
    assert_eq!(put, json!({"functionArn": ARN, "reservedConcurrency": 200}));
    assert_eq!(rig.ask("GET", path, none.clone()).await.json(), put);
    for (value, named) in [
        (json!(-1), "reservedConcurrency must be between 0 and 270"),
        (json!(271), "reservedConcurrency must be between 0 and 270"),
        (json!(9_223_372_036_854_775_807_i64), "reservedConcurrency must be between"),
        (json!(1.5), "reservedConcurrency"),
        (json!("1"), "reservedConcurrency"),
        (json!(null), "reservedConcurrency is required"),
    ] {
        let refused = rig.ask("PUT", "/functions/g/concurrency", json!({ "reservedConcurrency": value })).await.refused(400);
        assert!(refused.0 == "InvalidArgument" && refused.1.starts_with(named), "{value}: {refused:?}");
    }
    let (code, message) = rig.ask("PUT", "/functions/g/concurrency", json!({"reservedConcurrency": 71})).await.refused(400);
    assert!(code == "InvalidArgument" && message.contains("270") && message.contains("200"), "{message}");
    assert_eq!(rig.ask("PUT", "/functions/g/concurrency", json!({"reservedConcurrency": 70})).await.status, 200);
    let all = rig.ask("GET", "/concurrency-configs?limit=1", none.clone()).await.json();
    assert_eq!(all["configs"], json!([put]));
    let rest = format!("/concurrency-configs?limit=1&nextToken={}", all["nextToken"].as_str().unwrap());
    assert_eq!(rig.ask("GET", &rest, none.clone()).await.json()["configs"][0]["reservedConcurrency"], 70);
    assert_eq!(rig.ask("GET", "/concurrency-configs?functionName=f", none.clone()).await.json()["configs"], json!([put]));
    assert_eq!(rig.ask("GET", "/concurrency-configs?nextToken=x", none.clone()).await.refused(400).0, "InvalidArgument");

    rig.ask("PUT", "/functions/g/concurrency", json!({"reservedConcurrency": 0})).await;
    assert_eq!(rig.ask("DELETE", path, none.clone()).await.status, 204);
    assert_eq!(rig.ask("DELETE", path, none.clone()).await.refused(404).0, "OnDemandConfigNotFound");
    rig.ask("DELETE", "/functions/g", none).await;
    let told = rig.pool.limits.lock().unwrap().clone();
    let expected = [("f", Some(200)), ("g", Some(70)), ("g", Some(0)), ("f", None), ("g", None)];
    assert_eq!(told, expected.map(|(name, limit)| (name.to_owned(), limit)), "the pool is told what changed, once");
}

#[tokio::test]
async fn an_async_invoke_configuration_lives_for_each_qualifier() {
    let rig = rig().await;
    rig.ask("POST", "/functions/f/versions", Value::Null).await;
    let (path, none) = ("/functions/f/async-invoke-config", Value::Null);
    assert_eq!(rig.ask("GET", path, none.clone()).await.refused(404).0, "AsyncConfigNotExists");
    let body = json!({
        "asyncTask": true, "maxAsyncRetryAttempts": 0, "maxAsyncEventAgeInSeconds": 604_800,
        "destinationConfig": {
            "onSuccess": {"destination": "acs:fc:cn-hangzhou:0000000000000001:functions/g"},
            "onFailure": {"destination": "acs:mns:cn-hangzhou:0000000000000001:/queues/q/messages"}
        }
    });
    let put = rig.ask("PUT", path, body.clone()).await.json();
    for (member, value) in body.as_object().unwrap() {
        assert_eq!(&put[member], value, "{put}");
    }
    assert_eq!(put["functionArn"], format!("{ARN}/LATEST"));
    assert_eq!(rig.ask("GET", &format!("{path}?qualifier=LATEST"), none.clone()).await.json(), put);
    let second = rig.ask("PUT", &format!("{path}?qualifier=1"), json!({})).await.json();
    assert_eq!(second["functionArn"], format!("{ARN}/1"));
    assert!(second.get("maxAsyncRetryAttempts").is_none() && second.get("destinationConfig").is_none(), "{second}");
    assert_eq!(rig.ask("PUT", &format!("{path}?qualifier=2"), json!({})).await.refused(404).0, "VersionNotFound");
    assert_eq!(rig.ask("PUT", &format!("{path}?qualifier=prod"), json!({})).await.refused(404).0, "AliasNotFound");
    let listed = rig.ask("GET", "/async-invoke-configs?functionName=f", none.clone()).await.json();
    assert_eq!(listed["configs"], json!([second, put]));
    for (member, value, named) in [
        ("maxAsyncRetryAttempts", json!(9), "maxAsyncRetryAttempts"),
        ("maxAsyncRetryAttempts", json!(-1), "maxAsyncRetryAttempts"),
        ("maxAsyncEventAgeInSeconds", json!(0), "maxAsyncEventAgeInSeconds"),
        ("maxAsyncEventAgeInSeconds", json!(604_801), "maxAsyncEventAgeInSeconds"),
        ("asyncTask", json!("yes"), "asyncTask"),
        ("destinationConfig", json!({"onFailure": {"destination": ARN}}), "destinationConfig.onFailure.destination"),
        (
            "destinationConfig",
            json!({"onSuccess": {"destination": "acs:fc:cn-hangzhou:0000000000000002:functions/g"}}),
            "destinationConfig.onSuccess.destination",
        ),
        ("destinationConfig", json!({"onSuccess": {"destination": 1}}), "destinationConfig.onSuccess.destination"),
    ] {
        let refused = rig.ask("PUT", path, json!({ member: value })).await.refused(400);
        assert!(refused.0 == "InvalidArgument" && refused.1.starts_with(named), "{member}: {refused:?}");
    }
    assert_eq!(rig.ask("GET", path, none.clone()).await.json(), put, "nothing of it happened");
    assert_eq!(rig.ask("DELETE", path, none.clone()).await.status, 204);
    assert_eq!(rig.ask("DELETE", path, none.clone()).await.refused(404).0, "AsyncConfigNotExists");
    rig.ask("DELETE", "/functions/f/versions/1", none.clone()).await;
    assert_eq!(rig.ask("GET", "/async-invoke-configs", none).await.json(), json!({"configs": []}));
}

#[tokio::test]
async fn calls_can_be_switched_off_and_on() {
    let rig = rig().await;
    let call = async || rig.ask("POST", "/functions/f/invocations", Value::Null).await;
    assert_eq!(call().await.status, 200);
    let off = rig.ask("POST", "/functions/f/invoke/disable", json!({"reason": "rebuilding"})).await.json();
    assert_eq!(off, json!({"success": true}));
    assert_eq!(call().await.refused(403).0, "FunctionInvocationDisabled");
    assert_eq!(rig.ask("POST", "/functions/g/invocations", Value::Null).await.status, 200, "another one goes on");
    let shown = rig.ask("GET", "/functions/f", Value::Null).await.json();
    assert_eq!(shown["invocationRestriction"]["disable"], true);
    assert_eq!(shown["invocationRestriction"]["reason"], "rebuilding");
    assert!(shown["invocationRestriction"]["lastModifiedTime"].is_string(), "{shown}");
    rig.ask("POST", "/functions/f/invoke/disable", json!({"abortOngoingRequest": true})).await;
    assert_eq!(*rig.pool.retired.lock().unwrap(), ["f/all", "f at once"]);
    let on = rig.ask("POST", "/functions/f/invoke/enable", Value::Null).await.json();
    assert_eq!(on, json!({"success": true}));
    assert_eq!(call().await.status, 200);
    assert_eq!(rig.ask("GET", "/functions/f", Value::Null).await.json()["invocationRestriction"]["disable"], false);
    assert!(rig.ask("GET", "/functions/g", Value::Null).await.json().get("invocationRestriction").is_none());
    let long = json!({"reason": "x".repeat(257)});
    assert!(rig.ask("POST", "/functions/f/invoke/disable", long).await.refused(400).1.starts_with("reason"));
    let wrong = json!({"abortOngoingRequest": "yes"});
    assert!(rig.ask("POST", "/functions/f/invoke/disable", wrong).await.refused(400).1.starts_with("abortOngoingRequest"));
}

#[tokio::test]
async fn vpc_bindings_are_kept() {
    let rig = rig().await;
    let path = "/functions/f/vpc-bindings";
    assert_eq!(rig.ask("GET", path, Value::Null).await.json(), json!({"vpcIds": []}));
    for id in ["vpc-b", "vpc-a", "vpc-b"] {
        assert_eq!(rig.ask("POST", path, json!({ "vpcId": id })).await.status, 204);
    }
    assert_eq!(rig.ask("GET", path, Value::Null).await.json(), json!({"vpcIds": ["vpc-b", "vpc-a"]}));
    assert_eq!(rig.ask("DELETE", "/functions/f/vpc-bindings/vpc-b", Value::Null).await.status, 204);
    assert_eq!(rig.ask("DELETE", "/functions/f/vpc-bindings/vpc-b", Value::Null).await.refused(404).0, "VpcBindingNotFound");
    assert_eq!(rig.ask("GET", path, Value::Null).await.json(), json!({"vpcIds": ["vpc-a"]}));
    for value in [json!(null), json!(""), json!("a b"), json!("../x"), json!("x".repeat(65)), json!(1)] {
        assert!(rig.ask("POST", path, json!({ "vpcId": value })).await.refused(400).1.starts_with("vpcId"), "{value}");
    }
}
