//! Serverless Devs' `s.yaml`, edition 3.0.0, with components `fc3` and `fc3-domain` (contract section 16).

mod function;
pub(crate) mod props;

use std::path::{Path, PathBuf};

use crate::node::{Content, Member, Node, Place, Problems, Style};
use crate::project::{Action, Moment, Project, Resource};
use crate::shape::{Fate, Field, Findings, Shape};
use crate::variables::{Outputs, Resolver, World};
pub(crate) use function::{as_text, complete_http, keeping, take_text, triggers};

use crate::{project, yaml};

const EDITION: &str = "3.0.0";

const ROOT: &[Field] = &[
    Field::new("edition", Shape::Text, ""),
    Field::new("name", Shape::Text, ""),
    Field::new("access", Shape::Text, ""),
    Field::new("extend", Shape::Text, ""),
    Field::new("vars", Shape::Any, ""),
    Field::new("template", Shape::Any, ""),
    Field::new("resources", Shape::Any, "").required(),
    Field::new("actions", Shape::Any, ""),
    Field::new("env", Shape::Text, "").fate(Fate::Dropped("environments (env.yaml) are not read; use 'extend' or variables")),
    Field::new("flow", Shape::Any, "").fate(Fate::Dropped("the order follows from what resources refer to")),
    Field::new("services", Shape::Any, "").fate(Fate::Refused("it is of an edition before 3.0.0; write 'resources'")),
];

const RESOURCE: &[Field] = &[
    Field::new("component", Shape::Text, "").required(),
    Field::new("access", Shape::Text, ""),
    Field::new("props", Shape::Any, ""),
    Field::new("extend", Shape::Any, ""),
    Field::new("actions", Shape::Any, ""),
];

const EXTEND: &[Field] = &[Field::new("name", Shape::Text, "").required(), Field::new("ignore", Shape::List(&Shape::Text), "")];

const ACTION: &[Field] = &[
    Field::new("run", Shape::Text, ""),
    Field::new("path", Shape::Text, ""),
    Field::new("allow_failure", Shape::Any, ""),
    Field::new("plugin", Shape::Any, ""),
    Field::new("component", Shape::Any, ""),
    Field::new("args", Shape::Any, ""),
];

/// Reads the project in `file`.
pub(crate) fn read(file: &Path, world: &dyn World, outputs: &Outputs) -> Result<Project, Problems> {
    let place = Place::of_file(file);
    let mut findings = Findings::default();
    let root = load(file, world, &mut findings)?;
    let said = findings.members(&root, ROOT, "");
    // What follows would only repeat that nothing is understood.
    if !findings.problems.is_empty() {
        return Err(Problems(findings.problems));
    }
    let edition = root.member("edition");
    if edition.and_then(Node::text) != Some(EDITION) {
        let place = edition.map_or(&place, |edition| &edition.place);
        let said = edition.and_then(Node::text).map_or_else(String::new, |said| format!(", and is '{said}'"));
        findings.wrong(place, format!("edition must be {EDITION}{said}"));
    }
    let folder = file.parent().unwrap_or(Path::new("")).to_path_buf();
    let access = said.get("access").and_then(|access| access.as_str()).unwrap_or("default");
    let raw = raw_resources(&root, access, &mut findings);
    let mut resolver = Resolver::new(root.member("vars"), &raw, &folder, world, outputs);

    let name = root.member("name").map(|name| resolver.resolve(name, None));
    let actions = root.member("actions").map(|actions| resolver.resolve(actions, None));
    let actions = actions.map(|actions| read_actions(&actions, &folder, &mut findings)).unwrap_or_default();
    let mut resources = Vec::new();
    for member in &raw {
        resolver.needs.clear();
        let node = resolver.resolve(&member.value, Some(&member.name));
        let component = node.member("component").and_then(Node::text).unwrap_or_default();
        let empty = Node { place: member.place.clone(), content: Content::Members(Vec::new()) };
        let props = node.member("props").unwrap_or(&empty);
        let content = match component.split('@').next().unwrap_or_default() {
            "fc3" => function::read(props, &folder, &mut findings).map(|function| project::Content::Function(Box::new(function))),
            "fc3-domain" => function::read_domain(props, &mut findings).map(project::Content::Domain),
            other => {
                let place = node.member("component").map_or(&member.place, |component| &component.place);
                findings.wrong(place, format!("component '{other}' is not supported; fc3 and fc3-domain are"));
                None
            }
        };
        let actions = node.member("actions").map(|actions| read_actions(actions, &folder, &mut findings)).unwrap_or_default();
        let needs: Vec<String> = resolver.needs.keys().cloned().collect();
        let waits_for = needs.iter().filter(|name| !outputs.contains_key(*name)).cloned().collect();
        if let Some(content) = content {
            let (name, place) = (member.name.clone(), member.place.clone());
            resources.push(Resource { name, place, needs, waits_for, actions, content });
        }
    }
    // A mistake in a variable comes first: others may follow from it.
    let mut problems = resolver.problems;
    problems.append(&mut findings.problems);
    if problems.is_empty() {
        check_names(&resources, &mut problems);
        lead_to_functions(&mut resources);
    }
    let resources = if problems.is_empty() { in_order(resources)? } else { return Err(Problems(problems)) };
    let name = name.as_ref().and_then(Node::text).map(str::to_owned);
    Ok(Project { name, resources, actions, warnings: findings.warnings })
}

