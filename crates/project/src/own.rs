//! The project's own format, `dunlin.toml`: what most functions need, in few words.
//!
//! Names at the first level are short; what lies deeper and has a structure in the API is written in the API's spelling.
//! Variables are those of `s.yaml`.

mod fields;

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::node::{Content, Member, Node, Place, Problems, Scalar, Style};
use crate::project::{
    self, Action, Alias, Domain, Function, KeepingKind, Layer, Moment, Project, Resource, Route, Trigger, Version,
};
use crate::serverless::{self, as_text, complete_http, keeping, take_text};
use crate::shape::{Findings, join, members_schema};
use crate::toml_text;
use crate::variables::{Outputs, Resolver, World};

/// The schema that editors check and complete `dunlin.toml` with.
#[must_use]
pub fn schema() -> Value {
    let mut schema = members_schema(fields::ROOT);
    schema["$schema"] = "http://json-schema.org/draft-07/schema#".into();
    schema["title"] = "dunlin.toml".into();
    schema["description"] = "Functions, layers and domains that 'dunlin deploy' makes.".into();
    schema
}

/// Reads the project in `file`.
pub(crate) fn read(file: &Path, world: &dyn World, outputs: &Outputs) -> Result<Project, Problems> {
    let place = Place::of_file(file);
    let text = world.read(file).map_err(|error| Problems::one(place.clone(), format!("cannot read it: {error}")))?;
    let root = toml_text::parse(&place, &text)?;
    let raw = raw_resources(&root)?;
    let folder = file.parent().unwrap_or(Path::new(""));
    let mut resolver = Resolver::new(root.member("vars"), &raw, folder, world, outputs);
    let mut reader =
        Reader { folder, outputs, findings: Findings::default(), layers: names(&root, "layers"), functions: Vec::new() };

    // The first level is checked as it is written; what lies in resources, with variables put in.
    let shallow = Node {
        place: root.place.clone(),
        content: Content::Members(
            root.members().iter().filter(|member| !KINDS.contains(&member.name.as_str())).cloned().collect(),
        ),
    };
    reader.findings.members(&shallow, fields::ROOT, "");
    if raw.is_empty() {
        reader.findings.wrong(&place, "there is nothing to deploy; write a function as [functions.NAME]");
    }
    let mut read: Vec<(Member, Node, BTreeSet<String>)> = Vec::new();
    for member in &raw {
        resolver.needs.clear();
        let node = resolver.resolve(&member.value, Some(&member.name));
        read.push((member.clone(), node, resolver.needs.keys().cloned().collect()));
    }
    let kind_of = |node: &Node| node.member("component").and_then(Node::text).unwrap_or_default().to_owned();
    reader.functions = read
        .iter()
        .filter(|(_, node, _)| kind_of(node) == "functions")
        .map(|(member, node, _)| {
            let name = node.member("props").and_then(|props| props.member("name")).and_then(Node::text);
            (member.name.clone(), name.unwrap_or(&member.name).to_owned())
        })
        .collect();
    let mut resources = Vec::new();
    for (member, node, mut needs) in read {
        let Some(props) = node.member("props") else { continue };
        let mut waits_for: BTreeSet<String> = needs.iter().filter(|name| !outputs.contains_key(*name)).cloned().collect();
        let (kind, path) = (kind_of(&node), format!("{}.{}", kind_of(&node), member.name));
        let (content, actions) = match kind.as_str() {
            "functions" => reader.function(&member.name, props, &path, &mut needs, &mut waits_for),
            "layers" => (reader.layer(&member.name, props, &path), Vec::new()),
            _ => (reader.domain(&member.name, props, &path, &mut needs), Vec::new()),
        };
        if let Some(content) = content {
            let (needs, waits_for) = (needs.into_iter().collect(), waits_for.into_iter().collect());
            resources.push(Resource { name: member.name, place: member.place, needs, waits_for, actions, content });
        }
    }
    let name = root.member("name").map(|name| resolver.resolve(name, None));
    let mut problems = resolver.problems;
    problems.append(&mut reader.findings.problems);
    if problems.is_empty() {
        serverless::check_names(&resources, &mut problems);
    }
    let resources = if problems.is_empty() { serverless::in_order(resources)? } else { return Err(Problems(problems)) };
    let name = name.as_ref().and_then(Node::text).map(str::to_owned);
    Ok(Project { name, resources, actions: Vec::new(), warnings: reader.findings.warnings })
}

