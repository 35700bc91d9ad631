//! A function and a domain, out of their components' props.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::props;
use crate::node::{Content, Node};
use crate::project::{Domain, Function, Keeping, KeepingKind, Route, Trigger};
use crate::shape::Findings;

/// What the component gives a function that says nothing about its size: MB and vCPUs.
const SIZE: (i64, f64) = (512, 0.35);

/// Settings for which the vendor's tool can make things in the vendor's cloud.
const AUTOMATIC: [&str; 6] = ["role", "logConfig", "vpcConfig", "nasConfig", "ossMountConfig", "tracingConfig"];

/// Reads a function; nothing when what it needs is missing, which is a finding then.
pub(super) fn read(props: &Node, folder: &Path, findings: &mut Findings) -> Option<Function> {
    let mut said = findings.members(props, props::FUNCTION, "");
    said.remove("region");
    let name = take_text(&mut said, "functionName");
    let code = code(said.remove("code"), props, folder, findings);
    for member in AUTOMATIC {
        if said.get(member).and_then(Value::as_str).is_some_and(|word| word.eq_ignore_ascii_case("auto")) {
            said.remove(member);
            let place = props.member(member).map_or(&props.place, |node| &node.place);
            // Instead of that it has no effect.
            findings.warnings.retain(|warning| warning.place != *place || !warning.what.starts_with(member));
            findings.warn(place, format!("{member} is left out: 'auto' makes things in the vendor's cloud"));
        }
    }
    let custom_container = said.get("runtime").and_then(Value::as_str) == Some("custom-container");
    if code.is_none() && !custom_container && props.member("code").is_none_or(Node::is_null) {
        findings.wrong(&props.place, "code is required: the path of a folder or a zip");
    }
    let triggers = props.member("triggers").map(|node| triggers(node, findings)).unwrap_or_default();
    said.remove("triggers");
    let reserved_concurrency =
        said.remove("concurrencyConfig").and_then(|mut config| config.get_mut("reservedConcurrency").map(Value::take));
    let mut keepings = Vec::new();
    for (member, kind) in [
        ("provisionConfig", KeepingKind::Provision),
        ("scalingConfig", KeepingKind::Scaling),
        ("asyncInvokeConfig", KeepingKind::AsyncInvoke),
    ] {
        if let Some(Value::Object(config)) = said.remove(member) {
            keepings.push(keeping(kind, config));
        }
    }
    if let (Some(_), Some(scaling)) = (props.member("provisionConfig"), props.member("scalingConfig")) {
        findings.wrong(&scaling.place, "scalingConfig and provisionConfig say the same thing; write one of them");
    }
    let name = name?;
    let domain = match said.remove("customDomain") {
        Some(Value::Object(domain)) => function_domain(domain, &name, props, findings),
        _ => None,
    };
    if let Some(tags) = said.remove("tags") {
        said.insert("tags".to_owned(), tags_of(&tags));
    }
    if let Some(Value::Object(config)) = said.get("sessionAffinityConfig") {
        // The wire carries it as text.
        let text = Value::Object(config.clone()).to_string();
        said.insert("sessionAffinityConfig".to_owned(), text.into());
    }
    if !said.contains_key("memorySize") && !said.contains_key("cpu") {
        said.insert("memorySize".to_owned(), SIZE.0.into());
        said.insert("cpu".to_owned(), SIZE.1.into());
    }
    Some(Function { name, code, config: said, aliases: None, triggers, reserved_concurrency, keepings, domain })
}

pub(crate) fn keeping(kind: KeepingKind, mut config: Map<String, Value>) -> Keeping {
    let qualifier = take_text(&mut config, "qualifier").unwrap_or_else(|| "LATEST".to_owned());
    if kind == KeepingKind::Provision
        && let Some(target) = config.remove("target")
    {
        // The older name.
        config.entry("defaultTarget").or_insert(target);
    }
    Keeping { kind, qualifier, config }
}

pub(crate) fn take_text(members: &mut Map<String, Value>, name: &str) -> Option<String> {
    match members.remove(name) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    }
}

fn code(said: Option<Value>, props: &Node, folder: &Path, findings: &mut Findings) -> Option<PathBuf> {
    let place = props.member("code").map_or(&props.place, |node| &node.place);
    match said? {
        Value::String(path) if path.contains("://") => {
            findings.wrong(place, "code from a URL is not supported; give the path of a folder or a zip");
            None
        }
        Value::String(path) => Some(super::below(folder, &path)),
        Value::Object(mut code) => {
            if code.contains_key("ossBucketName") || code.contains_key("ossObjectName") {
                findings.warn(place, "code.ossBucketName and code.ossObjectName are left out: the code comes from code.src");
            }
            take_text(&mut code, "src").map(|path| super::below(folder, &path))
        }
        _ => None,
    }
}

