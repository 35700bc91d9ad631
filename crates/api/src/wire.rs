//! What goes out, in the contract's spelling (section 4). Members that were never set are left out.

use dunlin_control::Region;
use dunlin_model::{AccountScope, Function, FunctionName, Trigger};
use dunlin_pool::{InstanceInfo, InstanceState};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// RFC 3339, UTC, to the second.
pub(crate) fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn arn(region: &str, scope: &AccountScope, function: &FunctionName) -> String {
    format!("acs:fc:{region}:{}:functions/{function}", scope.account())
}

/// A function, as every operation that answers with one shows it.
pub(crate) fn function(region: &str, scope: &AccountScope, function: &Function) -> Value {
    let config = &function.config;
    let mut members = match serde_json::to_value(config) {
        Ok(Value::Object(members)) => members,
        // A configuration was read from JSON and has nothing in it that JSON has not.
        Ok(_) | Err(_) => Map::new(),
    };
    members.retain(|member, value| !config.kept.contains_key(member) || !is_unset(member, value));
    members.insert("functionArn".into(), arn(region, scope, &config.function_name).into());
    members.insert("functionId".into(), function.function_id.clone().into());
    members.insert("codeChecksum".into(), function.code.checksum.to_string().into());
    members.insert("codeSize".into(), function.code.size.into());
    members.insert("createdTime".into(), time(function.created).into());
    members.insert("lastModifiedTime".into(), time(function.modified).into());
    Value::Object(members)
}

/// The vendor's deployment tool clears a setting by sending it with nothing in it.
fn is_unset(member: &str, value: &Value) -> bool {
    let empty_list = |name: &str| value.get(name).is_none_or(|list| list.as_array().is_some_and(Vec::is_empty) || list.is_null());
    match member {
        "nasConfig" | "ossMountConfig" | "polarFsConfig" => empty_list("mountPoints"),
        _ => is_empty(value),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.iter().all(is_empty),
        Value::Object(members) => members.values().all(is_empty),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// A trigger; `url` is where it is called.
pub(crate) fn trigger(region: &str, scope: &AccountScope, function: &FunctionName, trigger: &Trigger, url: &str) -> Value {
    json!({
        "triggerName": trigger.name,
        "triggerId": trigger.trigger_id,
        "triggerType": "http",
        "triggerConfig": trigger.config_text,
        "description": trigger.description,
        "qualifier": trigger.qualifier,
        "targetArn": arn(region, scope, function),
        "createdTime": time(trigger.created),
        "lastModifiedTime": time(trigger.modified),
        "httpTrigger": { "urlInternet": url, "urlIntranet": url },
    })
}

/// An instance. `state` is this platform's own addition.
pub(crate) fn instance(instance: &InstanceInfo) -> Value {
    let state = match instance.state {
        InstanceState::Starting => "starting",
        InstanceState::Idle => "idle",
        InstanceState::Busy => "busy",
        InstanceState::Draining => "draining",
    };
    let version = if instance.version == "LATEST" { "0" } else { instance.version.as_str() };
    json!({
        "instanceId": instance.id,
        "versionId": version,
        "qualifier": instance.qualifier,
        "createdTimeMs": instance.created.as_millisecond(),
        "status": "Running",
        "state": state,
    })
}

/// The regions, in the shape the contract borrowed from older products.
pub(crate) fn regions(regions: &[Region]) -> Value {
    let regions: Vec<Value> = regions.iter().map(|region| json!({ "RegionId": region.id, "LocalName": region.name })).collect();
    json!({ "Regions": { "Region": regions } })
}

/// A page: the items under their name, and the next page's token when there is one.
pub(crate) fn page(name: &str, items: Vec<Value>, next: Option<String>) -> Value {
    let mut members = Map::new();
    members.insert(name.into(), items.into());
    if let Some(next) = next {
        members.insert("nextToken".into(), next.into());
    }
    Value::Object(members)
}