/// What a file's tables are named, in the order their resources are deployed in when nothing else decides.
const KINDS: [&str; 3] = ["layers", "functions", "domains"];

fn names(root: &Node, kind: &str) -> Vec<String> {
    root.member(kind).map(Node::members).unwrap_or_default().iter().map(|member| member.name.clone()).collect()
}

/// Every resource with what variables can ask for: its name, its kind as `component`, and its members as `props`.
fn raw_resources(root: &Node) -> Result<Vec<Member>, Problems> {
    let mut raw: Vec<Member> = Vec::new();
    for kind in KINDS {
        let Some(table) = root.member(kind) else { continue };
        if !matches!(table.content, Content::Members(_)) {
            return Err(Problems::one(table.place.clone(), format!("{kind} must be a table, written [{kind}.NAME]")));
        }
        for member in table.members() {
            if let Some(other) = raw.iter().find(|other| other.name == member.name) {
                let what =
                    format!("'{}' is there already, on line {}; names are of one resource each", member.name, other.place.line);
                return Err(Problems::one(member.place.clone(), what));
            }
            let word = |name: &str, text: &str| Member {
                name: name.to_owned(),
                place: member.place.clone(),
                value: Node::scalar(member.place.clone(), text, Style::Quoted),
                merged: false,
            };
            let props = Member { name: "props".to_owned(), ..member.clone() };
            let members = vec![word("name", &member.name), word("component", kind), props];
            let value = Node { place: member.value.place.clone(), content: Content::Members(members) };
            raw.push(Member { value, ..member.clone() });
        }
    }
    Ok(raw)
}

struct Reader<'a> {
    folder: &'a Path,
    outputs: &'a Outputs,
    findings: Findings,
    /// The layers of the file.
    layers: Vec<String>,
    /// Its functions and what they are called on the platform.
    functions: Vec<(String, String)>,
}