/// The API capitalises the members of tags; the component takes both.
fn tags_of(tags: &Value) -> Value {
    let either =
        |tag: &Value, names: [&str; 2]| names.iter().find_map(|name| tag.get(name).cloned()).unwrap_or_else(|| "".into());
    let tags = tags.as_array().into_iter().flatten();
    tags.map(|tag| json!({ "Key": either(tag, ["Key", "key"]), "Value": either(tag, ["Value", "value"]) })).collect()
}

pub(crate) fn triggers(node: &Node, findings: &mut Findings) -> Vec<Trigger> {
    let Content::List(items) = &node.content else { return Vec::new() };
    let mut triggers: Vec<Trigger> = Vec::new();
    for (index, item) in items.iter().enumerate() {
        // What is wrong with its members was found with the function's.
        let mut said = Findings::default().members(item, props::TRIGGER, "");
        let (Some(name), Some(kind)) = (take_text(&mut said, "triggerName"), take_text(&mut said, "triggerType")) else {
            continue;
        };
        if triggers.iter().any(|other| other.name == name) {
            findings.wrong(&item.place, format!("there is another trigger '{name}'"));
        }
        let path = format!("triggers[{index}].triggerConfig");
        let config = item.member("triggerConfig").and_then(|node| findings.value(node, &props::trigger_config(&kind), &path));
        let mut config = config.unwrap_or_else(|| json!({}));
        if kind == "http" {
            complete_http(&mut config);
            for member in ["sourceArn", "invocationRole"] {
                if said.contains_key(member) {
                    findings.warn(&item.place, format!("triggers[{index}].{member} is left out: an http trigger has none"));
                    said.remove(member);
                }
            }
        }
        said.remove("triggerConfig");
        let qualifier = take_text(&mut said, "qualifier").unwrap_or_else(|| "LATEST".to_owned());
        let description = take_text(&mut said, "description").unwrap_or_default();
        triggers.push(Trigger { name, kind, qualifier, description, config, others: said });
    }
    triggers
}

/// An HTTP trigger's configuration as the API takes it: what guards tokens is text, and all methods are served unless said.
pub(crate) fn complete_http(config: &mut Value) {
    let Value::Object(members) = config else { return };
    members.entry("methods").or_insert_with(|| props::METHODS.into());
    members.entry("authType").or_insert_with(|| "function".into());
    if let Some(auth) = members.get_mut("authConfig") {
        as_text(auth);
    }
}

/// Rules of tokens, which the wire carries as text. The component's lists are joined as the API spells them.
pub(crate) fn as_text(rules: &mut Value) {
    if let Value::Object(members) = rules {
        for member in ["tokenLookup", "claimPassBy"] {
            if let Some(Value::Array(entries)) = members.get(member) {
                let joined: Vec<&str> = entries.iter().filter_map(Value::as_str).collect();
                let joined = joined.join(",");
                members.insert(member.to_owned(), joined.into());
            }
        }
    }
    if !rules.is_string() {
        *rules = rules.to_string().into();
    }
}

/// A domain with one route to the function `name`.
fn function_domain(mut said: Map<String, Value>, name: &str, props: &Node, findings: &mut Findings) -> Option<Domain> {
    let mut route = match said.remove("route") {
        Some(Value::Object(route)) => route,
        _ => Map::from_iter([("path".to_owned(), json!("/*"))]),
    };
    route.insert("functionName".to_owned(), name.into());
    let place = props.member("customDomain").unwrap_or(props);
    domain(said, vec![route], false, place, findings)
}

/// Reads component `fc3-domain`.
pub(super) fn read_domain(props: &Node, findings: &mut Findings) -> Option<Domain> {
    let mut said = findings.members(props, props::DOMAIN, "");
    said.remove("region");
    let routes = said.remove("routeConfig").and_then(|mut config| config.get_mut("routes").map(Value::take));
    let routes: Vec<Route> = match routes {
        Some(Value::Array(routes)) => routes.into_iter().filter_map(|route| route.as_object().cloned()).collect(),
        _ => Vec::new(),
    };
    for (index, route) in routes.iter().enumerate() {
        if !route.contains_key("functionName") {
            let place = props.member("routeConfig").map_or(&props.place, |node| &node.place);
            findings.wrong(place, format!("routeConfig.routes[{index}].functionName is required"));
        }
    }
    domain(said, routes, true, props, findings)
}

fn domain(mut config: Map<String, Value>, routes: Vec<Route>, whole: bool, at: &Node, findings: &mut Findings) -> Option<Domain> {
    let name = take_text(&mut config, "domainName")?;
    if name.eq_ignore_ascii_case("auto") {
        let place = at.member("domainName").map_or(&at.place, |node| &node.place);
        findings.wrong(place, "domainName 'auto' asks the vendor for a name; write one of your own");
        return None;
    }
    if let Some(info) = config.get_mut("authConfig").and_then(|auth| auth.get_mut("authInfo")) {
        as_text(info);
    }
    Some(Domain { name, config, routes, whole })
}
