//! Versions, aliases, and what a qualifier means wherever one is taken.

use serde_json::{Value, json};

use crate::rig::Rig;

async fn publish(rig: &Rig, description: &str) -> Value {
    let reply = rig.ask("POST", "/functions/f/versions", json!({ "description": description })).await;
    assert_eq!(reply.status, 200, "{}", reply.json());
    reply.json()
}

async fn with_versions(count: usize) -> Rig {
    let rig = Rig::new().await;
    rig.create("f", b"zip").await;
    for number in 1..=count {
        let changed = rig.ask("PUT", "/functions/f", json!({ "timeout": number })).await;
        assert_eq!(changed.status, 200, "{}", changed.json());
        publish(&rig, &format!("v{number}")).await;
    }
    rig
}

#[tokio::test]
async fn a_version_keeps_what_the_function_was() {
    let rig = Rig::new().await;
    rig.create("f", b"zip").await;
    let first = publish(&rig, "first").await;
    assert_eq!((&first["versionId"], &first["description"]), (&json!("1"), &json!("first")));
    assert!(first["createdTime"].is_string() && first["lastModifiedTime"] == first["createdTime"], "{first}");
    rig.ask("PUT", "/functions/f", json!({"timeout": 9, "code": {"zipFile": "YWJj"}})).await;
    assert_eq!(publish(&rig, "").await["versionId"], "2");

    let head = rig.ask("GET", "/functions/f?qualifier=LATEST", Value::Null).await.json();
    let old = rig.ask("GET", "/functions/f?qualifier=1", Value::Null).await.json();
    assert_eq!((&head["timeout"], &old["timeout"]), (&json!(9), &json!(3)));
    assert_ne!(head["codeChecksum"], old["codeChecksum"]);
    assert_eq!(head["functionArn"], "acs:fc:cn-hangzhou:0000000000000001:functions/f");
    assert_eq!(old["functionArn"], "acs:fc:cn-hangzhou:0000000000000001:functions/f/1");
    let link = rig.ask("GET", "/functions/f/code?qualifier=1", Value::Null).await.json();
    assert_eq!(link["checksum"], old["codeChecksum"]);
    let path = link["url"].as_str().unwrap().trim_start_matches("http://127.0.0.1:7900").to_owned();
    assert_eq!(&rig.raw("GET", &path, &[], b"").await.bytes[..], b"zip");

    // The older code is used by the version alone, and goes with it.
    assert_eq!(rig.control.reconcile().await.unwrap(), 0);
    assert_eq!(rig.kept().await, (2, 2));
    assert_eq!(rig.ask("DELETE", "/functions/f/versions/1", Value::Null).await.status, 204);
    rig.control.reconcile().await.unwrap();
    assert_eq!(rig.kept().await, (1, 1));
    assert_eq!(rig.ask("GET", "/functions/f?qualifier=1", Value::Null).await.refused(404).0, "VersionNotFound");
    assert_eq!(rig.ask("DELETE", "/functions/f/versions/1", Value::Null).await.refused(404).0, "VersionNotFound");
    assert_eq!(publish(&rig, "").await["versionId"], "3", "no number is used twice");
    assert_eq!(rig.ask("DELETE", "/functions/f", Value::Null).await.status, 204);
    rig.control.reconcile().await.unwrap();
    assert_eq!(rig.kept().await, (0, 0));
}

