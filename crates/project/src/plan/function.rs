//! The plan of a function: itself, then its versions and aliases, then what belongs to it.

use serde_json::{Map, Value, json};

use super::difference::{difference, is_empty, same};
use super::parts;
use super::{Change, FoundFunction, Operation, Verb, code_difference, domain, removed, text_of};
use crate::project::{Alias, Function, Version};

/// What a function is that says nothing about it.
fn defaults() -> Map<String, Value> {
    let members = json!({
        "description": "", "timeout": 3, "memorySize": 128, "internetAccess": true, "environmentVariables": {}, "layers": [],
        "role": "", "sessionAffinity": "NONE", "instanceIsolationMode": "SHARE", "disableOndemand": false,
    });
    match members {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

/// Sets of members that nothing in them clears.
const CLEARABLE: [&str; 9] = [
    "customRuntimeConfig",
    "instanceLifecycleConfig",
    "logConfig",
    "vpcConfig",
    "nasConfig",
    "ossMountConfig",
    "tracingConfig",
    "customDNS",
    "gpuConfig",
];

/// What a function has that says nothing about how it runs.
const ABOUT: [&str; 8] = [
    "functionArn",
    "createdTime",
    "lastModifiedTime",
    "tags",
    "stateReason",
    "invocationRestriction",
    "state",
    "resourceGroupId",
];

pub(super) fn plan(function: &Function, found: &FoundFunction, checksum: Option<&str>) -> Vec<Change> {
    let itself = itself(function, found, checksum);
    let is_pending = itself.iter().any(|change| change.kind == "function");
    let mut changes = itself;
    let (aliases, obsolete) = aliases(function, found, is_pending);
    changes.extend(aliases);
    changes.extend(parts::triggers(function, found));
    changes.extend(parts::reserved(function, found));
    changes.extend(parts::keepings(function, found));
    // Nothing points to them any more.
    changes.extend(obsolete);
    if let Some(wanted) = &function.domain {
        changes.extend(domain::plan(wanted, found.domain.as_ref()));
    }
    changes
}

pub(super) fn removal(function: &Function, found: &FoundFunction) -> Vec<Change> {
    let mut changes: Vec<Change> =
        function.domain.as_ref().and_then(|wanted| domain::removal(wanted, found.domain.as_ref())).into_iter().collect();
    if found.function.is_some() {
        changes.extend(found.triggers.iter().map(|trigger| parts::remove_trigger(function, trigger)));
        // Its versions, aliases and settings go with it.
        let operation = Operation::new("DeleteFunction", "DELETE", &["functions", &function.name]);
        changes.push(removed("function", function.name.clone(), operation));
    }
    changes
}

fn itself(function: &Function, found: &FoundFunction, checksum: Option<&str>) -> Vec<Change> {
    let Some(now) = &found.function else {
        let mut members = Vec::new();
        for (member, value) in &function.config {
            difference(member, None, Some(value), &mut members);
        }
        code_difference(None, checksum, &mut members);
        let mut body = function.config.clone();
        body.insert("functionName".to_owned(), function.name.clone().into());
        let operation = Operation::new("CreateFunction", "POST", &["functions"]).body(body);
        let operation = Some(Operation { with_code: function.code.is_some(), ..operation });
        return vec![Change { verb: Verb::Add, kind: "function", name: function.name.clone(), members, operation }];
    };
    let mut wanted = defaults();
    wanted.extend(function.config.clone());
    for member in CLEARABLE {
        if now.get(member).is_some_and(|value| !is_empty(value)) {
            wanted.entry(member).or_insert_with(|| json!({}));
        }
    }
    let tags = wanted.remove("tags");
    let (mut body, mut members) = (Map::new(), Vec::new());
    for (member, value) in wanted {
        let found = if member == "layers" { Some(layer_names(now)) } else { now.get(&member).cloned() };
        let differing = members.len();
        difference(&member, found.as_ref(), Some(&value), &mut members);
        if members.len() > differing {
            body.insert(member, value);
        }
    }
    let differing = members.len();
    code_difference(now.get("codeChecksum"), checksum, &mut members);
    let with_code = members.len() > differing;
    let mut changes = Vec::new();
    if !members.is_empty() {
        let operation = Operation::new("UpdateFunction", "PUT", &["functions", &function.name]).body(body);
        let operation = Some(Operation { with_code, ..operation });
        changes.push(Change { verb: Verb::Change, kind: "function", name: function.name.clone(), members, operation });
    }
    changes.extend(self::tags(function, now, tags.as_ref()));
    changes
}

fn layer_names(function: &Value) -> Value {
    function["layers"].as_array().into_iter().flatten().map(|layer| layer["arn"].clone()).collect()
}

/// Tags are changed by operations of their own.
fn tags(function: &Function, now: &Value, wanted: Option<&Value>) -> Vec<Change> {
    let by_key = |tags: Option<&Value>| -> Map<String, Value> {
        let tags = tags.and_then(Value::as_array).into_iter().flatten();
        tags.filter_map(|tag| Some((tag["Key"].as_str()?.to_owned(), tag["Value"].clone()))).collect()
    };
    let (old, new) = (by_key(now.get("tags")), by_key(wanted));
    let resource = json!([now["functionArn"]]);
    let mut changes = Vec::new();
    let gone: Vec<&String> = old.keys().filter(|key| !new.contains_key(*key)).collect();
    let mut members = Vec::new();
    for key in &gone {
        difference(&format!("tags.{key}"), old.get(*key), None, &mut members);
    }
    if !gone.is_empty() {
        let operation = Operation::new("UntagResources", "DELETE", &["tags-v2"])
            .query("ResourceType", "function")
            .query("ResourceId", resource.to_string())
            .query("TagKey", json!(gone).to_string());
        changes.push(Change {
            verb: Verb::Remove,
            kind: "tags",
            name: function.name.clone(),
            members,
            operation: Some(operation),
        });
    }
    let (mut put, mut members) = (Vec::new(), Vec::new());
    for (key, value) in &new {
        if old.get(key) != Some(value) {
            members.push(super::Difference {
                path: format!("tags.{key}"),
                old: old.get(key).cloned(),
                new: Some(value.clone()),
                secret: false,
            });
            put.push(json!({ "Key": key, "Value": value }));
        }
    }
    if !put.is_empty() {
        let verb = if members.iter().any(|member| member.old.is_some()) { Verb::Change } else { Verb::Add };
        let body = json!({ "ResourceType": "function", "ResourceId": resource, "Tag": put });
        let operation = Operation::new("TagResources", "POST", &["tags-v2"]).body(body);
        changes.push(Change { verb, kind: "tags", name: function.name.clone(), members, operation: Some(operation) });
    }
    changes
}

/// What is done to versions and aliases, and which aliases go at the end. `is_pending`: whether the function itself changes.
fn aliases(function: &Function, found: &FoundFunction, is_pending: bool) -> (Vec<Change>, Vec<Change>) {
    let Some(wanted) = &function.aliases else { return (Vec::new(), Vec::new()) };
    let mut changes = Vec::new();
    let newest =
        found.newest.as_ref().filter(|(_, then)| !is_pending && found.function.as_ref().is_some_and(|now| runs_like(now, then)));
    if newest.is_none() && wanted.iter().any(|alias| alias.version == Version::Newest) {
        let path = ["functions", &function.name, "versions"];
        let operation = Operation::new("PublishFunctionVersion", "POST", &path).body(json!({}));
        let name = format!("{}/new", function.name);
        changes.push(Change { verb: Verb::Add, kind: "version", name, members: Vec::new(), operation: Some(operation) });
    }
    for alias in wanted {
        let version = match alias.version {
            Version::Number(number) => Some(number.to_string()),
            Version::Newest => newest.map(|(number, _)| number.clone()),
        };
        let now = found.aliases.iter().find(|found| found["aliasName"] == alias.name.as_str());
        changes.extend(one_alias(function, alias, version, now));
    }
    let obsolete = found.aliases.iter().filter(|found| !wanted.iter().any(|alias| found["aliasName"] == alias.name.as_str()));
    let obsolete = obsolete.map(|found| {
        let name = text_of(&found["aliasName"]);
        let operation = Operation::new("DeleteAlias", "DELETE", &["functions", &function.name, "aliases", &name]);
        removed("alias", format!("{}/{name}", function.name), operation)
    });
    (changes, obsolete.collect())
}

/// `version`: nothing when it is published first.
fn one_alias(function: &Function, alias: &Alias, version: Option<String>, now: Option<&Value>) -> Option<Change> {
    let mut body = json!({ "versionId": version, "description": alias.description });
    let shown = version.clone().unwrap_or_else(|| "the new version".to_owned());
    let (old_version, old_description) = (now.map(|now| &now["versionId"]), now.map(|now| &now["description"]));
    let mut members = Vec::new();
    difference("versionId", old_version, Some(&shown.into()), &mut members);
    // Another version takes all calls; of this one a share may go elsewhere.
    if let Some(weights) = now.and_then(|now| now.get("additionalVersionWeight")).filter(|_| !members.is_empty()) {
        difference("additionalVersionWeight", Some(weights), None, &mut members);
        body["additionalVersionWeight"] = json!({});
    }
    difference("description", old_description, Some(&alias.description.clone().into()), &mut members);
    if members.is_empty() {
        return None;
    }
    let (verb, operation) = match now {
        None => {
            body["aliasName"] = alias.name.clone().into();
            (Verb::Add, Operation::new("CreateAlias", "POST", &["functions", &function.name, "aliases"]))
        }
        Some(_) => (Verb::Change, Operation::new("UpdateAlias", "PUT", &["functions", &function.name, "aliases", &alias.name])),
    };
    let operation = version.is_some().then(|| operation.body(body));
    Some(Change { verb, kind: "alias", name: format!("{}/{}", function.name, alias.name), members, operation })
}

/// Whether a version runs as the function does now.
fn runs_like(now: &Value, then: &Value) -> bool {
    let how = |function: &Value| {
        let mut members = function.clone();
        if let Value::Object(members) = &mut members {
            members.retain(|member, _| !ABOUT.contains(&member.as_str()));
        }
        members
    };
    same(&how(now), &how(then))
}
