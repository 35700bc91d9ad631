//! What belongs to a function beside itself: triggers, and settings of it and its aliases.

use serde_json::{Map, Value, json};

use super::difference::difference;
use super::{Change, FoundFunction, Operation, Verb, removed, text_of};
use crate::project::{Function, Keeping, KeepingKind, Trigger};

/// Removals first: a version or an alias has one HTTP trigger.
pub(super) fn triggers(function: &Function, found: &FoundFunction) -> Vec<Change> {
    let is_other = |found: &&Value| {
        let mut wanted = function.triggers.iter();
        !wanted.any(|trigger| found["triggerName"] == trigger.name.as_str() && found["triggerType"] == trigger.kind.as_str())
    };
    let mut changes: Vec<Change> =
        found.triggers.iter().filter(is_other).map(|trigger| remove_trigger(function, trigger)).collect();
    for trigger in &function.triggers {
        let now =
            found.triggers.iter().filter(|found| !is_other(found)).find(|found| found["triggerName"] == trigger.name.as_str());
        changes.extend(one_trigger(function, trigger, now));
    }
    changes
}

pub(super) fn remove_trigger(function: &Function, trigger: &Value) -> Change {
    let name = text_of(&trigger["triggerName"]);
    let operation = Operation::new("DeleteTrigger", "DELETE", &["functions", &function.name, "triggers", &name]);
    removed("trigger", format!("{}/{name}", function.name), operation)
}

fn one_trigger(function: &Function, trigger: &Trigger, now: Option<&Value>) -> Option<Change> {
    let mut members = Vec::new();
    let config = now.and_then(|now| now["triggerConfig"].as_str()).and_then(|text| serde_json::from_str::<Value>(text).ok());
    difference("triggerConfig", config.as_ref(), Some(&trigger.config), &mut members);
    difference("qualifier", now.map(|now| &now["qualifier"]), Some(&trigger.qualifier.clone().into()), &mut members);
    difference("description", now.map(|now| &now["description"]), Some(&trigger.description.clone().into()), &mut members);
    for (member, value) in &trigger.others {
        // What is not shown cannot be compared.
        if let Some(shown) = now.map_or(Some(&Value::Null), |now| now.get(member)) {
            difference(member, Some(shown), Some(value), &mut members);
        }
    }
    if members.is_empty() && now.is_some() {
        return None;
    }
    let mut body = trigger.others.clone();
    body.insert("triggerConfig".to_owned(), trigger.config.to_string().into());
    body.insert("qualifier".to_owned(), trigger.qualifier.clone().into());
    body.insert("description".to_owned(), trigger.description.clone().into());
    let path = ["functions", function.name.as_str(), "triggers", trigger.name.as_str()];
    let (verb, operation) = match now {
        None => {
            body.insert("triggerName".to_owned(), trigger.name.clone().into());
            body.insert("triggerType".to_owned(), trigger.kind.clone().into());
            (Verb::Add, Operation::new("CreateTrigger", "POST", &path[..3]))
        }
        Some(_) => (Verb::Change, Operation::new("UpdateTrigger", "PUT", &path)),
    };
    let name = format!("{}/{}", function.name, trigger.name);
    Some(Change { verb, kind: "trigger", name, members, operation: Some(operation.body(body)) })
}

pub(super) fn reserved(function: &Function, found: &FoundFunction) -> Option<Change> {
    let (now, wanted) = (found.reserved_concurrency.as_ref(), function.reserved_concurrency.as_ref());
    let mut members = Vec::new();
    difference("reservedConcurrency", now, wanted, &mut members);
    if members.is_empty() {
        return None;
    }
    let path = ["functions", function.name.as_str(), "concurrency"];
    let (verb, operation) = match (now, wanted) {
        (_, None) => (Verb::Remove, Operation::new("DeleteConcurrencyConfig", "DELETE", &path)),
        (now, Some(wanted)) => {
            let body = json!({ "reservedConcurrency": wanted });
            let verb = if now.is_some() { Verb::Change } else { Verb::Add };
            (verb, Operation::new("PutConcurrencyConfig", "PUT", &path).body(body))
        }
    };
    Some(Change { verb, kind: "concurrency", name: function.name.clone(), members, operation: Some(operation) })
}

