//! What the platform has of a resource.

use dunlin_project::plan::{Found, FoundFunction};
use dunlin_project::{Content, Domain, Function, KeepingKind, Resource, Version};
use serde_json::Value;

use crate::client::{Call, Client, segment};
use crate::failure::{Failure, Kind};
use crate::{functions, layers};

pub(super) fn find(client: &Client, resource: &Resource) -> Result<Found, Failure> {
    match &resource.content {
        Content::Layer(layer) => match layers::versions(client, &layer.name) {
            Err(failure) if failure.kind == Kind::NotFound => Ok(Found::Layer(Vec::new())),
            versions => versions.map(Found::Layer),
        },
        Content::Function(function) => find_function(client, function).map(|found| Found::Function(Box::new(found))),
        Content::Domain(domain) => find_domain(client, domain).map(Found::Domain),
    }
}

fn find_domain(client: &Client, domain: &Domain) -> Result<Option<Value>, Failure> {
    let call = Call::new("GetCustomDomain", "GET", format!("/custom-domains/{}", segment(&domain.name)));
    if_there(client.json(&format!("cannot look up domain '{}'", domain.name), call))
}

fn find_function(client: &Client, function: &Function) -> Result<FoundFunction, Failure> {
    let name = &function.name;
    let domain = match &function.domain {
        Some(domain) => find_domain(client, domain)?,
        None => None,
    };
    // A name that is not known yet is nobody's.
    let there = if name.contains("${") { None } else { functions::find(client, name)? };
    if there.is_none() {
        return Ok(FoundFunction { domain, ..FoundFunction::default() });
    }
    let path = format!("/functions/{}", segment(name));
    let listed = |action: &'static str, path: String, member: &str, of: Option<&str>| {
        let of = of.map(str::to_owned);
        let call = move |token| {
            Call::new(action, "GET", path.clone())
                .query("limit", Some(100))
                .query("functionName", of.clone())
                .query("nextToken", token)
        };
        client.list(&format!("cannot look up '{name}'"), member, usize::MAX, call)
    };
    let reserved = Call::new("GetConcurrencyConfig", "GET", format!("{path}/concurrency"));
    let reserved = if_there(client.json(&format!("cannot look up the reserved instances of '{name}'"), reserved))?;
    let mut keepings = Vec::new();
    for (kind, action, list, member) in [
        (KeepingKind::Provision, "ListProvisionConfigs", "/provision-configs", "provisionConfigs"),
        (KeepingKind::Scaling, "ListScalingConfigs", "/scaling-configs", "scalingConfigs"),
        (KeepingKind::AsyncInvoke, "ListAsyncInvokeConfigs", "/async-invoke-configs", "configs"),
    ] {
        for config in listed(action, list.to_owned(), member, Some(name))? {
            // The list also has those of functions whose names begin like this one's.
            let arn = config["functionArn"].as_str().unwrap_or_default();
            let of = arn.split_once("functions/").map_or("", |(_, of)| of);
            if let Some((_, qualifier)) = of.split_once('/').filter(|(function, _)| function == name) {
                keepings.push((kind, qualifier.to_owned(), config));
            }
        }
    }
    Ok(FoundFunction {
        function: there,
        newest: newest(client, function, &path)?,
        aliases: listed("ListAliases", format!("{path}/aliases"), "aliases", None)?,
        triggers: functions::triggers(client, name)?,
        reserved_concurrency: reserved.and_then(|config| config.get("reservedConcurrency").cloned()),
        keepings,
        domain,
    })
}

/// The newest version and what it holds, when an alias wants to know.
fn newest(client: &Client, function: &Function, path: &str) -> Result<Option<(String, Value)>, Failure> {
    if !function.aliases.iter().flatten().any(|alias| alias.version == Version::Newest) {
        return Ok(None);
    }
    let what = format!("cannot look up the versions of '{}'", function.name);
    let call = Call::new("ListFunctionVersions", "GET", format!("{path}/versions")).query("limit", Some(1));
    let versions = client.json(&what, call)?;
    let Some(id) = versions["versions"][0]["versionId"].as_str().map(str::to_owned) else { return Ok(None) };
    let call = Call::new("GetFunction", "GET", path).query("qualifier", Some(&id));
    Ok(if_there(client.json(&what, call))?.map(|then| (id, then)))
}

fn if_there(answer: Result<Value, Failure>) -> Result<Option<Value>, Failure> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(failure) if failure.kind == Kind::NotFound => Ok(None),
        Err(failure) => Err(failure),
    }
}
