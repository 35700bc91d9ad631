//! What has to be done so that a platform is as a resource says.
//!
//! A plan is a function of the resource, of what was found on the platform and of the code's checksum. Each [`Change`] is one
//! whole operation of the API; done in their order they can be cut off anywhere, and the next plan holds the rest. A change
//! without an operation follows from what is done before it: look again then, and plan again.
//!
//! # What is a function's
//! Its triggers are those of the file and no others; so are the settings of the function as a whole. What was said about an
//! alias that the file does not name is left alone.

mod difference;
mod domain;
mod function;
mod parts;

use serde_json::{Map, Value, json};

use crate::project::{Content, KeepingKind, Layer, Resource};
use difference::difference;

/// What a platform has of a resource.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// All versions of a layer, as the API shows them.
    Layer(Vec<Value>),
    /// A function.
    Function(Box<FoundFunction>),
    /// A custom domain, as the API shows it.
    Domain(Option<Value>),
}

/// What a platform has of a function, each part as the API shows it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FoundFunction {
    /// The function.
    pub function: Option<Value>,
    /// The number of its newest version, and what the function was then. Looked up for aliases only.
    pub newest: Option<(String, Value)>,
    /// Its aliases.
    pub aliases: Vec<Value>,
    /// Its triggers.
    pub triggers: Vec<Value>,
    /// How many instances are set aside.
    pub reserved_concurrency: Option<Value>,
    /// Settings, with what they are of.
    pub keepings: Vec<(KeepingKind, String, Value)>,
    /// The custom domain that the resource names.
    pub domain: Option<Value>,
}

/// What is done to a thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// It is not there yet.
    Add,
    /// It is there and otherwise.
    Change,
    /// It is there and shall not be.
    Remove,
}

/// One step of a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// What is done.
    pub verb: Verb,
    /// To which sort of thing.
    pub kind: &'static str,
    /// Its name, what belongs to a function as `FUNCTION/NAME`.
    pub name: String,
    /// What becomes otherwise, member by member.
    pub members: Vec<Difference>,
    /// How it is done; nothing when that follows from what is done before.
    pub operation: Option<Operation>,
}

/// A member that becomes otherwise.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Which, for example `environmentVariables.STAGE`.
    pub path: String,
    /// What it is.
    pub old: Option<Value>,
    /// What it becomes.
    pub new: Option<Value>,
    /// Whether its values may be secrets.
    pub secret: bool,
}

/// An operation of the API.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Operation {
    /// Its name.
    pub action: &'static str,
    /// As HTTP spells it.
    pub method: &'static str,
    /// The segments of its path, not encoded.
    pub path: Vec<String>,
    /// Its query.
    pub query: Vec<(&'static str, String)>,
    /// Its body.
    pub body: Option<Value>,
    /// Whether the code is sent along, as `code`.
    pub with_code: bool,
}

impl Operation {
    fn new(action: &'static str, method: &'static str, path: &[&str]) -> Self {
        let path = path.iter().map(|segment| (*segment).to_owned()).collect();
        Self { action, method, path, ..Self::default() }
    }

    fn body(self, body: impl Into<Value>) -> Self {
        Self { body: Some(body.into()), ..self }
    }

    fn query(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }
}

/// What has to be done for `resource`, where there is `found`. `checksum` is that of its code, as the API shows checksums.
#[must_use]
pub fn plan(resource: &Resource, found: &Found, checksum: Option<&str>) -> Vec<Change> {
    match (&resource.content, found) {
        (Content::Layer(layer), Found::Layer(versions)) => plan_layer(layer, versions, checksum),
        (Content::Function(function), Found::Function(found)) => function::plan(function, found, checksum),
        (Content::Domain(domain), Found::Domain(found)) => domain::plan(domain, found.as_ref()).into_iter().collect(),
        // What was found is of another sort: there is nothing of this one.
        _ => Vec::new(),
    }
}

/// What has to be done so that nothing is left of `resource`.
#[must_use]
pub fn removal(resource: &Resource, found: &Found) -> Vec<Change> {
    match (&resource.content, found) {
        (Content::Layer(layer), Found::Layer(versions)) => versions
            .iter()
            .map(|version| {
                let number = text_of(&version["version"]);
                let operation = Operation::new("DeleteLayerVersion", "DELETE", &["layers", &layer.name, "versions", &number]);
                removed("layer version", format!("{}/{number}", layer.name), operation)
            })
            .collect(),
        (Content::Function(function), Found::Function(found)) => function::removal(function, found),
        (Content::Domain(domain), Found::Domain(found)) => domain::removal(domain, found.as_ref()).into_iter().collect(),
        _ => Vec::new(),
    }
}

/// What others can ask of a resource that is there: `${resources.NAME.output.…}`.
#[must_use]
pub fn output(found: &Found) -> Option<Value> {
    match found {
        Found::Layer(versions) => newest_layer(versions).cloned(),
        Found::Domain(domain) => domain.clone(),
        Found::Function(found) => {
            let mut output = found.function.clone()?;
            let url = |member: &str| {
                let mut triggers = found.triggers.iter();
                triggers.find_map(|trigger| trigger["httpTrigger"].get(member).cloned()).unwrap_or_default()
            };
            output["url"] = json!({ "system_url": url("urlInternet"), "system_intranet_url": url("urlIntranet") });
            output["triggers"] = found.triggers.clone().into();
            Some(output)
        }
    }
}

fn newest_layer(versions: &[Value]) -> Option<&Value> {
    versions.iter().max_by_key(|version| version["version"].as_u64())
}

fn plan_layer(layer: &Layer, versions: &[Value], checksum: Option<&str>) -> Vec<Change> {
    let newest = newest_layer(versions);
    let mut wanted = Map::from_iter([("description".to_owned(), "".into()), ("compatibleRuntime".to_owned(), json!([]))]);
    wanted.extend(layer.config.clone());
    let mut members = Vec::new();
    let found = newest.cloned().unwrap_or_default();
    for (member, value) in &wanted {
        difference(member, found.get(member), Some(value), &mut members);
    }
    code_difference(found.get("codeChecksum"), checksum, &mut members);
    if members.is_empty() {
        return Vec::new();
    }
    let verb = if newest.is_some() { Verb::Change } else { Verb::Add };
    let operation = Operation::new("CreateLayerVersion", "POST", &["layers", &layer.name, "versions"]).body(layer.config.clone());
    let operation = Some(Operation { with_code: true, ..operation });
    vec![Change { verb, kind: "layer", name: layer.name.clone(), members, operation }]
}

fn code_difference(found: Option<&Value>, checksum: Option<&str>, members: &mut Vec<Difference>) {
    let Some(checksum) = checksum else { return };
    if found.and_then(Value::as_str) != Some(checksum) {
        let old = found.map(|old| format!("crc64 {}", text_of(old)).into());
        members.push(Difference { path: "code".to_owned(), old, new: Some(format!("crc64 {checksum}").into()), secret: false });
    }
}

fn removed(kind: &'static str, name: String, operation: Operation) -> Change {
    Change { verb: Verb::Remove, kind, name, members: Vec::new(), operation: Some(operation) }
}

fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