/// Removals first: what is kept ready is said in one form.
pub(super) fn keepings(function: &Function, found: &FoundFunction) -> Vec<Change> {
    let is_ours =
        |qualifier: &str| qualifier == "LATEST" || function.aliases.iter().flatten().any(|alias| alias.name == qualifier);
    let wanted = |kind: KeepingKind, qualifier: &str| {
        function.keepings.iter().any(|keeping| keeping.kind == kind && keeping.qualifier == qualifier)
    };
    let mut changes = Vec::new();
    for (kind, qualifier, _) in &found.keepings {
        if is_ours(qualifier) && !wanted(*kind, qualifier) {
            let operation = operation(*kind, "DELETE", &function.name, qualifier);
            changes.push(removed(kind.name(), format!("{}/{qualifier}", function.name), operation));
        }
    }
    for keeping in &function.keepings {
        let mut now =
            found.keepings.iter().filter(|(kind, qualifier, _)| *kind == keeping.kind && *qualifier == keeping.qualifier);
        changes.extend(one_keeping(function, keeping, now.next().map(|(_, _, config)| config)));
    }
    changes
}

fn one_keeping(function: &Function, keeping: &Keeping, now: Option<&Value>) -> Option<Change> {
    let mut wanted = keeping.kind.defaults();
    wanted.extend(keeping.config.clone());
    let mut members = Vec::new();
    let mut shown = now.and_then(Value::as_object).cloned().unwrap_or_default();
    shown.retain(|member, _| !keeping.kind.is_about(member));
    let others = shown.keys().filter(|member| !wanted.contains_key(*member)).cloned().collect::<Vec<_>>();
    for member in wanted.keys().chain(&others) {
        difference(member, shown.get(member), wanted.get(member), &mut members);
    }
    if members.is_empty() && now.is_some() {
        return None;
    }
    let verb = if now.is_some() { Verb::Change } else { Verb::Add };
    let operation = operation(keeping.kind, "PUT", &function.name, &keeping.qualifier).body(keeping.config.clone());
    let name = format!("{}/{}", function.name, keeping.qualifier);
    Some(Change { verb, kind: keeping.kind.name(), name, members, operation: Some(operation) })
}

fn operation(kind: KeepingKind, method: &'static str, function: &str, qualifier: &str) -> Operation {
    let (put, delete, path) = match kind {
        KeepingKind::Provision => ("PutProvisionConfig", "DeleteProvisionConfig", "provision-config"),
        KeepingKind::Scaling => ("PutScalingConfig", "DeleteScalingConfig", "scaling-config"),
        KeepingKind::AsyncInvoke => ("PutAsyncInvokeConfig", "DeleteAsyncInvokeConfig", "async-invoke-config"),
    };
    let action = if method == "PUT" { put } else { delete };
    Operation::new(action, method, &["functions", function, path]).query("qualifier", qualifier)
}

impl KeepingKind {
    fn name(self) -> &'static str {
        match self {
            Self::Provision => "provision",
            Self::Scaling => "scaling",
            Self::AsyncInvoke => "async",
        }
    }

    /// What is in force where nothing is said.
    fn defaults(self) -> Map<String, Value> {
        let members = match self {
            Self::Provision => json!({ "defaultTarget": 0, "alwaysAllocateCPU": true, "alwaysAllocateGPU": true }),
            Self::Scaling => json!({ "minInstances": 0, "enableOnDemandScaling": true }),
            Self::AsyncInvoke => json!({}),
        };
        members.as_object().cloned().unwrap_or_default()
    }

    /// Members that tell how it stands, not what was said.
    fn is_about(self, member: &str) -> bool {
        let standing =
            ["functionArn", "createdTime", "lastModifiedTime", "current", "currentError", "currentInstances", "targetInstances"];
        standing.contains(&member) || self == Self::Provision && member == "target"
    }
}
