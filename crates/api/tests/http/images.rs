//! Images of accounts' own, and functions that run them.

use serde_json::{Value, json};

use crate::rig::{BAD_ZIP, Received, Rig};

async fn push(rig: &Rig, account: u8, name: &str, archive: &[u8]) -> Received {
    rig.signed(account, "PUT", &format!("/dunlin/images/{name}"), &[], archive).await
}

async fn create(rig: &Rig, account: u8, name: &str, image: &str) -> Received {
    let body =
        json!({"functionName": name, "runtime": "custom-container", "customContainerConfig": {"image": image, "port": 8080}});
    rig.signed(account, "POST", "/functions", &[], body.to_string().as_bytes()).await
}

#[tokio::test]
async fn an_image_is_its_accounts_alone() {
    let rig = Rig::new().await;
    let pushed = push(&rig, 1, "team%2Fapp:1", b"image").await;
    assert_eq!(pushed.status, 200, "{}", pushed.json());
    let image = pushed.json();
    assert_eq!((&image["name"], &image["image"], &image["size"]), (&json!("team/app:1"), &json!("local/team/app:1"), &json!(5)));
    let list = |account| {
        let rig = &rig;
        async move { rig.signed(account, "GET", "/dunlin/images", &[], b"").await.json() }
    };
    assert_eq!((list(1).await, list(2).await), (json!({"images": [image]}), json!({"images": []})));
    let digest = image["digest"].as_str().unwrap();
    for reference in ["local/team/app:1".to_owned(), format!("local/team/app@{digest}")] {
        let refused = create(&rig, 2, "f", &reference).await.refused(400);
        assert!(refused.1.contains("customContainerConfig.image is not there"), "{}", refused.1);
        let name = if reference.contains('@') { "by-digest" } else { "by-tag" };
        let created = create(&rig, 1, name, &reference).await;
        assert_eq!(created.status, 200, "{}", created.json());
        assert_eq!(created.json()["customContainerConfig"]["resolvedImageUri"], json!(format!("local/team/app@{digest}")));
    }
    assert_eq!(rig.signed(2, "DELETE", "/dunlin/images/team%2Fapp:1", &[], b"").await.refused(404).0, "ImageNotFound");
    assert_eq!(rig.signed(1, "DELETE", "/dunlin/images/team%2Fapp:1", &[], b"").await.status, 204);
    assert_eq!(create(&rig, 1, "g", "local/team/app:1").await.status, 400);
    assert_eq!(rig.ask("GET", "/functions/by-tag", Value::Null).await.json()["customContainerConfig"]["port"], 8080);
}

#[tokio::test]
async fn a_container_function_is_shown_with_all_it_was_given() {
    let rig = Rig::new().await;
    push(&rig, 1, "app", b"image").await;
    let container = json!({
        "image": "local/app:latest", "accelerationType": "Default", "acrInstanceId": "cri-1", "command": ["a"], "entrypoint": ["/b"],
        "port": 8000, "healthCheckConfig": {"httpGetUrl": "/h", "periodSeconds": 3},
        "registryConfig": {"authConfig": {"userName": "u", "password": "p"}, "networkConfig": {"vpcId": "v"}},
    });
    let body = json!({"functionName": "f", "runtime": "custom-container", "customContainerConfig": container});
    let created = rig.ask("POST", "/functions", body).await;
    assert_eq!(created.status, 200, "{}", created.json());
    let mut shown = rig.ask("GET", "/functions/f", Value::Null).await.json();
    assert_eq!((&shown["state"], &shown["lastUpdateStatus"]), (&json!("Active"), &json!("Successful")));
    for member in ["codeSize", "codeChecksum", "imageUse"] {
        assert!(shown.get(member).is_none(), "{member}");
    }
    let resolved = shown["customContainerConfig"].as_object_mut().unwrap().remove("resolvedImageUri");
    assert!(resolved.unwrap().as_str().unwrap().starts_with("local/app@sha256:"));
    assert_eq!(shown["customContainerConfig"], container);
}

#[tokio::test]
async fn what_is_no_image_leaves_nothing() {
    let rig = Rig::new().await;
    let refused = push(&rig, 1, "app", BAD_ZIP).await.refused(400);
    assert!(refused.1.starts_with("image is refused: entry '../evil'"), "{}", refused.1);
    assert_eq!(rig.signed(1, "GET", "/dunlin/images", &[], b"").await.json(), json!({"images": []}));
    assert!(rig.unpacker.trees.lock().unwrap().is_empty());
}
