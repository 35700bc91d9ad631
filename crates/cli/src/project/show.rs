//! How plans and what was done look.

use console::Style;
use dunlin_project::plan::{Change, Difference, Found, Verb};
use dunlin_project::{Content, Resource};
use serde_json::{Value, json};

use super::Deployed;
use crate::args::Format;
use crate::output::{Output, printable, text};

/// In the places of values that may be secrets.
const HIDDEN: &str = "***";

pub(super) fn plan(output: &Output, changes: &[Change], with_secrets: bool) {
    match output.format {
        Format::Json => output.json(&json(changes, with_secrets)),
        Format::Name => changes.iter().for_each(|change| output.line(&format!("{} {}", change.kind, change.name))),
        Format::Table => {
            for change in changes {
                let style = match change.verb {
                    Verb::Add => Style::new().green(),
                    Verb::Change => Style::new().yellow(),
                    Verb::Remove => Style::new().red(),
                };
                output.line(&output.style_out(&heading(change), &style));
                for member in &change.members {
                    output.line(&format!("    {}", line(member, with_secrets)));
                }
            }
            let count = |verb: Verb| changes.iter().filter(|change| change.verb == verb).count();
            output.line(&match changes {
                [] => "Nothing to do: the platform is as the project says.".to_owned(),
                _ => format!(
                    "{} to add, {} to change, {} to remove; 'dunlin deploy' does it.",
                    count(Verb::Add),
                    count(Verb::Change),
                    count(Verb::Remove)
                ),
            });
        }
    }
}

/// `+ function hello`.
pub(super) fn heading(change: &Change) -> String {
    let sign = match change.verb {
        Verb::Add => '+',
        Verb::Change => '~',
        Verb::Remove => '-',
    };
    format!("{sign} {} {}", change.kind, printable(&change.name))
}

fn line(member: &Difference, with_secrets: bool) -> String {
    let value = |value: &Value| if member.secret && !with_secrets { HIDDEN.to_owned() } else { one_line(value) };
    match (&member.old, &member.new) {
        (None, Some(new)) => format!("{}: {}", member.path, value(new)),
        (Some(old), Some(new)) => format!("{}: {} -> {}", member.path, value(old), value(new)),
        (Some(old), None) => format!("{}: {} -> (nothing)", member.path, value(old)),
        (None, None) => member.path.clone(),
    }
}

fn one_line(value: &Value) -> String {
    let said = text(value);
    // What waits for another resource is not known yet.
    if said.contains("${resources.") {
        return format!("(known once it is deployed: {said})");
    }
    match said.split_once('\n') {
        Some((first, _)) => format!("{first} …"),
        None => said,
    }
}

/// A plan for programs.
pub(super) fn json(changes: &[Change], with_secrets: bool) -> Value {
    let value = |member: &Difference, value: &Option<Value>| match value {
        Some(_) if member.secret && !with_secrets => HIDDEN.into(),
        Some(value) => value.clone(),
        None => Value::Null,
    };
    let changes = changes.iter().map(|change| {
        let verb = match change.verb {
            Verb::Add => "add",
            Verb::Change => "change",
            Verb::Remove => "remove",
        };
        let members = change.members.iter();
        let members: Vec<Value> = members
            .map(|member| json!({ "path": member.path, "old": value(member, &member.old), "new": value(member, &member.new) }))
            .collect();
        json!({ "verb": verb, "kind": change.kind, "name": change.name, "members": members })
    });
    json!({ "changes": changes.collect::<Vec<_>>() })
}

/// What a deployment did, and where things are.
pub(super) fn deployed(output: &Output, all: &[Deployed]) {
    let items: Vec<Value> = all
        .iter()
        .map(|one| {
            let mut item = json(&one.done, false);
            item["kind"] = one.kind.into();
            item["name"] = one.name.clone().into();
            item["url"] = one.url.clone().into();
            item
        })
        .collect();
    let done = |item: &Value| match item["changes"].as_array().map_or(0, Vec::len) {
        0 => "unchanged".to_owned(),
        1 => "1 change".to_owned(),
        more => format!("{more} changes"),
    };
    output.list(
        &items,
        "name",
        &[
            ("KIND", &|item| text(&item["kind"])),
            ("NAME", &|item| text(&item["name"])),
            ("DONE", &done),
            ("URL", &|item| text(&item["url"])),
        ],
    );
}

pub(super) fn kind(resource: &Resource) -> &'static str {
    match resource.content {
        Content::Layer(_) => "layer",
        Content::Function(_) => "function",
        Content::Domain(_) => "domain",
    }
}

pub(super) fn name(resource: &Resource) -> String {
    match &resource.content {
        Content::Layer(layer) => layer.name.clone(),
        Content::Function(function) => function.name.clone(),
        Content::Domain(domain) => domain.name.clone(),
    }
}

/// Where a resource answers, if it does.
pub(super) fn url(resource: &Resource, found: &Found) -> Option<String> {
    match found {
        Found::Layer(_) => None,
        Found::Function(found) => {
            let mut urls = found.triggers.iter().filter_map(|trigger| trigger["httpTrigger"]["urlInternet"].as_str());
            urls.next().map(str::to_owned)
        }
        Found::Domain(domain) => {
            let secure =
                domain.as_ref().is_some_and(|domain| domain["protocol"].as_str().is_some_and(|over| over.contains("HTTPS")));
            Some(format!("{}://{}/", if secure { "https" } else { "http" }, name(resource)))
        }
    }
}
