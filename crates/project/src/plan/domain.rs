//! The plan of a custom domain, or of a route that is put beside others.

use serde_json::{Map, Value, json};

use super::difference::{difference, is_empty};
use super::{Change, Operation, Verb, removed};
use crate::project::{Domain, Route};

pub(super) fn plan(domain: &Domain, found: Option<&Value>) -> Option<Change> {
    let routes = routes_after(domain, found);
    let mut members = Vec::new();
    let Some(now) = found else {
        let mut body = domain.config.clone();
        body.entry("protocol").or_insert_with(|| "HTTP".into());
        body.insert("routeConfig".to_owned(), json!({ "routes": routes }));
        for (member, value) in &body {
            difference(member, None, Some(value), &mut members);
        }
        body.insert("domainName".to_owned(), domain.name.clone().into());
        let operation = Operation::new("CreateCustomDomain", "POST", &["custom-domains"]).body(body);
        return Some(Change { verb: Verb::Add, kind: "domain", name: domain.name.clone(), members, operation: Some(operation) });
    };
    let mut wanted = domain.config.clone();
    if domain.whole {
        // What is not said any more is taken back, where the API has a way.
        wanted.entry("authConfig").or_insert_with(|| json!({ "authType": "anonymous" }));
        if now.get("certConfig").is_some_and(|cert| !is_empty(cert)) {
            wanted.entry("certConfig").or_insert_with(|| json!({}));
        }
    }
    let mut body = Map::new();
    for (member, value) in wanted {
        let differing = members.len();
        match member.as_str() {
            // The key is never shown; a certificate that stays has the key it had.
            "certConfig" => {
                let mut shown = value.clone();
                if let Value::Object(members) = &mut shown {
                    members.remove("privateKey");
                }
                difference(&member, now.get(&member), Some(&shown), &mut members);
            }
            "authConfig" => {
                let none = json!({ "authType": "anonymous" });
                let now = now.get(&member).filter(|auth| !is_empty(auth)).unwrap_or(&none);
                difference(&member, Some(now), Some(&value), &mut members);
            }
            _ => difference(&member, now.get(&member), Some(&value), &mut members),
        }
        if members.len() > differing {
            body.insert(member, value);
        }
    }
    let old: Value = in_order(found_routes(found)).into();
    let new: Value = in_order(routes.clone()).into();
    let differing = members.len();
    difference("routes", Some(&old), Some(&new), &mut members);
    if members.len() > differing {
        body.insert("routeConfig".to_owned(), json!({ "routes": routes }));
    }
    if members.is_empty() {
        return None;
    }
    let operation = Operation::new("UpdateCustomDomain", "PUT", &["custom-domains", &domain.name]).body(body);
    Some(Change { verb: Verb::Change, kind: "domain", name: domain.name.clone(), members, operation: Some(operation) })
}

/// The whole domain goes, or only its routes when others have some there.
pub(super) fn removal(domain: &Domain, found: Option<&Value>) -> Option<Change> {
    let now = found?;
    let is_ours = |route: &Route| domain.routes.iter().any(|own| leads_alike(own, route));
    let (own, rest): (Vec<Route>, Vec<Route>) = found_routes(Some(now)).into_iter().partition(is_ours);
    if domain.whole || rest.is_empty() {
        let operation = Operation::new("DeleteCustomDomain", "DELETE", &["custom-domains", &domain.name]);
        return Some(removed("domain", domain.name.clone(), operation));
    }
    if own.is_empty() {
        return None;
    }
    let mut members = Vec::new();
    difference("routes", Some(&in_order(found_routes(Some(now))).into()), Some(&in_order(rest.clone()).into()), &mut members);
    let body = json!({ "routeConfig": { "routes": rest } });
    let operation = Some(Operation::new("UpdateCustomDomain", "PUT", &["custom-domains", &domain.name]).body(body));
    Some(Change { verb: Verb::Change, kind: "domain", name: domain.name.clone(), members, operation })
}

/// All routes there shall be: of one that is not whole, those of the same path are replaced.
fn routes_after(domain: &Domain, found: Option<&Value>) -> Vec<Route> {
    if domain.whole {
        return domain.routes.clone();
    }
    let mut routes = found_routes(found);
    for own in &domain.routes {
        match routes.iter_mut().find(|route| route.get("path") == own.get("path")) {
            Some(route) => route.clone_from(own),
            None => routes.push(own.clone()),
        }
    }
    routes
}

fn found_routes(found: Option<&Value>) -> Vec<Route> {
    let routes = found.and_then(|domain| domain["routeConfig"]["routes"].as_array());
    routes.into_iter().flatten().filter_map(|route| route.as_object().cloned()).collect()
}

fn leads_alike(one: &Route, other: &Route) -> bool {
    ["path", "functionName"].iter().all(|member| one.get(*member) == other.get(*member))
}

/// Routes are looked up by what fits best, so that their order means nothing.
fn in_order(routes: Vec<Route>) -> Vec<Value> {
    let mut routes: Vec<Value> = routes
        .into_iter()
        .map(|mut route| {
            route.retain(|_, value| !is_empty(value));
            route.entry("qualifier").or_insert_with(|| "LATEST".into());
            route.into()
        })
        .collect();
    routes.sort_by_key(ToString::to_string);
    routes
}