#[tokio::test]
async fn versions_are_listed_in_both_directions_by_pages() {
    let rig = with_versions(5).await;
    for (direction, expected) in
        [("", ["5", "4", "3", "2", "1"]), ("BACKWARD", ["5", "4", "3", "2", "1"]), ("FORWARD", ["1", "2", "3", "4", "5"])]
    {
        let (mut seen, mut token) = (Vec::new(), String::new());
        loop {
            let path = format!("/functions/f/versions?direction={direction}&limit=2&nextToken={token}");
            let page = rig.ask("GET", &path, Value::Null).await.json();
            assert_eq!(page["direction"], if direction.is_empty() { "BACKWARD" } else { direction });
            seen.extend(page["versions"].as_array().unwrap().iter().map(|version| version["versionId"].clone()));
            match page["nextToken"].as_str() {
                Some(next) => token = next.to_owned(),
                None => break,
            }
        }
        assert_eq!(seen, expected, "{direction}");
    }
    let newest = rig.ask("GET", "/functions/f/versions?limit=1", Value::Null).await.json();
    assert_eq!(newest["versions"][0]["versionId"], "5");
    let token = newest["nextToken"].as_str().unwrap();
    for (query, field) in [
        ("direction=SIDEWAYS".to_owned(), "direction"),
        ("limit=0".to_owned(), "limit"),
        ("limit=101".to_owned(), "limit"),
        ("nextToken=x".to_owned(), "nextToken"),
        (format!("direction=FORWARD&nextToken={token}"), "nextToken"),
    ] {
        let (code, message) = rig.ask("GET", &format!("/functions/f/versions?{query}"), Value::Null).await.refused(400);
        assert!(code == "InvalidArgument" && message.starts_with(field), "{query}: {message}");
    }
}

#[tokio::test]
async fn an_alias_lives() {
    let rig = with_versions(2).await;
    let created = rig
        .ask(
            "POST",
            "/functions/f/aliases",
            json!({"aliasName": "prod", "versionId": "1", "additionalVersionWeight": {"2": 0.1}}),
        )
        .await
        .json();
    assert_eq!(
        (&created["aliasName"], &created["versionId"], &created["additionalVersionWeight"]),
        (&json!("prod"), &json!("1"), &json!({"2": 0.1})),
        "{created}"
    );
    assert_eq!(rig.ask("GET", "/functions/f/aliases/prod", Value::Null).await.json(), created);
    let again = rig.ask("POST", "/functions/f/aliases", json!({"aliasName": "prod", "versionId": "1"})).await;
    assert_eq!(again.refused(409).0, "AliasAlreadyExists");
    let updated = rig.ask("PUT", "/functions/f/aliases/prod", json!({"description": "d"})).await.json();
    assert_eq!(
        (&updated["description"], &updated["additionalVersionWeight"]),
        (&json!("d"), &json!({"2": 0.1})),
        "the rest stays"
    );
    let updated =
        rig.ask("PUT", "/functions/f/aliases/prod", json!({"versionId": "2", "additionalVersionWeight": {}})).await.json();
    assert_eq!(updated["versionId"], "2");
    assert!(updated.get("additionalVersionWeight").is_none(), "{updated}");
    assert_eq!(rig.ask("GET", "/functions/f?qualifier=prod", Value::Null).await.json()["timeout"], 2);

    for name in ["a", "b", "c"] {
        rig.ask("POST", "/functions/f/aliases", json!({"aliasName": name, "versionId": "1"})).await;
    }
    let page = rig.ask("GET", "/functions/f/aliases?limit=3", Value::Null).await.json();
    assert_eq!(page["aliases"].as_array().unwrap().len(), 3);
    let rest = format!("/functions/f/aliases?limit=3&nextToken={}", page["nextToken"].as_str().unwrap());
    let rest = rig.ask("GET", &rest, Value::Null).await.json();
    assert_eq!((&rest["aliases"], rest.get("nextToken")), (&json!([updated]), None));
    let few = rig.ask("GET", "/functions/f/aliases?prefix=b", Value::Null).await.json();
    assert_eq!(few["aliases"][0]["aliasName"], "b");

    assert_eq!(rig.ask("DELETE", "/functions/f/versions/2", Value::Null).await.status, 204, "an alias does not hold it");
    assert_eq!(rig.ask("GET", "/functions/f/aliases/prod", Value::Null).await.json(), updated);
    let gone = rig.ask("POST", "/functions/f/invocations?qualifier=prod", Value::Null).await;
    let (code, message) = gone.refused(404);
    assert!(code == "VersionNotFound" && message.contains("'2'"), "{message}");
    assert_eq!(rig.ask("DELETE", "/functions/f/aliases/prod", Value::Null).await.status, 204);
    assert_eq!(rig.ask("DELETE", "/functions/f/aliases/prod", Value::Null).await.refused(404).0, "AliasNotFound");
}

