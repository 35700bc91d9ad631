//! Layers, and which functions may have them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dunlin_model::Crc64;
use serde_json::{Value, json};

use crate::rig::{BAD_ZIP, Received, Rig, function};

fn layer(zip: &[u8]) -> Value {
    json!({"code": {"zipFile": STANDARD.encode(zip)}})
}

async fn publish(rig: &Rig, name: &str, zip: &[u8]) -> Value {
    let reply = rig.ask("POST", &format!("/layers/{name}/versions"), layer(zip)).await;
    assert_eq!(reply.status, 200, "{}", reply.json());
    reply.json()
}

async fn create_with(rig: &Rig, account: u8, name: &str, layers: Value) -> Received {
    let mut body = function(name, b"zip");
    body["layers"] = layers;
    rig.signed(account, "POST", "/functions", &[], body.to_string().as_bytes()).await
}

fn escaped(arn: &Value) -> String {
    arn.as_str().unwrap().replace(':', "%3A").replace('/', "%2F")
}

#[tokio::test]
async fn a_layer_version_is_shown_whole_and_by_its_resource_name() {
    let rig = Rig::new().await;
    let mut body = layer(b"one");
    body["code"]["checksum"] = Crc64::of(b"one").to_string().into();
    body["description"] = "what it is".into();
    body["license"] = "MIT".into();
    body["compatibleRuntime"] = json!(["python3.10", "custom.debian12"]);
    let made = rig.ask("POST", "/layers/tools/versions", body).await;
    assert_eq!(made.status, 200, "{}", made.json());
    let mut made = made.json();
    let code = made["code"].take();
    let arn = "acs:fc:cn-hangzhou:0000000000000001:layers/tools/versions/1";
    let time = made["createTime"].take();
    assert!(time.as_str().unwrap().ends_with('Z'), "{time}");
    assert_eq!(
        made,
        json!({"layerName": "tools", "version": 1, "layerVersionArn": arn, "description": "what it is", "license": "MIT", "acl": "0",
            "compatibleRuntime": ["python3.10", "custom.debian12"], "codeSize": 3, "codeChecksum": Crc64::of(b"one").to_string(),
            "createTime": null, "code": null})
    );
    assert_eq!(code["repositoryType"], "OSS");
    let link = code["location"].as_str().unwrap().trim_start_matches("http://127.0.0.1:7900").to_owned();
    assert_eq!(&rig.raw("GET", &link, &[], b"").await.bytes[..], b"one");

    let arn_path = format!("/layerarn/{}", escaped(&json!(arn)));
    for path in ["/layers/tools/versions/1", arn_path.as_str()] {
        let mut got = rig.ask("GET", path, Value::Null).await.json();
        assert!(got["code"].take()["location"].is_string(), "{path}");
        assert_eq!(got["createTime"].take(), time, "{path}");
        assert_eq!(got, made, "{path}");
    }
    let plain = publish(&rig, "tools", b"two").await;
    assert_eq!((&plain["version"], &plain["description"]), (&json!(2), &json!("")));
    assert!(plain.get("license").is_none() && plain.get("compatibleRuntime").is_none(), "{plain}");
}

