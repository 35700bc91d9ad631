//! What goes out, in the contract's spelling (section 4). Members that were never set are left out.

use dunlin_control::Region;
use dunlin_model::{
    AccountScope, Alias, Choice, CustomDomain, Function, FunctionName, ImageUse, Interpreter, Interpreters, Runtime, Setting,
    SettingContent, Standing, Trigger, Version,
};
use dunlin_pool::{InstanceInfo, InstanceState};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// RFC 3339, UTC, to the second.
pub(crate) fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The name of a function for other services.
pub(crate) fn arn(region: &str, scope: &AccountScope, function: &FunctionName) -> String {
    format!("acs:fc:{region}:{}:functions/{function}", scope.account())
}

/// The name of what is behind a version or an alias.
pub(crate) fn qualified_arn(region: &str, scope: &AccountScope, function: &Function, qualifier: &str) -> String {
    format!("{}/{qualifier}", arn(region, scope, &function.config.function_name))
}

/// Whether a function may be called.
pub(crate) fn restriction(setting: &Setting) -> Option<Value> {
    let SettingContent::Restriction(restriction) = &setting.content else { return None };
    let mut members = json!({ "disable": restriction.disable, "lastModifiedTime": time(setting.modified) });
    if let Some(reason) = &restriction.reason {
        members["reason"] = reason.clone().into();
    }
    Some(members)
}

/// A version.
pub(crate) fn version(version: &Version) -> Value {
    json!({
        "versionId": version.id.to_string(),
        "description": version.description,
        "createdTime": time(version.created),
        "lastModifiedTime": time(version.created),
    })
}

/// An alias.
pub(crate) fn alias(alias: &Alias) -> Value {
    let mut members = json!({
        "aliasName": alias.name,
        "versionId": alias.version.to_string(),
        "description": alias.description,
        "createdTime": time(alias.created),
        "lastModifiedTime": time(alias.modified),
    });
    if let Some(additional) = alias.additional {
        members["additionalVersionWeight"] = json!({ additional.version.to_string(): additional.weight });
    }
    members
}

/// A custom domain. Its private key stays here, as the vendor keeps it as well.
pub(crate) fn domain(scope: &AccountScope, domain: &CustomDomain) -> Value {
    let mut members = match serde_json::to_value(domain) {
        Ok(Value::Object(members)) => members,
        // It was read from JSON and has nothing in it that JSON has not.
        Ok(_) | Err(_) => Map::new(),
    };
    for (member, at) in [("created", domain.created), ("modified", domain.modified)] {
        members.remove(member);
        members.insert(if member == "created" { "createdTime" } else { "lastModifiedTime" }.into(), time(at).into());
    }
    if let Some(Value::Object(certificate)) = members.get_mut("certConfig") {
        certificate.remove("privateKey");
    }
    members.insert("accountId".into(), scope.account().as_str().into());
    members.insert("apiVersion".into(), crate::routes::VERSION.into());
    Value::Object(members)
}

/// A function, as every operation that answers with one shows it.
pub(crate) fn function(region: &str, scope: &AccountScope, function: &Function, interpreters: &Interpreters) -> Value {
    let config = &function.config;
    let mut members = match serde_json::to_value(config) {
        Ok(Value::Object(members)) => members,
        // A configuration was read from JSON and has nothing in it that JSON has not.
        Ok(_) | Err(_) => Map::new(),
    };
    members.retain(|member, value| !config.kept.contains_key(member) || !is_unset(member, value));
    members.remove("layerUses");
    // Asked for as names, shown as objects. An earlier release kept the names, to no effect.
    members.remove("layers");
    if let Some(layers) = &config.layers {
        members.insert("layers".into(), layers.iter().map(|layer| json!({ "arn": layer.arn, "size": layer.size })).collect());
    }
    members.insert("functionArn".into(), arn(region, scope, &config.function_name).into());
    members.insert("functionId".into(), function.function_id.clone().into());
    members.insert("codeChecksum".into(), function.code.checksum.to_string().into());
    members.insert("codeSize".into(), function.code.size.into());
    if let Some(image) = &config.image {
        show_image(image, &mut members);
    }
    members.insert("createdTime".into(), time(function.created).into());
    members.insert("lastModifiedTime".into(), time(function.modified).into());
    // The contract has no member for it; of those that it has, this one is read by people only.
    members.extend(state_reason(&config.runtime, interpreters).map(|reason| ("stateReason".to_owned(), reason.into())));
    Value::Object(members)
}

/// What is said of container functions only. The image was there before the function was, so none is ever pending.
fn show_image(image: &ImageUse, members: &mut Map<String, Value>) {
    for member in ["imageUse", "codeChecksum", "codeSize"] {
        members.remove(member);
    }
    if let Some(Value::Object(container)) = members.get_mut("customContainerConfig") {
        container.insert("resolvedImageUri".into(), image.resolved.clone().into());
    }
    members.insert("state".into(), "Active".into());
    members.insert("lastUpdateStatus".into(), "Successful".into());
}

/// That something else serves the function than its runtime's name says, or nothing any more.
fn state_reason(runtime: &Runtime, interpreters: &Interpreters) -> Option<String> {
    interpreters.substitution(runtime).or_else(|| interpreters.missing(runtime))
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
        "targetArn": match trigger.qualifier.as_str() {
            "LATEST" => arn(region, scope, function),
            qualifier => format!("{}/{qualifier}", arn(region, scope, function)),
        },
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

/// Every runtime of the contract and what serves it here, and every interpreter that was found.
pub(crate) fn runtimes(interpreters: &Interpreters) -> Value {
    let runtimes: Vec<Value> = Runtime::all().map(|(name, runtime)| served(name, runtime, interpreters)).collect();
    let found: Vec<Value> = interpreters.all().iter().map(interpreter).collect();
    json!({ "runtimes": runtimes, "interpreters": found })
}

fn served(name: &str, runtime: Result<Runtime, String>, interpreters: &Interpreters) -> Value {
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(why) => return json!({ "runtime": name, "served": "missing", "fix": why }),
    };
    let choice = interpreters.choose_for(&runtime);
    let served = match choice {
        Choice::Exact(_) => "exact",
        Choice::Newer(_) => "newer",
        Choice::Older(_) => "older",
        Choice::Missing => "missing",
        Choice::NotNeeded => "own",
    };
    let mut shown = json!({ "runtime": name, "language": runtime.language(), "served": served });
    if let Some(found) = choice.interpreter().and_then(|id| interpreters.get(id)) {
        shown["version"] = found.usable().map(|version| version.to_string()).into();
        shown["program"] = found.program.as_str().into();
    }
    if choice == Choice::Missing {
        shown["fix"] = interpreters.how_to_get(runtime.language()).into();
    }
    shown
}

fn interpreter(found: &Interpreter) -> Value {
    let (standing, version, why) = match &found.standing {
        Standing::Usable { version } => ("usable", Some(version), None),
        Standing::Unfit { version, why } => ("unfit", Some(version), Some(why)),
        Standing::Broken { why } => ("broken", None, Some(why)),
    };
    json!({
        "language": found.language,
        "program": found.program,
        "standing": standing,
        "version": version.map(ToString::to_string),
        "why": why,
    })
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