#[tokio::test]
async fn a_wrong_alias_is_refused_by_the_member_that_is_wrong() {
    let rig = with_versions(3).await;
    let base = json!({"aliasName": "prod", "versionId": "1"});
    for (member, value, status, code, named) in [
        ("aliasName", json!(null), 400, "InvalidArgument", "aliasName"),
        ("aliasName", json!(""), 400, "InvalidArgument", "aliasName"),
        ("aliasName", json!("LATEST"), 400, "InvalidArgument", "aliasName"),
        ("aliasName", json!("1"), 400, "InvalidArgument", "aliasName"),
        ("aliasName", json!("-a"), 400, "InvalidArgument", "aliasName"),
        ("aliasName", json!("a/b"), 400, "InvalidArgument", "aliasName"),
        ("aliasName", json!("ä"), 400, "InvalidArgument", "aliasName"),
        ("aliasName", json!("x".repeat(129)), 400, "InvalidArgument", "aliasName"),
        ("versionId", json!(null), 400, "InvalidArgument", "versionId"),
        ("versionId", json!("LATEST"), 400, "InvalidArgument", "versionId"),
        ("versionId", json!("01"), 400, "InvalidArgument", "versionId"),
        ("versionId", json!(1), 400, "InvalidArgument", "versionId"),
        ("versionId", json!("18446744073709551616"), 400, "InvalidArgument", "versionId"),
        ("versionId", json!("9"), 404, "VersionNotFound", "version '9'"),
        ("description", json!("x".repeat(257)), 400, "InvalidArgument", "description"),
        ("additionalVersionWeight", json!({"1": 0.5}), 400, "AdditionalVersionContainsMajorVersion", "additionalVersionWeight"),
        ("additionalVersionWeight", json!({"9": 0.5}), 404, "VersionNotFound", "version '9'"),
        ("additionalVersionWeight", json!({"2": 0.5, "3": 0.5}), 400, "InvalidArgument", "additionalVersionWeight"),
        ("additionalVersionWeight", json!({"x": 0.5}), 400, "InvalidArgument", "additionalVersionWeight"),
        ("additionalVersionWeight", json!({"2": 1.01}), 400, "InvalidArgument", "additionalVersionWeight.2"),
        ("additionalVersionWeight", json!({"2": -0.1}), 400, "InvalidArgument", "additionalVersionWeight.2"),
        ("additionalVersionWeight", json!({"2": "0.5"}), 400, "InvalidArgument", "additionalVersionWeight.2"),
        ("additionalVersionWeight", json!([0.5]), 400, "InvalidArgument", "additionalVersionWeight"),
    ] {
        let mut body = base.clone();
        body[member] = value.clone();
        let refused = rig.ask("POST", "/functions/f/aliases", body).await.refused(status);
        assert!(refused.0 == code && refused.1.starts_with(named), "{member} {value}: {refused:?}");
    }
    for text in [r#"{"2":NaN}"#, r#"{"2":1e999}"#, r#"{"2":0.1,"2":0.2}"#] {
        let body = format!(r#"{{"aliasName":"prod","versionId":"1","additionalVersionWeight":{text}}}"#);
        let refused = rig.signed(1, "POST", "/functions/f/aliases", &[], body.as_bytes()).await.refused(400);
        assert!(refused.1.starts_with("additionalVersionWeight"), "{text}: {refused:?}");
    }
    assert_eq!(
        rig.ask("GET", "/functions/f/aliases", Value::Null).await.json(),
        json!({"aliases": []}),
        "nothing of it happened"
    );
}

#[tokio::test]
async fn a_call_says_which_version_it_met_and_an_alias_shares_its_calls_by_weight() {
    let rig = with_versions(2).await;
    let alias = json!({"aliasName": "prod", "versionId": "1", "additionalVersionWeight": {"2": 0.3}});
    rig.ask("POST", "/functions/f/aliases", alias).await;
    let version = async |qualifier: &str| {
        let reply = rig.ask("POST", &format!("/functions/f/invocations?qualifier={qualifier}"), Value::Null).await;
        assert_eq!(reply.status, 200, "{qualifier}");
        reply.header("x-fc-invocation-service-version").to_owned()
    };
    assert_eq!(version("").await, "LATEST");
    assert_eq!(version("LATEST").await, "LATEST");
    assert_eq!(version("2").await, "2");
    let mut second = 0;
    for _ in 0..10_000 {
        second += u32::from(version("prod").await == "2");
    }
    // Six standard deviations of a binomial distribution of 10,000 at 0.3: chance alone fails this once in a billion runs.
    eprintln!("of 10000 calls of an alias with weight 0.3, {second} met the second version");
    assert!(3000_u32.abs_diff(second) <= 275, "{second}");
    for (weight, expected) in [(0.0, "1"), (1.0, "2")] {
        let body = json!({"additionalVersionWeight": {"2": weight}});
        assert_eq!(rig.ask("PUT", "/functions/f/aliases/prod", body).await.status, 200);
        for _ in 0..20 {
            assert_eq!(version("prod").await, expected);
        }
    }
}

#[tokio::test]
async fn a_trigger_may_call_a_version_or_an_alias_each_of_which_has_one() {
    let rig = with_versions(2).await;
    rig.ask("POST", "/functions/f/aliases", json!({"aliasName": "prod", "versionId": "1"})).await;
    let trigger = |name: &str, qualifier: &str| json!({"triggerName": name, "triggerType": "http", "qualifier": qualifier, "triggerConfig": "{\"methods\":[\"GET\"]}"});
    for (name, qualifier) in [("head", "LATEST"), ("first", "1"), ("prod", "prod")] {
        let made = rig.ask("POST", "/functions/f/triggers", trigger(name, qualifier)).await.json();
        assert_eq!(made["qualifier"], qualifier, "{made}");
        assert!(qualifier == "LATEST" || made["targetArn"].as_str().unwrap().ends_with(&format!("/{qualifier}")), "{made}");
    }
    assert_eq!(rig.ask("POST", "/functions/f/triggers", trigger("x", "1")).await.refused(409).0, "TriggerAlreadyExists");
    assert_eq!(rig.ask("POST", "/functions/f/triggers", trigger("x", "9")).await.refused(404).0, "VersionNotFound");
    assert_eq!(rig.ask("POST", "/functions/f/triggers", trigger("x", "test")).await.refused(404).0, "AliasNotFound");
    let taken = rig.ask("PUT", "/functions/f/triggers/first", json!({"qualifier": "prod"})).await;
    assert_eq!(taken.refused(409).0, "TriggerAlreadyExists");
    let moved = rig.ask("PUT", "/functions/f/triggers/first", json!({"qualifier": "2"})).await.json();
    assert_eq!(moved["qualifier"], "2");
    assert_eq!(rig.ask("DELETE", "/functions/f/versions/2", Value::Null).await.status, 204, "a trigger does not hold it");
    assert_eq!(rig.ask("GET", "/functions/f/triggers/first", Value::Null).await.json()["qualifier"], "2");
}

#[tokio::test]
async fn instances_of_a_version_retire_alone() {
    let rig = with_versions(1).await;
    let retired = |rig: &Rig| std::mem::take(&mut *rig.pool.retired.lock().unwrap());
    retired(&rig);
    rig.ask("PUT", "/functions/f", json!({"description": "only words"})).await;
    assert_eq!(retired(&rig), Vec::<String>::new(), "no instance can see a description");
    rig.ask("PUT", "/functions/f", json!({"timeout": 77})).await;
    assert_eq!(retired(&rig), ["f/LATEST"]);
    publish(&rig, "").await;
    assert_eq!(retired(&rig), Vec::<String>::new());
    rig.ask("DELETE", "/functions/f/versions/1", Value::Null).await;
    assert_eq!(retired(&rig), ["f/1"]);
    for (qualifier, count) in [("LATEST", 1), ("2", 0)] {
        let listed = rig.ask("GET", &format!("/functions/f/instances?qualifier={qualifier}"), Value::Null).await.json();
        assert_eq!(listed["instances"].as_array().unwrap().len(), count, "{qualifier}");
    }
    assert_eq!(rig.ask("GET", "/functions/f/instances?qualifier=9", Value::Null).await.refused(404).0, "VersionNotFound");
}
