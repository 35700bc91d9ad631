//! Whether two values mean the same, and where they do not.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Difference;

/// Members whose values are not for everybody's eyes, with all that is in them.
const SECRETS: [&str; 6] = ["environmentVariables", "privateKey", "password", "authConfig", "authInfo", "registryConfig"];

/// Whether nobody could tell the values apart: numbers count as numbers, and what is empty as absent.
pub(super) fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one.as_f64() == other.as_f64(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            let names: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
            names.into_iter().all(|name| same(one.get(name).unwrap_or(&Value::Null), other.get(name).unwrap_or(&Value::Null)))
        }
        _ => one == other || is_empty(one) && is_empty(other),
    }
}

pub(super) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.values().all(is_empty),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Adds what differs between `old` and `new` at `path`, members of members one by one.
pub(super) fn difference(path: &str, old: Option<&Value>, new: Option<&Value>, into: &mut Vec<Difference>) {
    let (old, new) = (old.unwrap_or(&Value::Null), new.unwrap_or(&Value::Null));
    if same(old, new) {
        return;
    }
    let members = |value: &Value| value.as_object().map(|members| members.keys().cloned().collect::<BTreeSet<_>>());
    match (members(old), members(new)) {
        (Some(one), Some(other)) => {
            for name in one.union(&other) {
                difference(&format!("{path}.{name}"), old.get(name), new.get(name), into);
            }
        }
        (Some(names), None) if is_empty(new) => {
            for name in names {
                difference(&format!("{path}.{name}"), old.get(&name), None, into);
            }
        }
        (None, Some(names)) if is_empty(old) => {
            for name in names {
                difference(&format!("{path}.{name}"), None, new.get(&name), into);
            }
        }
        _ => {
            let said = |value: &Value| Some(value.clone()).filter(|value| !value.is_null());
            let secret = path.split('.').any(|segment| SECRETS.contains(&segment));
            into.push(Difference { path: path.to_owned(), old: said(old), new: said(new), secret });
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_empty_is_absent_and_numbers_are_numbers() {
        for (one, other) in [
            (json!({}), json!(null)),
            (json!({ "a": [], "b": "" }), json!({})),
            (json!({ "a": { "b": null } }), json!({ "c": {} })),
            (json!(1), json!(1.0)),
            (json!([{ "a": 1 }]), json!([{ "a": 1.0, "b": "" }])),
        ] {
            assert!(same(&one, &other), "{one} {other}");
        }
        for (one, other) in
            [(json!(false), json!(null)), (json!(0), json!(null)), (json!([1, 2]), json!([2, 1])), (json!("1"), json!(1))]
        {
            assert!(!same(&one, &other), "{one} {other}");
        }
    }

    #[test]
    fn differences_are_told_member_by_member_and_secrets_are_marked() {
        let mut found = Vec::new();
        let old = json!({ "A": "1", "B": "2" });
        let new = json!({ "B": "3", "C": "4" });
        difference("environmentVariables", Some(&old), Some(&new), &mut found);
        let told: Vec<_> = found.iter().map(|member| (member.path.as_str(), member.old.clone(), member.new.clone())).collect();
        let expected = [
            ("environmentVariables.A", Some(json!("1")), None),
            ("environmentVariables.B", Some(json!("2")), Some(json!("3"))),
            ("environmentVariables.C", None, Some(json!("4"))),
        ];
        assert_eq!(told, expected);
        assert!(found.iter().all(|member| member.secret));
    }
}