/// The document, laid over the one it extends.
fn load(file: &Path, world: &dyn World, findings: &mut Findings) -> Result<Node, Problems> {
    let one = |file: &Path, place: &Place| {
        let text =
            world.read(file).map_err(|error| Problems::one(place.clone(), format!("cannot read {}: {error}", file.display())))?;
        yaml::parse(&Place::of_file(file), &text)
    };
    let root = one(file, &Place::of_file(file))?;
    let Some(extend) = root.member("extend") else { return Ok(root) };
    let Some(path) = extend.text() else {
        findings.wrong(&extend.place, "extend must be the path of a file");
        return Ok(root);
    };
    let base = one(&file.parent().unwrap_or(Path::new("")).join(path), &extend.place)?;
    if let Some(further) = base.member("extend") {
        findings.wrong(&further.place, "a file that is extended cannot extend another");
    }
    Ok(base.merged(root))
}

/// Each resource as it is written, laid over the template it extends.
fn raw_resources(root: &Node, access: &str, findings: &mut Findings) -> Vec<Member> {
    let Some(resources) = root.member("resources") else { return Vec::new() };
    if !matches!(resources.content, Content::Members(_)) {
        findings.wrong(&resources.place, format!("resources must be a set of members, and is {}", resources.kind()));
    } else if resources.members().is_empty() {
        findings.wrong(&resources.place, "resources has nothing in it");
    }
    let mut raw = Vec::new();
    for member in resources.members() {
        let path = format!("resources.{}", member.name);
        findings.members(&member.value, RESOURCE, &path);
        let Content::Members(mut members) = member.value.content.clone() else { continue };
        if let Some(extend) = member.value.member("extend") {
            let said = findings.members(extend, EXTEND, &format!("{path}.extend"));
            let name = said.get("name").and_then(|name| name.as_str()).unwrap_or_default();
            let template = root.member("template").and_then(|templates| templates.member(name));
            if let Some(template) = template {
                let ignored: Vec<&str> = said
                    .get("ignore")
                    .and_then(|list| list.as_array())
                    .into_iter()
                    .flatten()
                    .filter_map(|name| name.as_str())
                    .collect();
                let mut base = template.clone();
                if let Content::Members(members) = &mut base.content {
                    members.retain(|member| !ignored.contains(&member.name.as_str()));
                }
                let over = members.iter().position(|member| member.name == "props").map(|index| members.remove(index).value);
                let props = match over {
                    Some(over) => base.merged(over),
                    None => base,
                };
                members.push(Member { name: "props".to_owned(), place: props.place.clone(), value: props, merged: false });
            } else {
                let known = root.member("template").map(Node::members).unwrap_or_default();
                findings.unknown(&extend.place, name, known.iter().map(|member| member.name.as_str()), "template");
            }
            members.retain(|member| member.name != "extend");
        }
        let place = member.place.clone();
        let mut add = |name: &str, text: &str| {
            if !members.iter().any(|member| member.name == name) {
                let value = Node::scalar(place.clone(), text, Style::Quoted);
                members.push(Member { name: name.to_owned(), place: place.clone(), value, merged: false });
            }
        };
        // What `${this.…}` can ask for.
        add("name", &member.name);
        add("access", access);
        let value = Node { place: member.value.place.clone(), content: Content::Members(members) };
        raw.push(Member { value, ..member.clone() });
    }
    raw
}