impl Reader<'_> {
    fn layer(&mut self, name: &str, node: &Node, path: &str) -> Option<project::Content> {
        let mut said = self.findings.members(node, fields::LAYER, path);
        let code = take_text(&mut said, "code")?;
        let mut config = Map::new();
        rename(&mut said, &mut config, &[("description", "description"), ("runtimes", "compatibleRuntime")]);
        let name = take_text(&mut said, "name").unwrap_or_else(|| name.to_owned());
        Some(project::Content::Layer(Layer { name, code: self.folder.join(code), config }))
    }

    fn function(
        &mut self,
        name: &str,
        node: &Node,
        path: &str,
        needs: &mut BTreeSet<String>,
        waits_for: &mut BTreeSet<String>,
    ) -> (Option<project::Content>, Vec<Action>) {
        let mut said = self.findings.members(node, fields::FUNCTION, path);
        let build = take_text(&mut said, "build").map(|run| Action {
            place: node.member("build").map_or_else(|| node.place.clone(), |node| node.place.clone()),
            moment: Moment::Before,
            run,
            folder: self.folder.to_path_buf(),
            may_fail: false,
        });
        let mut config = Map::new();
        rename(&mut said, &mut config, fields::RENAMED);
        if let Some(layers) = node.member("layers") {
            said.remove("layers");
            config.insert("layers".to_owned(), self.layers_of(layers, path, needs, waits_for));
        }
        if let Some(Value::Object(tags)) = said.remove("tags") {
            config
                .insert("tags".to_owned(), tags.into_iter().map(|(key, value)| json!({ "Key": key, "Value": value })).collect());
        }
        let mut custom = Map::new();
        rename(
            &mut said,
            &mut custom,
            &[("command", "command"), ("args", "args"), ("port", "port"), ("health", "healthCheckConfig")],
        );
        if !custom.is_empty() {
            config.insert("customRuntimeConfig".to_owned(), custom.into());
        }
        let mut hooks = Map::new();
        rename(&mut said, &mut hooks, &[("initializer", "initializer"), ("pre_stop", "preStop")]);
        if !hooks.is_empty() {
            config.insert("instanceLifecycleConfig".to_owned(), hooks.into());
        }
        let triggers = self.triggers(&mut said, node, path);
        let aliases = node.member("aliases").map(|aliases| self.aliases(aliases, path));
        let mut keepings = Vec::new();
        if let Some(ready) = said.remove("ready") {
            keepings.push(keeping(KeepingKind::Scaling, Map::from_iter([("minInstances".to_owned(), ready)])));
        }
        if let Some(Value::Array(scalings)) = said.remove("scaling") {
            keepings
                .extend(scalings.iter().filter_map(Value::as_object).map(|config| keeping(KeepingKind::Scaling, config.clone())));
        }
        if let Some(Value::Object(config)) = said.remove("async") {
            keepings.push(keeping(KeepingKind::AsyncInvoke, config));
        }
        let mut seen = BTreeSet::new();
        if let Some(twice) = keepings.iter().find(|keeping| !seen.insert((keeping.kind, keeping.qualifier.clone()))) {
            self.findings
                .wrong(&node.place, format!("{path} says twice how many instances of {} are kept ready", twice.qualifier));
        }
        let function = Function {
            name: take_text(&mut said, "name").unwrap_or_else(|| name.to_owned()),
            code: take_text(&mut said, "code").map(|code| self.folder.join(code)),
            config,
            aliases,
            triggers,
            reserved_concurrency: said.remove("reserved"),
            keepings,
            domain: None,
        };
        (Some(project::Content::Function(Box::new(function))), build.into_iter().collect())
    }

    /// Resource names as they are; names of the file's own layers as what they resulted in.
    fn layers_of(&mut self, node: &Node, path: &str, needs: &mut BTreeSet<String>, waits_for: &mut BTreeSet<String>) -> Value {
        let Content::List(items) = &node.content else { return json!([]) };
        let mut arns = Vec::new();
        for item in items {
            let Some(name) = item.text() else { continue };
            let waiting = matches!(&item.content, Content::Scalar(Scalar { style: Style::Waiting, .. }));
            if waiting || name.starts_with("acs:") {
                arns.push(Value::from(name));
            } else if self.layers.iter().any(|layer| layer == name) {
                needs.insert(name.to_owned());
                let arn = self.outputs.get(name).and_then(|output| output.get("layerVersionArn")).cloned();
                if arn.is_none() {
                    waits_for.insert(name.to_owned());
                }
                arns.push(arn.unwrap_or_else(|| format!("${{resources.{name}.output.layerVersionArn}}").into()));
            } else {
                let known: Vec<&str> = self.layers.iter().map(String::as_str).collect();
                self.findings.unknown(&item.place, name, known.into_iter(), &join(path, "layers"));
            }
        }
        arns.into()
    }

    fn triggers(&mut self, said: &mut Map<String, Value>, node: &Node, path: &str) -> Vec<Trigger> {
        let mut triggers = match node.member("triggers") {
            Some(triggers) => serverless::triggers(triggers, &mut self.findings),
            None => Vec::new(),
        };
        said.remove("triggers");
        let one = |name: &str, kind: &str, config: Value| Trigger {
            name: name.to_owned(),
            kind: kind.to_owned(),
            qualifier: "LATEST".to_owned(),
            description: String::new(),
            config,
            others: Map::new(),
        };
        match said.remove("http") {
            Some(Value::Object(mut http)) => {
                let mut config = Map::new();
                let names = [("auth", "authType"), ("methods", "methods"), ("jwt", "authConfig"), ("cors", "corsConfig")];
                rename(&mut http, &mut config, &names);
                let mut config = Value::Object(config);
                complete_http(&mut config);
                let mut trigger = one("http", "http", config);
                trigger.qualifier = take_text(&mut http, "qualifier").unwrap_or(trigger.qualifier);
                triggers.push(trigger);
            }
            Some(auth) => {
                let mut config = json!({ "authType": auth });
                complete_http(&mut config);
                triggers.push(one("http", "http", config));
            }
            None => {}
        }
        if let Some(Value::Object(timers)) = said.remove("timers") {
            for (name, mut timer) in timers {
                let mut config = Map::new();
                let Value::Object(timer) = &mut timer else { continue };
                rename(timer, &mut config, &[("cron", "cronExpression"), ("enabled", "enable"), ("payload", "payload")]);
                config.entry("enable").or_insert(true.into());
                let mut trigger = one(&name, "timer", config.into());
                trigger.qualifier = take_text(timer, "qualifier").unwrap_or(trigger.qualifier);
                triggers.push(trigger);
            }
        }
        let mut seen = BTreeSet::new();
        if let Some(twice) = triggers.iter().find(|trigger| !seen.insert(trigger.name.clone())) {
            self.findings.wrong(&node.place, format!("{path} has two triggers '{}'", twice.name));
        }
        triggers
    }

    fn aliases(&mut self, node: &Node, path: &str) -> Vec<Alias> {
        let mut aliases = Vec::new();
        for member in node.members() {
            let version = member.value.member("version").unwrap_or(&member.value);
            let description = member.value.member("description").and_then(Node::text).unwrap_or_default().to_owned();
            let read = match version.text() {
                Some("newest") => Some(Version::Newest),
                Some(number) => number.parse().ok().filter(|number| *number > 0).map(Version::Number),
                // The table found that it is missing.
                None => continue,
            };
            match read {
                Some(version) => aliases.push(Alias { name: member.name.clone(), version, description }),
                None => self
                    .findings
                    .wrong(&version.place, format!("{path}.aliases.{} must be 'newest' or the number of a version", member.name)),
            }
        }
        aliases
    }

    fn domain(&mut self, name: &str, node: &Node, path: &str, needs: &mut BTreeSet<String>) -> Option<project::Content> {
        let mut said = self.findings.members(node, fields::DOMAIN, path);
        let mut routes = Vec::new();
        for member in node.member("routes").map(Node::members).unwrap_or_default() {
            routes.extend(self.route(member, &join(path, "routes"), needs));
        }
        said.remove("routes");
        let mut certificate = Map::new();
        rename(&mut said, &mut certificate, &[("certificate", "certificate"), ("key", "privateKey")]);
        let mut config = Map::new();
        let protocol =
            said.remove("protocol").unwrap_or_else(|| if certificate.is_empty() { "HTTP" } else { "HTTP,HTTPS" }.into());
        config.insert("protocol".to_owned(), protocol);
        if !certificate.is_empty() {
            certificate.insert("certName".to_owned(), name.replace('.', "-").into());
            config.insert("certConfig".to_owned(), certificate.into());
        }
        rename(&mut said, &mut config, &[("cors", "corsConfig"), ("tls", "tlsConfig")]);
        if let Some(auth) = said.remove("auth") {
            let mut members = Map::from_iter([("authType".to_owned(), auth)]);
            if let Some(mut rules) = said.remove("jwt") {
                as_text(&mut rules);
                members.insert("authInfo".to_owned(), rules);
            }
            config.insert("authConfig".to_owned(), members.into());
        }
        Some(project::Content::Domain(Domain { name: name.to_owned(), config, routes, whole: true }))
    }

    /// A path, and the function it leads to: one of the file's, by its name there, or any of the platform's.
    fn route(&mut self, member: &Member, path: &str, needs: &mut BTreeSet<String>) -> Option<Route> {
        let mut route = Map::from_iter([("path".to_owned(), Value::from(member.name.clone()))]);
        let function = match &member.value.content {
            Content::Scalar(_) => member.value.text()?.to_owned(),
            Content::List(_) | Content::Members(_) => {
                let mut said = Findings::default().members(&member.value, fields::ROUTE, path);
                rename(
                    &mut said,
                    &mut route,
                    &[("qualifier", "qualifier"), ("methods", "methods"), ("rewrite", "rewriteConfig")],
                );
                take_text(&mut said, "function")?
            }
        };
        let own = self.functions.iter().find(|(name, _)| *name == function);
        if let Some((name, _)) = own {
            needs.insert(name.clone());
        }
        let on_platform = own.map_or(function.as_str(), |(_, on_platform)| on_platform.as_str());
        route.insert("functionName".to_owned(), on_platform.into());
        Some(route)
    }
}

/// Moves members under other names.
fn rename(from: &mut Map<String, Value>, to: &mut Map<String, Value>, names: &[(&str, &str)]) {
    for (own, api) in names {
        if let Some(value) = from.remove(*own) {
            to.insert((*api).to_owned(), value);
        }
    }
}
