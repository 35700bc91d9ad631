//! A store that an earlier release wrote is opened by this one, with everything in it.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::path::Path;

use dunlin_model::{Crc64, Qualifier};
use dunlin_store::{RecordQuery, Sqlite, Store, contract};
use jiff::Timestamp;
use rusqlite::{Connection, params};

/// What tells our files from other SQLite databases.
const APPLICATION_ID: i64 = 0x4455_4e4c;

/// A function as the first release stored it.
const FUNCTION: &str = r#"{"config":{"functionName":"f","runtime":"python3.10","handler":"index.handler","description":"old","memorySize":128,"timeout":3,"internetAccess":true,"environmentVariables":{"A":"1"},"tags":[{"Key":"team","Value":"x"}],"role":"","disableOndemand":false,"instanceIsolationMode":"SHARE","layers":["acs:fc:cn-hangzhou:official:layers/Python3-Flask2x/versions/1"],"logConfig":{"project":"p"},"sessionAffinity":"NONE"},"code":{"digest":"c775e7b757ede630cd0aa1113bd102661ab38829ca52a6422ab782862f268646","checksum":"11051210869376104954","size":3},"functionId":"id-1","created":"2026-01-02T03:04:05Z","modified":"2026-01-02T03:04:06Z"}"#;
const TRIGGER: &str = r#"{"name":"web","triggerId":"t-1","description":"","qualifier":"LATEST","http":{"authType":"anonymous","methods":["GET"],"disableURLInternet":false},"configText":"{\"authType\":\"anonymous\",\"methods\":[\"GET\"]}","urlPrefix":"web-f-abc","created":"2026-01-02T03:04:05Z","modified":"2026-01-02T03:04:05Z"}"#;
const RECORD: &str = r#"{"requestId":"1-00000000-00000000-000000000001","account":"0000000000000001","function":"f","version":"LATEST","qualifier":"LATEST","origin":"api","started":"2026-01-02T03:04:07Z","cold":false,"queueUs":1,"bindUs":2,"loadUs":3,"initUs":4,"handlerUs":5,"billedMs":6,"memoryMb":128,"memoryPeakBytes":7,"cpuMillis":62,"cpuUs":8,"bytesIn":9,"bytesOut":10,"outcome":"succeeded"}"#;

fn checksum(document: &str) -> i64 {
    Crc64::of(document.as_bytes()).0.cast_signed()
}

/// Writes a store of schema version 1.
fn first_release(path: &Path) {
    let store = Connection::open(path).unwrap();
    store.execute_batch(include_str!("../src/migrations/0001_first.sql")).unwrap();
    store.pragma_update(None, "application_id", APPLICATION_ID).unwrap();
    store.pragma_update(None, "user_version", 1).unwrap();
    store.execute("UPDATE counter SET revision = 9", []).unwrap();
    store
        .execute(
            "INSERT INTO functions VALUES ('0000000000000001', 'f', 7, 'python3.10', 'c775e7b757ede630cd0aa1113bd102661ab38829ca52a6422ab782862f268646', ?1, ?2)",
            params![FUNCTION, checksum(FUNCTION)],
        )
        .unwrap();
    store
        .execute(
            "INSERT INTO triggers VALUES ('0000000000000001', 'f', 'web', 8, 'web-f-abc', ?1, ?2)",
            params![TRIGGER, checksum(TRIGGER)],
        )
        .unwrap();
    store.execute("INSERT INTO access_keys VALUES ('LTAI1', '0000000000000001', 'secret')", []).unwrap();
    store.execute("INSERT INTO nonces VALUES (1, 99)", []).unwrap();
    store
        .execute(
            "INSERT INTO records VALUES (1, '1-00000000-00000000-000000000001', '0000000000000001', 'f', 1767323047000000000, ?1, ?2)",
            params![RECORD, checksum(RECORD)],
        )
        .unwrap();
}

#[tokio::test]
async fn a_store_of_the_first_release_is_opened_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    first_release(&path);
    let (scope, key) = (contract::scope(1), contract::key(&contract::scope(1), "f"));

    let store = Sqlite::open(&path).unwrap();
    let view = store.view();
    let function = view.function(&key).unwrap();
    assert_eq!((function.revision.0, function.value.config.description.as_str()), (7, "old"));
    assert_eq!(function.value.config.environment_variables.as_ref().unwrap()["A"], "1");
    assert_eq!(function.value.config.tags.as_ref().unwrap()[0].key, "team");
    let written: serde_json::Value = serde_json::from_str(FUNCTION).unwrap();
    assert_eq!(serde_json::to_value(&function.value).unwrap(), written, "nothing is lost and nothing is made up");
    assert_eq!(view.trigger_by_prefix("web-f-abc").unwrap().0, &key);
    assert_eq!(view.access_key(&"LTAI1".parse().unwrap()).unwrap().secret, "secret");
    assert_eq!(store.nonces_after(0).await.unwrap(), [(1, 99)]);
    assert_eq!(store.records(&scope, &RecordQuery::default()).await.unwrap().items.len(), 1);

    let id = store.publish_version(&key, "", Timestamp::UNIX_EPOCH, 10).await.unwrap();
    let prod = contract::alias_key(&key, "prod");
    let revision = store.create_alias(&prod, &contract::alias(&prod, id.0), 10).await.unwrap();
    assert!(revision.0 > 9, "revisions go on where they were");
    store.close().await;

    let store = Sqlite::open(&path).unwrap();
    let target = store.view().resolve(&key, &Qualifier::from_wire(Some("prod")), 0.0).unwrap();
    assert_eq!((target.version(), target.function()), (Some(id), &function.value));
}