#[tokio::test]
async fn layers_and_versions_are_listed_by_pages() {
    let rig = Rig::new().await;
    for name in ["a-1", "a-2", "a-3", "b"] {
        publish(&rig, name, name.as_bytes()).await;
    }
    for n in 2..=5 {
        publish(&rig, "b", format!("b{n}").as_bytes()).await;
    }
    rig.signed(2, "POST", "/layers/a-other/versions", &[], layer(b"x").to_string().as_bytes()).await;
    let list = async |query: &str| rig.ask("GET", &format!("/layers?{query}"), Value::Null).await.json();
    let names = |page: &Value| -> Vec<String> {
        page["layers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|layer| format!("{}:{}", layer["layerName"].as_str().unwrap(), layer["version"]))
            .collect()
    };
    let all = list("").await;
    assert_eq!(names(&all), ["a-1:1", "a-2:1", "a-3:1", "b:5"], "each by its newest version, and only the account's own");
    assert!(all.get("nextToken").is_none() && all["layers"][0].get("code").is_none(), "{all}");
    let first = list("prefix=a-&limit=2").await;
    assert_eq!(names(&first), ["a-1:1", "a-2:1"]);
    let token = first["nextToken"].as_str().unwrap();
    assert_eq!(names(&list(&format!("prefix=a-&limit=2&nextToken={token}")).await), ["a-3:1"]);
    assert_eq!(rig.ask("GET", "/layers?nextToken=x", Value::Null).await.refused(400).0, "InvalidArgument");
    assert_eq!(rig.ask("GET", "/layers?limit=0", Value::Null).await.refused(400).0, "InvalidArgument");
    assert_eq!(rig.ask("PUT", "/layers/a-2/acl?acl=1", Value::Null).await.status, 204);
    assert_eq!(names(&list("public=true&official=false").await), ["a-2:1"]);
    assert_eq!(names(&list("official=true").await), Vec::<String>::new());

    let versions = async |query: &str| rig.ask("GET", &format!("/layers/b/versions?{query}"), Value::Null).await.json();
    let page = versions("limit=2").await;
    assert_eq!((names(&page), &page["nextVersion"]), (vec!["b:1".to_owned(), "b:2".to_owned()], &json!(3)));
    rig.ask("DELETE", "/layers/b/versions/3", Value::Null).await;
    let page = versions("limit=2&startVersion=3").await;
    assert_eq!(names(&page), ["b:4", "b:5"]);
    assert!(page.get("nextVersion").is_none_or(Value::is_null), "{page}");
    assert_eq!(rig.ask("GET", "/layers/b/versions?startVersion=-1", Value::Null).await.refused(400).0, "InvalidArgument");
    assert_eq!(rig.ask("GET", "/layers/none/versions", Value::Null).await.refused(404).0, "LayerNotFound");
}

#[tokio::test]
async fn a_function_and_its_versions_keep_the_layers_they_were_given() {
    let rig = Rig::new().await;
    let (one, two) = (publish(&rig, "one", b"one").await, publish(&rig, "two", b"two").await);
    let shown = |layer: &Value| json!({"arn": layer["layerVersionArn"], "size": layer["codeSize"]});
    let names = json!([two["layerVersionArn"], one["layerVersionArn"]]);
    let made = create_with(&rig, 1, "f", names.clone()).await;
    assert_eq!((made.status.as_u16(), &made.json()["layers"]), (200, &json!([shown(&two), shown(&one)])));
    assert!(made.json().get("layerUses").is_none(), "{}", made.json());
    assert_eq!(rig.ask("POST", "/functions/f/versions", json!({})).await.status, 200);

    let retired = || std::mem::take(&mut *rig.pool.retired.lock().unwrap());
    retired();
    let update = async |body: Value| rig.ask("PUT", "/functions/f", body).await;
    assert_eq!(update(json!({"description": "d", "layers": null})).await.json()["layers"], json!([shown(&two), shown(&one)]));
    assert_eq!(update(json!({"layers": names})).await.status, 200);
    assert!(retired().is_empty(), "no instance can see a difference");
    let swapped = json!([one["layerVersionArn"], two["layerVersionArn"]]);
    assert_eq!(update(json!({"layers": swapped})).await.json()["layers"], json!([shown(&one), shown(&two)]));
    assert_eq!(retired(), ["f/LATEST"], "another order is another content");

    assert_eq!(rig.ask("DELETE", "/layers/two/versions/1", Value::Null).await.status, 204);
    let gone = rig.ask("GET", "/layers/two/versions/1", Value::Null).await.refused(404);
    assert_eq!(gone.0, "LayerVersionNotFound");
    assert_eq!(rig.ask("DELETE", "/layers/two/versions/1", Value::Null).await.refused(404).0, "LayerVersionNotFound");
    assert_eq!(publish(&rig, "two", b"again").await["version"], 2, "no number is used twice");
    let refused = create_with(&rig, 1, "g", json!([one["layerVersionArn"], two["layerVersionArn"]])).await.refused(404);
    assert!(refused.0 == "LayerVersionNotFound" && refused.1.contains("layers.1 'acs:fc:"), "{refused:?}");
    // The function may go on naming what it was given.
    assert_eq!(update(json!({"layers": [two["layerVersionArn"]], "timeout": 9})).await.json()["layers"], json!([shown(&two)]));

    // Of packages, what a function, one of its versions, or a layer has is kept: zip, one, two, again.
    rig.control.reconcile().await.unwrap();
    assert_eq!(rig.kept().await, (4, 4));
    let cleared = update(json!({"layers": []})).await.json();
    assert!(cleared.get("layers").is_none(), "{cleared}");
    assert_eq!(update(json!({"layers": [two["layerVersionArn"]]})).await.refused(404).0, "LayerVersionNotFound");
    rig.control.reconcile().await.unwrap();
    assert_eq!(rig.kept().await, (4, 4), "the published version has it still");
    assert_eq!(rig.ask("DELETE", "/functions/f", Value::Null).await.status, 204);
    rig.control.reconcile().await.unwrap();
    assert_eq!(rig.kept().await, (2, 2), "what layers hold: one and again");
}

#[tokio::test]
async fn another_accounts_layer_is_there_while_it_is_shared() {
    let rig = Rig::new().await;
    let arn = publish(&rig, "tools", b"one").await["layerVersionArn"].clone();
    let path = format!("/layerarn/{}", escaped(&arn));
    let foreign = async |method: &str, path: &str, body: &str| rig.signed(2, method, path, &[], body.as_bytes()).await;
    let never = arn.as_str().unwrap().replace("tools", "never");
    let same = |private: (String, String), name: &str| (private.0, private.1.replace(name, "NAME"));

    let private = foreign("GET", &path, "").await.refused(404);
    let missing = foreign("GET", &path.replace("tools", "never"), "").await.refused(404);
    assert_eq!(same(private, "tools"), same(missing, "never"), "an outsider cannot tell which");
    let private = create_with(&rig, 2, "f", json!([arn])).await.refused(404);
    let missing = create_with(&rig, 2, "f", json!([never])).await.refused(404);
    assert_eq!(same(private, "tools"), same(missing, "never"));
    assert_eq!(foreign("GET", "/layers/tools/versions/1", "").await.refused(404).0, "LayerNotFound");
    assert_eq!(foreign("PUT", "/layers/tools/acl?acl=1", "").await.refused(404).0, "LayerNotFound");
    assert_eq!(foreign("DELETE", "/layers/tools/versions/1", "").await.refused(404).0, "LayerNotFound");

    assert_eq!(rig.ask("PUT", "/layers/tools/acl?acl=1", Value::Null).await.status, 204);
    let got = foreign("GET", &path, "").await.json();
    assert_eq!((&got["acl"], &got["layerVersionArn"]), (&json!("1"), &arn));
    let made = create_with(&rig, 2, "f", json!([arn])).await;
    assert_eq!((made.status.as_u16(), &made.json()["layers"][0]["arn"]), (200, &arn));
    // Deleted, it stays with those who have it; withdrawn, it does not.
    assert_eq!(rig.ask("DELETE", "/layers/tools/versions/1", Value::Null).await.status, 204);
    let update = json!({"layers": [arn], "timeout": 9}).to_string();
    assert_eq!(foreign("PUT", "/functions/f", &update).await.status, 200);
    assert_eq!(rig.ask("PUT", "/layers/tools/acl?public=false", Value::Null).await.status, 204);
    assert_eq!(foreign("PUT", "/functions/f", &update).await.refused(404).0, "LayerVersionNotFound");
    assert_eq!(foreign("PUT", "/functions/f", r#"{"timeout":8}"#).await.status, 200);
    let refused = rig.ask("PUT", "/layers/tools/acl?acl=2", Value::Null).await.refused(400);
    assert!(refused.1.contains("acl"), "{refused:?}");
    assert!(rig.ask("PUT", "/layers/tools/acl", Value::Null).await.refused(400).1.contains("acl is required"));
}

#[tokio::test]
async fn a_wrong_layer_is_refused_by_the_member_that_is_wrong() {
    let rig = Rig::new().await;
    let with = |member: &str, value: Value| {
        let mut body = layer(b"one");
        body[member] = value;
        body
    };
    for (body, named) in [
        (json!({}), "code.zipFile"),
        (json!({"code": {}}), "code.zipFile"),
        (json!({"code": 7}), "code"),
        (json!({"code": {"zipFile": "***"}}), "code.zipFile"),
        (json!({"code": {"zipFile": STANDARD.encode(BAD_ZIP)}}), "code.zipFile"),
        (json!({"code": {"zipFile": STANDARD.encode(b"x"), "checksum": "1"}}), "code.checksum"),
        (json!({"code": {"ossBucketName": "b", "ossObjectName": "o"}}), "code.ossBucketName"),
        (with("description", json!("x".repeat(257))), "description"),
        (with("description", json!(7)), "description"),
        (with("license", json!("x".repeat(1025))), "license"),
        (with("compatibleRuntime", json!("python3.10")), "compatibleRuntime"),
        (with("compatibleRuntime", json!([7])), "compatibleRuntime"),
        (with("compatibleRuntime", json!(["python3.10", "a b"])), "compatibleRuntime.1"),
        (with("compatibleRuntime", json!([""])), "compatibleRuntime.0"),
        (with("compatibleRuntime", json!(vec!["x"; 31])), "compatibleRuntime"),
    ] {
        let (code, message) = rig.ask("POST", "/layers/tools/versions", body.clone()).await.refused(400);
        assert!(code == "InvalidArgument" && message.contains(named), "{body}: {message}");
    }
    for name in ["9x", "-x", "a.b", "%20", &"x".repeat(129)] {
        let (code, message) = rig.ask("POST", &format!("/layers/{name}/versions"), layer(b"one")).await.refused(400);
        assert!(code == "InvalidArgument" && message.contains("layerName"), "{name}: {message}");
    }
    assert_eq!(rig.kept().await, (0, 0), "nothing is left of what was refused");
    assert_eq!(rig.ask("GET", "/layers", Value::Null).await.json()["layers"], json!([]));
    let arn = publish(&rig, &"x".repeat(128), b"one").await["layerVersionArn"].as_str().unwrap().to_owned();
    for version in ["0", "01", "x", "-1", "99999999999999999999"] {
        let refused = rig.ask("GET", &format!("/layers/x/versions/{version}"), Value::Null).await.refused(400);
        assert!(refused.1.contains("version"), "{version}: {refused:?}");
    }
    assert_eq!(rig.ask("GET", "/layerarn/nonsense", Value::Null).await.refused(400).0, "InvalidArgument");

    let elsewhere = arn.replace("cn-hangzhou", "cn-beijing");
    for (layers, status, named) in [
        (json!("x"), 400, "layers must be a list"),
        (json!([7]), 400, "layers must be a list"),
        (json!([{"arn": arn}]), 400, "layers must be a list"),
        (json!([""]), 400, "layers.0 is invalid: it must be the resource name"),
        (json!([arn, "x"]), 400, "layers.1 is invalid"),
        (json!([arn, arn]), 400, "layers.1 names the same layer version"),
        (json!(vec![&arn; 6]), 400, "layers must be at most 5 (actual: 6)"),
        (json!([elsewhere]), 404, "layers.0 'acs:fc:cn-beijing:"),
        (json!([arn.replace("versions/1", "versions/2")]), 404, "layers.0 '"),
    ] {
        let (code, message) = create_with(&rig, 1, "f", layers.clone()).await.refused(status);
        let expected = if status == 400 { "InvalidArgument" } else { "LayerVersionNotFound" };
        assert!(code == expected && message.contains(named), "{layers}: {code} {message}");
    }
    // What a layer holds is never for the caller to say.
    let mut body = function("f", b"zip");
    body["layerUses"] = json!([{"arn": arn, "digest": "00".repeat(32), "size": 1}]);
    let made = rig.ask("POST", "/functions", body).await.json();
    assert!(made.get("layers").is_none() && made.get("layerUses").is_none(), "{made}");
}

#[tokio::test]
async fn a_layer_has_a_hundred_versions_at_most() {
    let rig = Rig::new().await;
    for n in 0..100 {
        publish(&rig, "tools", format!("{n}").as_bytes()).await;
    }
    let refused = rig.ask("POST", "/layers/tools/versions", layer(b"more")).await.refused(400);
    assert!(refused.0 == "LimitExceededError" && refused.1.contains("100 versions of one layer"), "{refused:?}");
    assert_eq!(rig.kept().await, (100, 100));
    rig.ask("DELETE", "/layers/tools/versions/7", Value::Null).await;
    assert_eq!(publish(&rig, "tools", b"more").await["version"], 101);
}
