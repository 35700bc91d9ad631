//! `dunlin domain`.

use std::path::Path;
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::args::{DomainCommand, DomainSet, Format};
use crate::client::{Call, Client, segment};
use crate::failure::{Failure, Kind};
use crate::functions::confirmed;
use crate::output::{Output, text};
use crate::versions::show;

fn path(name: &str) -> String {
    format!("/custom-domains/{}", segment(name))
}

pub(crate) fn run(client: &Client, output: &Output, command: &DomainCommand) -> Result<ExitCode, Failure> {
    match command {
        DomainCommand::Ls { prefix } => {
            let call = |token| {
                let call = Call::new("ListCustomDomains", "GET", "/custom-domains".to_owned()).query("limit", Some(100));
                call.query("prefix", prefix.as_ref()).query("nextToken", token)
            };
            let domains = client.list("cannot list the custom domains", "customDomains", usize::MAX, call)?;
            if domains.is_empty() && output.format == Format::Table {
                output.note("there are no custom domains; make one with 'dunlin domain set NAME --route /*=FUNCTION'");
                return Ok(ExitCode::SUCCESS);
            }
            output.list(
                &domains,
                "domainName",
                &[
                    ("DOMAIN", &|domain| text(&domain["domainName"])),
                    ("PROTOCOL", &|domain| text(&domain["protocol"])),
                    ("CALLERS", &|domain| match &domain["authConfig"]["authType"] {
                        Value::Null => "anonymous".to_owned(),
                        who => text(who),
                    }),
                    ("ROUTES", &routes_of),
                    ("CHANGED", &|domain| text(&domain["lastModifiedTime"])),
                ],
            );
        }
        DomainCommand::Get { name } => {
            let what = format!("cannot show domain '{name}'");
            let domain = client.json(&what, Call::new("GetCustomDomain", "GET", path(name))).map_err(elsewhere)?;
            show(output, &domain, "domainName");
        }
        DomainCommand::Set(set) => put(client, output, set)?,
        DomainCommand::Rm { name, yes } => {
            let what = format!("cannot remove domain '{name}'");
            if !yes && !confirmed(&what, &format!("Remove domain '{name}'? Its host will answer no more. [y/N] "))? {
                return Err(Failure::new(Kind::Interrupted, what, "you said no"));
            }
            client.send(&what, Call::new("DeleteCustomDomain", "DELETE", path(name))).map_err(elsewhere)?;
            output.note(&format!("removed domain {name}"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Where to look for what is not there.
fn elsewhere(failure: Failure) -> Failure {
    if failure.kind == Kind::NotFound { failure.next("dunlin domain ls") } else { failure }
}

/// Changes the domain, or creates it.
fn put(client: &Client, output: &Output, set: &DomainSet) -> Result<(), Failure> {
    let name = &set.name;
    let what = format!("cannot set domain '{name}'");
    let mut body = body_of(set, &what)?;
    let call = match client.json(&what, Call::new("GetCustomDomain", "GET", path(name))) {
        Ok(_) => Call::new("UpdateCustomDomain", "PUT", path(name)),
        Err(failure) if failure.kind == Kind::NotFound => {
            body["domainName"] = json!(name);
            if body["protocol"].is_null() {
                body["protocol"] = json!(if set.cert.is_some() { "HTTP,HTTPS" } else { "HTTP" });
            }
            Call::new("CreateCustomDomain", "POST", "/custom-domains".to_owned())
        }
        Err(failure) => return Err(failure),
    };
    let changed = client.json(&what, call.json(&body))?;
    output.note(&format!("{name} ({}): {}", text(&changed["protocol"]), routes_of(&changed)));
    if output.is_json() {
        output.json(&changed);
    }
    Ok(())
}

/// The members that were given.
fn body_of(set: &DomainSet, what: &str) -> Result<Value, Failure> {
    let mut body = json!({});
    let read = |path: &Path| {
        std::fs::read_to_string(path)
            .map_err(|error| Failure::new(Kind::Usage, what, format!("cannot read {}: {error}", path.display())))
    };
    let parsed = |path: &Path| -> Result<Value, Failure> {
        serde_json::from_str(&read(path)?)
            .map_err(|error| Failure::new(Kind::Usage, what, format!("{} is not JSON: {error}", path.display())))
    };
    let mut routes: Vec<Value> = set.routes.iter().map(|(path, function)| route(path, function)).collect();
    if let Some(path) = &set.route_file {
        let Value::Array(more) = parsed(path)? else {
            return Err(Failure::new(Kind::Usage, what, format!("{} is not a list of routes", path.display())));
        };
        routes.extend(more);
    }
    if !routes.is_empty() {
        body["routeConfig"] = json!({ "routes": routes });
    }
    if let Some(protocol) = &set.protocol {
        body["protocol"] = json!(protocol);
    }
    if let (Some(certificate), Some(key)) = (&set.cert, &set.key) {
        body["certConfig"] = json!({ "certificate": read(certificate)?, "privateKey": read(key)? });
    }
    if let Some(version) = &set.min_tls {
        body["tlsConfig"] = json!({ "minVersion": format!("TLSv{version}") });
    }
    if let Some(path) = &set.jwt {
        body["authConfig"] = json!({ "authType": "jwt", "authInfo": parsed(path)?.to_string() });
    } else if let Some(who) = set.callers {
        body["authConfig"] = json!({ "authType": who.as_str() });
    }
    Ok(body)
}

/// `FUNCTION` or `FUNCTION:QUALIFIER`.
fn route(path: &str, function: &str) -> Value {
    match function.split_once(':') {
        Some((function, qualifier)) => json!({ "path": path, "functionName": function, "qualifier": qualifier }),
        None => json!({ "path": path, "functionName": function }),
    }
}

/// `/api/* api:prod, /* web`.
fn routes_of(domain: &Value) -> String {
    let routes = domain["routeConfig"]["routes"].as_array().cloned().unwrap_or_default();
    let shown = routes.iter().map(|route| {
        let qualifier = route["qualifier"].as_str().filter(|qualifier| !qualifier.is_empty());
        let qualifier = qualifier.map(|qualifier| format!(":{}", crate::output::printable(qualifier))).unwrap_or_default();
        format!("{} {}{qualifier}", text(&route["path"]), text(&route["functionName"]))
    });
    let shown: Vec<String> = shown.collect();
    if shown.is_empty() { "no routes".to_owned() } else { shown.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_written_and_shown_alike() {
        let routes = [route("/api/*", "api:prod"), route("/*", "web")];
        assert_eq!(routes[0], json!({"path": "/api/*", "functionName": "api", "qualifier": "prod"}));
        assert_eq!(routes_of(&json!({"routeConfig": {"routes": routes}})), "/api/* api:prod, /* web");
        assert_eq!(routes_of(&json!({})), "no routes");
    }
}