/// What runs around `deploy`. Actions around other commands are theirs.
fn read_actions(node: &Node, folder: &Path, findings: &mut Findings) -> Vec<Action> {
    let mut actions = Vec::new();
    if !matches!(node.content, Content::Members(_)) && !node.is_null() {
        findings.wrong(&node.place, format!("actions must be a set of members, and is {}", node.kind()));
    }
    for member in node.members() {
        let moment = match member.name.split_once('-') {
            Some(("pre", "deploy")) => Moment::Before,
            Some(("post" | "success", "deploy")) => Moment::Done,
            Some(("fail", "deploy")) => Moment::Failed,
            Some(("complete", "deploy")) => Moment::After,
            Some(("pre" | "post" | "success" | "fail" | "complete", command)) => {
                findings.warn(&member.place, format!("{} is left out: actions run around deploy, not {command}", member.name));
                continue;
            }
            _ => {
                let known = ["pre-deploy", "post-deploy", "success-deploy", "fail-deploy", "complete-deploy"];
                findings.unknown(&member.place, &member.name, known.into_iter(), "actions");
                continue;
            }
        };
        let Content::List(items) = &member.value.content else {
            findings.wrong(&member.value.place, format!("{} must be a list, and is {}", member.name, member.value.kind()));
            continue;
        };
        for item in items {
            let said = findings.members(item, ACTION, &member.name);
            let text = |name: &str| said.get(name).and_then(|value| value.as_str()).map(str::to_owned);
            for kind in ["plugin", "component"] {
                if said.contains_key(kind) {
                    findings.wrong(
                        &item.place,
                        format!("{}: {kind} actions are not supported; write 'run' with a command", member.name),
                    );
                }
            }
            match text("run") {
                Some(run) => actions.push(Action {
                    place: item.place.clone(),
                    moment,
                    run,
                    folder: text("path").map_or_else(|| folder.to_path_buf(), |path| folder.join(path)),
                    may_fail: said.get("allow_failure").is_some_and(|may| *may != false),
                }),
                None if said.contains_key("plugin") || said.contains_key("component") => {}
                None => findings.wrong(&item.place, format!("{}: a command is missing; write 'run'", member.name)),
            }
        }
    }
    actions
}

/// Two resources cannot be the same thing on the platform.
pub(crate) fn check_names(resources: &[Resource], problems: &mut Vec<crate::Problem>) {
    let key = |resource: &Resource| match &resource.content {
        project::Content::Function(function) => ("function", function.name.clone()),
        project::Content::Layer(layer) => ("layer", layer.name.clone()),
        project::Content::Domain(domain) => ("domain", domain.name.to_lowercase()),
    };
    for (index, resource) in resources.iter().enumerate() {
        if let Some(other) = resources[..index].iter().find(|other| key(other) == key(resource)) {
            let (kind, name) = key(resource);
            let what = format!("'{}' and '{}' are both {kind} '{name}'", other.name, resource.name);
            problems.push(crate::Problem { place: resource.place.clone(), what });
        }
    }
}

/// A domain comes after the functions of the same file that its paths lead to.
fn lead_to_functions(resources: &mut [Resource]) {
    let functions: Vec<(String, String)> = resources
        .iter()
        .filter_map(|resource| match &resource.content {
            project::Content::Function(function) => Some((function.name.clone(), resource.name.clone())),
            project::Content::Layer(_) | project::Content::Domain(_) => None,
        })
        .collect();
    for resource in resources {
        let project::Content::Domain(domain) = &resource.content else { continue };
        for (function, name) in &functions {
            let leads = domain.routes.iter().any(|route| route.get("functionName").is_some_and(|led| led == function.as_str()));
            if leads && !resource.needs.contains(name) {
                resource.needs.push(name.clone());
            }
        }
    }
}

/// Sorts resources so that each comes after those it needs, and otherwise as they are written.
pub(crate) fn in_order(resources: Vec<Resource>) -> Result<Vec<Resource>, Problems> {
    let (mut sorted, mut rest): (Vec<Resource>, Vec<Resource>) = (Vec::new(), resources);
    while !rest.is_empty() {
        let ready = |resource: &Resource| resource.needs.iter().all(|need| sorted.iter().any(|done| done.name == *need));
        let Some(index) = rest.iter().position(ready) else { return Err(cycle(&rest)) };
        sorted.push(rest.remove(index));
    }
    Ok(sorted)
}

/// The way round, beginning anywhere among resources that wait for each other.
fn cycle(rest: &[Resource]) -> Problems {
    let mut way: Vec<&Resource> = vec![&rest[0]];
    loop {
        let last = way[way.len() - 1];
        let Some(next) = rest.iter().find(|resource| last.needs.contains(&resource.name)) else {
            return Problems::one(last.place.clone(), format!("'{}' needs something that cannot be deployed", last.name));
        };
        if let Some(begin) = way.iter().position(|resource| resource.name == next.name) {
            let names: Vec<&str> = way[begin..].iter().map(|resource| resource.name.as_str()).collect();
            let what = format!("resources need each other's results: {} -> {}", names.join(" -> "), next.name);
            return Problems::one(next.place.clone(), what);
        }
        way.push(next);
    }
}

/// A path of the file's as one of the machine's.
pub(crate) fn below(folder: &Path, path: &str) -> PathBuf {
    folder.join(path)
}
