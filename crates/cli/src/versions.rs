//! `dunlin version`, `dunlin alias`, `dunlin traffic` and `dunlin rollback`.

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::args::{AliasCommand, Format, Rollback, Traffic, VersionCommand};
use crate::client::{Call, Client, segment};
use crate::failure::{Failure, Kind};
use crate::functions::confirmed;
use crate::output::{Output, text};

fn path(function: &str, what: &str) -> String {
    format!("/functions/{}/{what}", segment(function))
}

pub(crate) fn run_version(client: &Client, output: &Output, command: &VersionCommand) -> Result<ExitCode, Failure> {
    match command {
        VersionCommand::Ls { name } => {
            let versions = versions(client, name)?;
            if versions.is_empty() && output.format == Format::Table {
                output.note(&format!("'{name}' has no versions; make one with 'dunlin version publish {name}'"));
                return Ok(ExitCode::SUCCESS);
            }
            output.list(
                &versions,
                "versionId",
                &[
                    ("VERSION", &|version| text(&version["versionId"])),
                    ("PUBLISHED", &|version| text(&version["createdTime"])),
                    ("DESCRIPTION", &|version| text(&version["description"])),
                ],
            );
        }
        VersionCommand::Get { name, version } => {
            let call = Call::new("GetFunction", "GET", format!("/functions/{}", segment(name))).query("qualifier", Some(version));
            let function = client.json(&format!("cannot show version {version} of '{name}'"), call)?;
            show(output, &function, "functionArn");
        }
        VersionCommand::Publish { name, description } => {
            let body = description.as_ref().map_or_else(|| json!({}), |description| json!({ "description": description }));
            let call = Call::new("PublishFunctionVersion", "POST", path(name, "versions")).json(&body);
            let version = client.json(&format!("cannot publish '{name}'"), call)?;
            output.note(&format!("published {name} as version {}", text(&version["versionId"])));
            match output.format {
                Format::Json => output.json(&version),
                Format::Name | Format::Table => output.line(&text(&version["versionId"])),
            }
        }
        VersionCommand::Rm { name, version, yes } => {
            let what = format!("cannot remove version {version} of '{name}'");
            let question =
                format!("Remove version {version} of '{name}'? Aliases that point to it will answer with errors. [y/N] ");
            if !yes && !confirmed(&what, &question)? {
                return Err(Failure::new(Kind::Interrupted, what, "you said no"));
            }
            let call = Call::new("DeleteFunctionVersion", "DELETE", path(name, &format!("versions/{}", segment(version))));
            client.send(&what, call)?;
            output.note(&format!("removed version {version} of {name}"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn run_alias(client: &Client, output: &Output, command: &AliasCommand) -> Result<ExitCode, Failure> {
    match command {
        AliasCommand::Ls { name } => {
            let path = path(name, "aliases");
            let call = |token| Call::new("ListAliases", "GET", path.clone()).query("limit", Some(100)).query("nextToken", token);
            let aliases = client.list(&format!("cannot list the aliases of '{name}'"), "aliases", usize::MAX, call)?;
            if aliases.is_empty() && output.format == Format::Table {
                output.note(&format!("'{name}' has no aliases; make one with 'dunlin alias set {name} ALIAS VERSION'"));
                return Ok(ExitCode::SUCCESS);
            }
            output.list(
                &aliases,
                "aliasName",
                &[
                    ("ALIAS", &|alias| text(&alias["aliasName"])),
                    ("TRAFFIC", &traffic_of),
                    ("CHANGED", &|alias| text(&alias["lastModifiedTime"])),
                    ("DESCRIPTION", &|alias| text(&alias["description"])),
                ],
            );
        }
        AliasCommand::Get { name, alias } => {
            show(output, &get(client, &format!("cannot show alias '{alias}' of '{name}'"), name, alias)?, "aliasName");
        }
        AliasCommand::Set { name, alias, version, description } => {
            let mut body = json!({ "versionId": number(version), "additionalVersionWeight": {} });
            if let Some(description) = description {
                body["description"] = json!(description);
            }
            put(client, output, name, alias, body)?;
        }
        AliasCommand::Rm { name, alias, yes } => {
            let what = format!("cannot remove alias '{alias}' of '{name}'");
            if !yes && !confirmed(&what, &format!("Remove alias '{alias}' of '{name}'? [y/N] "))? {
                return Err(Failure::new(Kind::Interrupted, what, "you said no"));
            }
            client.send(&what, Call::new("DeleteAlias", "DELETE", path(name, &format!("aliases/{}", segment(alias)))))?;
            output.note(&format!("removed alias {alias} of {name}"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows or sets how an alias shares its calls between versions.
pub(crate) fn traffic(client: &Client, output: &Output, traffic: &Traffic) -> Result<ExitCode, Failure> {
    let (name, alias) = (&traffic.name, &traffic.alias);
    let what = format!("cannot share the calls of '{name}'");
    if traffic.shares.is_empty() {
        let shown = get(client, &format!("cannot show the traffic of '{name}'"), name, alias);
        let next = |failure: Failure| failure.next(format!("dunlin traffic {name} v1=100 --alias {alias}"));
        show(output, &shown.map_err(next)?, "aliasName");
        return Ok(ExitCode::SUCCESS);
    }
    let body = shares(&traffic.shares).map_err(|why| Failure::usage(what, why).next("for example v3=90 v4=10"))?;
    put(client, output, name, alias, body)?;
    Ok(ExitCode::SUCCESS)
}

/// `v3=90 v4=10` as an alias: the larger share is the alias's own version.
fn shares(given: &[(String, f64)]) -> Result<Value, String> {
    let total: f64 = given.iter().map(|(_, percent)| percent).sum();
    if (total - 100.0).abs() > 1e-6 {
        return Err(format!("the shares add up to {total} percent, not to 100"));
    }
    let mut shares: Vec<_> = given.iter().filter(|(_, percent)| *percent > 0.0).collect();
    shares.sort_by(|one, other| other.1.total_cmp(&one.1));
    match shares[..] {
        [(version, _)] => Ok(json!({ "versionId": number(version), "additionalVersionWeight": {} })),
        [(version, _), (other, percent)] => {
            Ok(json!({ "versionId": number(version), "additionalVersionWeight": { number(other): percent / 100.0 } }))
        }
        _ => Err("calls can be shared between two versions".to_owned()),
    }
}

/// Points an alias back to the version before the one it points to.
pub(crate) fn rollback(client: &Client, output: &Output, rollback: &Rollback) -> Result<ExitCode, Failure> {
    let (name, alias) = (&rollback.name, &rollback.alias);
    let what = format!("cannot roll back '{name}'");
    let current = get(client, &what, name, alias).map_err(|failure| failure.next(format!("dunlin alias ls {name}")))?;
    let to = match &rollback.to {
        Some(version) => number(version).to_owned(),
        None => {
            let now: u64 = current["versionId"].as_str().and_then(|id| id.parse().ok()).unwrap_or(0);
            let before = versions(client, name)?
                .iter()
                .filter_map(|version| version["versionId"].as_str()?.parse::<u64>().ok())
                .filter(|id| *id < now)
                .max();
            let none = || {
                Failure::new(
                    Kind::Conflict,
                    what.clone(),
                    format!("'{alias}' points to version {now}, and there is none before it"),
                )
                .next(format!("dunlin version ls {name}"))
            };
            before.ok_or_else(none)?.to_string()
        }
    };
    put(client, output, name, alias, json!({ "versionId": to, "additionalVersionWeight": {} }))?;
    Ok(ExitCode::SUCCESS)
}

fn versions(client: &Client, name: &str) -> Result<Vec<Value>, Failure> {
    let path = path(name, "versions");
    let call = |token| Call::new("ListFunctionVersions", "GET", path.clone()).query("limit", Some(100)).query("nextToken", token);
    client.list(&format!("cannot list the versions of '{name}'"), "versions", usize::MAX, call)
}

fn get(client: &Client, what: &str, name: &str, alias: &str) -> Result<Value, Failure> {
    client.json(what, Call::new("GetAlias", "GET", path(name, &format!("aliases/{}", segment(alias)))))
}

/// Whether the function has the alias. A function that is missing is told by what comes next.
fn exists(client: &Client, what: &str, name: &str, alias: &str) -> Result<bool, Failure> {
    match get(client, what, name, alias) {
        Ok(_) => Ok(true),
        Err(failure) if failure.kind == Kind::NotFound => Ok(false),
        Err(failure) => Err(failure),
    }
}

/// Changes the alias, or creates it.
fn put(client: &Client, output: &Output, name: &str, alias: &str, mut body: Value) -> Result<(), Failure> {
    let what = format!("cannot set alias '{alias}' of '{name}'");
    let call = if exists(client, &what, name, alias)? {
        Call::new("UpdateAlias", "PUT", path(name, &format!("aliases/{}", segment(alias))))
    } else {
        body["aliasName"] = json!(alias);
        Call::new("CreateAlias", "POST", path(name, "aliases"))
    };
    let changed = client.json(&what, call.json(&body))?;
    output.note(&format!("{name}:{alias} is served by {}", traffic_of(&changed)));
    if output.is_json() {
        output.json(&changed);
    }
    Ok(())
}

/// People write `v3`, the platform `3`.
fn number(version: &str) -> &str {
    version.strip_prefix('v').unwrap_or(version)
}

/// `v3 90%, v4 10%`.
fn traffic_of(alias: &Value) -> String {
    let additional = alias["additionalVersionWeight"].as_object().cloned().unwrap_or_default();
    let other: Option<(String, f64)> = additional.iter().find_map(|(id, weight)| Some((id.clone(), weight.as_f64()?)));
    let own = text(&alias["versionId"]);
    let percent = |share: f64| format!("{}%", (share * 10_000.0).round() / 100.0);
    match other {
        None => format!("v{own} 100%"),
        Some((id, weight)) => format!("v{own} {}, v{} {}", percent(1.0 - weight), crate::output::printable(&id), percent(weight)),
    }
}

/// Shows the members of one thing.
pub(crate) fn show(output: &Output, thing: &Value, name: &str) {
    match output.format {
        Format::Json => output.json(thing),
        Format::Name => output.line(&text(&thing[name])),
        Format::Table => {
            let members: Vec<_> = thing
                .as_object()
                .into_iter()
                .flatten()
                .filter(|(_, value)| !value.is_null() && **value != "")
                .map(|(name, value)| (name.as_str(), text(value)))
                .collect();
            output.members(&members);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_an_alias() {
        let shares =
            |given: &[(&str, f64)]| shares(&given.iter().map(|(id, share)| ((*id).to_owned(), *share)).collect::<Vec<_>>());
        assert_eq!(shares(&[("v3", 10.0), ("v4", 90.0)]), Ok(json!({"versionId": "4", "additionalVersionWeight": {"3": 0.1}})));
        assert_eq!(shares(&[("5", 100.0)]), Ok(json!({"versionId": "5", "additionalVersionWeight": {}})));
        assert_eq!(shares(&[("5", 100.0), ("6", 0.0)]), Ok(json!({"versionId": "5", "additionalVersionWeight": {}})));
        assert!(shares(&[("1", 50.0), ("2", 40.0)]).unwrap_err().contains("90"));
        assert!(shares(&[("1", 50.0), ("2", 25.0), ("3", 25.0)]).unwrap_err().contains("two"));
    }

    #[test]
    fn traffic_is_shown_in_percent() {
        assert_eq!(traffic_of(&json!({"versionId": "3"})), "v3 100%");
        assert_eq!(traffic_of(&json!({"versionId": "3", "additionalVersionWeight": {"4": 0.1}})), "v3 90%, v4 10%");
    }
}
