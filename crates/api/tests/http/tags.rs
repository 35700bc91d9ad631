//! Tags and resource groups.

use serde_json::{Value, json};

use crate::rig::{Rig, function};

fn arn(name: &str) -> String {
    format!("acs:fc:cn-hangzhou:0000000000000001:functions/{name}")
}

async fn tags_of(rig: &Rig, name: &str) -> Value {
    rig.ask("GET", &format!("/functions/{name}"), Value::Null).await.json()["tags"].clone()
}

fn query(list: &Value) -> String {
    list.to_string().bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[tokio::test]
async fn tags_come_and_go_and_no_instance_ends_for_them() {
    let rig = Rig::new().await;
    let mut body = function("a", b"zip");
    body["tags"] = json!([{"Key": "team", "Value": "x"}]);
    rig.ask("POST", "/functions", body).await;
    rig.create("b", b"zip").await;
    let tag = json!({"ResourceType": "function", "ResourceId": [arn("a"), arn("b")], "Tag": [{"Key": "team", "Value": "y"}, {"Key": "stage", "Value": ""}]});
    assert_eq!(rig.ask("POST", "/tags-v2", tag).await.status, 204);
    let both = json!([{"Key": "team", "Value": "y"}, {"Key": "stage", "Value": ""}]);
    assert_eq!((tags_of(&rig, "a").await, tags_of(&rig, "b").await), (both.clone(), both));

    let found = rig.ask("GET", &format!("/functions?tags={}", query(&json!([{"Key": "team", "Value": "y"}]))), Value::Null).await;
    assert_eq!(found.json()["functions"].as_array().unwrap().len(), 2);
    let listed = rig.ask("GET", "/tags-v2?ResourceType=function&Limit=1", Value::Null).await.json();
    assert_eq!(
        listed["TagResources"][0],
        json!({"ResourceId": arn("a"), "ResourceType": "function", "TagKey": "team", "TagValue": "y"})
    );
    assert_eq!(listed["TagResources"].as_array().unwrap().len(), 2, "a page holds whole functions: {listed}");
    let path = format!("/tags-v2?ResourceType=function&Limit=1&NextToken={}", listed["NextToken"].as_str().unwrap());
    let rest = rig.ask("GET", &path, Value::Null).await.json();
    assert_eq!((&rest["TagResources"][0]["ResourceId"], rest.get("NextToken")), (&json!(arn("b")), None));
    let only = format!("/tags-v2?ResourceType=function&ResourceId={}", query(&json!([arn("b")])));
    assert_eq!(rig.ask("GET", &only, Value::Null).await.json()["TagResources"][0]["ResourceId"], arn("b"));

    let untag = format!(
        "/tags-v2?ResourceType=function&ResourceId={}&TagKey={}",
        query(&json!([arn("a")])),
        query(&json!(["team", "absent"]))
    );
    assert_eq!(rig.ask("DELETE", &untag, Value::Null).await.status, 204);
    assert_eq!(tags_of(&rig, "a").await, json!([{"Key": "stage", "Value": ""}]));
    let all = format!("/tags-v2?ResourceType=function&ResourceId={}&All=True", query(&json!([arn("a"), "b"])));
    assert_eq!(rig.ask("DELETE", &all, Value::Null).await.status, 204);
    assert_eq!((tags_of(&rig, "a").await, tags_of(&rig, "b").await), (Value::Null, Value::Null));
    assert_eq!(rig.pool.retired.lock().unwrap().len(), 0);
}

#[tokio::test]
async fn wrong_tags_are_refused_and_nothing_is_half_done() {
    let rig = Rig::new().await;
    rig.create("a", b"zip").await;
    rig.signed(2, "POST", "/functions", &[], function("theirs", b"zip").to_string().as_bytes()).await;
    let many: Vec<Value> = (0..21).map(|number| json!({"Key": format!("k{number}"), "Value": ""})).collect();
    let base = json!({"ResourceType": "function", "ResourceId": [arn("a")], "Tag": [{"Key": "k", "Value": "v"}]});
    for (member, value, status, named) in [
        ("ResourceType", json!(null), 400, "ResourceType"),
        ("ResourceType", json!("bucket"), 400, "ResourceType"),
        ("ResourceId", json!(null), 400, "ResourceId"),
        ("ResourceId", json!([]), 400, "ResourceId"),
        ("ResourceId", json!("a"), 400, "ResourceId"),
        ("ResourceId", json!(["a", "../b"]), 400, "ResourceId"),
        ("ResourceId", json!(["a", "acs:fc:cn-hangzhou:0000000000000002:functions/theirs"]), 400, "ResourceId"),
        ("ResourceId", json!(["a", "theirs"]), 404, "function 'theirs' does not exist"),
        ("Tag", json!(null), 400, "Tag"),
        ("Tag", json!([{"Key": "", "Value": "v"}]), 400, "Tag"),
        ("Tag", json!([{"Key": "acs:x", "Value": "v"}]), 400, "Tag"),
        ("Tag", json!([{"Key": "x".repeat(65), "Value": "v"}]), 400, "Tag"),
        ("Tag", json!([{"Key": "k", "Value": "v".repeat(129)}]), 400, "Tag"),
        ("Tag", json!([{"Key": "k", "Value": "1"}, {"Key": "k", "Value": "2"}]), 400, "Tag"),
        ("Tag", json!([{"Value": "v"}]), 400, "Tag"),
        ("Tag", json!(many), 400, "Tag"),
    ] {
        let mut body = base.clone();
        body[member] = value.clone();
        let refused = rig.ask("POST", "/tags-v2", body).await.refused(status);
        assert!(refused.1.starts_with(named), "{member} {value}: {refused:?}");
        assert_eq!(tags_of(&rig, "a").await, Value::Null, "{member} {value}");
    }
    for path in
        ["/tags-v2?ResourceType=function&ResourceId=%5B%22a%22%5D", "/tags-v2?ResourceType=function&ResourceId=a&All=true"]
    {
        assert_eq!(rig.ask("DELETE", path, Value::Null).await.refused(400).0, "InvalidArgument", "{path}");
    }
}

#[tokio::test]
async fn a_function_changes_its_resource_group() {
    let rig = Rig::new().await;
    rig.create("a", b"zip").await;
    let change = |group: &str| json!({"ResourceType": "function", "ResourceId": arn("a"), "NewResourceGroupId": group});
    let first = rig.ask("PUT", "/resource-groups", change("rg-1")).await.json();
    assert_eq!(first, json!({"ResourceId": arn("a"), "NewResourceGroupId": "rg-1"}));
    let second = rig.ask("PUT", "/resource-groups", change("rg-2")).await.json();
    assert_eq!((&second["OldResourceGroupId"], &second["NewResourceGroupId"]), (&json!("rg-1"), &json!("rg-2")));
    assert_eq!(rig.ask("GET", "/functions/a", Value::Null).await.json()["resourceGroupId"], "rg-2");
    let found = rig.ask("GET", "/functions?resourceGroupId=rg-2", Value::Null).await.json();
    assert_eq!(found["functions"].as_array().unwrap().len(), 1);
    assert!(rig.ask("PUT", "/resource-groups", change("a b")).await.refused(400).1.starts_with("NewResourceGroupId"));
}
