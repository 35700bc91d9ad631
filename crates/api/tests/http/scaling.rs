//! How many instances are kept ready.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use crate::rig::Rig;

const ARN: &str = "acs:fc:cn-hangzhou:0000000000000001:functions/f";

async fn rig() -> Rig {
    let rig = Rig::new().await;
    rig.create("f", b"zip").await;
    rig.ask("POST", "/functions/f/versions", Value::Null).await;
    for name in ["prod", "short"] {
        rig.ask("POST", "/functions/f/aliases", json!({"aliasName": name, "versionId": "1"})).await;
    }
    rig
}

#[tokio::test]
async fn what_is_said_is_given_back_with_how_it_stands() {
    let (rig, none) = (rig().await, Value::Null);
    let action = json!({"name": "a", "scheduleExpression": "cron(0 0 4 * * *)", "target": 1, "timeZone": "Asia/Shanghai"});
    let policy = json!({"name": "p", "metricType": "CPUUtilization", "metricTarget": 0.5, "minCapacity": 0, "maxCapacity": 9});
    let body =
        json!({"defaultTarget": 3, "alwaysAllocateCPU": false, "scheduledActions": [action], "targetTrackingPolicies": [policy]});
    let mut expected = body.clone();
    expected["functionArn"] = format!("{ARN}/prod").into();
    (expected["target"], expected["current"], expected["currentError"]) = (3.into(), 2.into(), "".into());
    expected["alwaysAllocateGPU"] = true.into();
    let path = "/functions/f/provision-config?qualifier=prod";
    let before = rig.pool.refreshed.load(Ordering::SeqCst);
    assert_eq!(rig.ask("PUT", path, body).await.json(), expected);
    assert!(rig.pool.refreshed.load(Ordering::SeqCst) > before, "whoever keeps instances hears of it at once");
    assert_eq!(rig.ask("GET", path, none.clone()).await.json(), expected);
    let short = rig.ask("PUT", "/functions/f/provision-config?qualifier=short", json!({"target": 3})).await.json();
    assert_eq!((short["defaultTarget"].clone(), short["currentError"].clone()), (json!(3), json!("there is no room")));
    let first = rig.ask("GET", "/provision-configs?limit=1", none.clone()).await.json();
    assert_eq!(first["provisionConfigs"], json!([expected]));
    let next = format!("/provision-configs?limit=1&nextToken={}", first["nextToken"].as_str().unwrap());
    assert_eq!(rig.ask("GET", &next, none.clone()).await.json(), json!({"provisionConfigs": [short]}));
    assert_eq!(rig.ask("DELETE", path, none.clone()).await.status, 204);
    assert_eq!(rig.ask("DELETE", path, none.clone()).await.status, 204, "it is so already");
    let gone = rig.ask("GET", path, none.clone()).await.json();
    assert_eq!((gone["defaultTarget"].clone(), gone["scheduledActions"].clone()), (json!(0), json!([])));
    rig.ask("DELETE", "/functions/f/aliases/short", none.clone()).await;
    assert_eq!(
        rig.ask("GET", "/provision-configs", none).await.json(),
        json!({"provisionConfigs": []}),
        "it goes with its alias"
    );
}

#[tokio::test]
async fn the_newer_form_excludes_the_older_one() {
    let (rig, none) = (rig().await, Value::Null);
    let (old, new) = ("/functions/f/provision-config", "/functions/f/scaling-config?qualifier=LATEST");
    let nothing = rig.ask("GET", new, none.clone()).await.json();
    assert_eq!((nothing["functionArn"].clone(), nothing["minInstances"].clone()), (json!(""), json!(0)));
    let policy = json!({"name": "p", "metricType": "ProvisionedConcurrencyUtilization", "metricTarget": 1, "minInstances": 1, "maxInstances": 1});
    let body = json!({
        "minInstances": 1, "enableOnDemandScaling": false, "enableMixMode": true, "requestDispatchPolicy": "x", "residentPoolId": "y",
        "horizontalScalingPolicies": [policy], "scheduledPolicies": [],
    });
    let put = rig.ask("PUT", new, body.clone()).await.json();
    let mut expected = body;
    expected["horizontalScalingPolicies"][0]["metricTarget"] = 1.0.into();
    expected["functionArn"] = format!("{ARN}/LATEST").into();
    (expected["targetInstances"], expected["currentInstances"], expected["currentError"]) = (3.into(), 2.into(), "".into());
    assert_eq!(put, expected);
    let refused = rig.ask("PUT", old, json!({"defaultTarget": 1})).await.refused(409);
    assert_eq!(refused.0, "ResidentScalingConfigExists");
    rig.ask("DELETE", new, none.clone()).await;
    assert_eq!(rig.ask("PUT", old, json!({"defaultTarget": 1})).await.status, 200);
    assert_eq!(rig.ask("PUT", new, json!({"minInstances": 1})).await.refused(409).0, "ProvisionConfigExist");
    assert_eq!(rig.ask("PUT", old, json!({"target": 0})).await.status, 200);
    assert_eq!(rig.ask("PUT", new, json!({"minInstances": 1})).await.status, 200, "one that says nothing is in nobody's way");
    let listed = rig.ask("GET", "/scaling-configs?functionName=f", none).await.json();
    assert_eq!(listed["scalingConfigs"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_wrong_member_is_named_and_nothing_is_changed() {
    let (rig, none) = (rig().await, Value::Null);
    let path = "/functions/f/provision-config?qualifier=prod";
    let good = rig.ask("PUT", path, json!({"defaultTarget": 2})).await.json();
    for (body, named) in [
        (json!({"defaultTarget": -1}), "defaultTarget must be between 0 and 300"),
        (json!({"defaultTarget": 301}), "defaultTarget must be between 0 and 300"),
        (json!({"defaultTarget": 1.5}), "defaultTarget is invalid"),
        (json!({"defaultTarget": "1"}), "defaultTarget is invalid"),
        (json!({"defaultTarget": 18_446_744_073_709_551_615_u64}), "defaultTarget is invalid"),
        (json!({"alwaysAllocateCPU": 1}), "alwaysAllocateCPU is invalid"),
        (json!({"scheduledActions": {}}), "scheduledActions is invalid"),
        (json!({"scheduledActions": [{"name": "a", "target": "x"}]}), "scheduledActions[0].target is invalid"),
        (
            json!({"scheduledActions": [{"name": "a", "target": 1, "scheduleExpression": "cron(x)"}]}),
            "scheduledActions.0.scheduleExpression",
        ),
    ] {
        let (code, message) = rig.ask("PUT", path, body.clone()).await.refused(400);
        assert!(code == "InvalidArgument" && message.starts_with(named), "{body}: {message}");
    }
    assert_eq!(rig.ask("GET", path, none.clone()).await.json(), good);
    for (qualifier, code) in [("9", "VersionNotFound"), ("nobody", "AliasNotFound"), ("%20", "AliasNotFound")] {
        let path = format!("/functions/f/provision-config?qualifier={qualifier}");
        for (method, body) in [("PUT", json!({"defaultTarget": 1})), ("GET", none.clone()), ("DELETE", none.clone())] {
            assert_eq!(rig.ask(method, &path, body).await.refused(404).0, code, "{method} {qualifier}");
        }
    }
    assert_eq!(rig.ask("PUT", "/functions/f", json!({"disableOndemand": "yes"})).await.refused(400).0, "InvalidArgument");
}
