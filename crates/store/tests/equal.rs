//! Whatever is done to them, the two stores stay equal, and SQLite is still equal after it was opened again.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use dunlin_model::{Revision, SettingKey, SettingKind, TriggerKey, VersionId};
use dunlin_store::{Memory, RecordQuery, Sqlite, Store, contract};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Create { account: u32, name: u8, limit: usize },
    Replace { account: u32, name: u8, stale: bool },
    Delete { account: u32, name: u8, stale: bool },
    AddTrigger { account: u32, name: u8, trigger: u8, prefix: u8 },
    ReplaceTrigger { account: u32, name: u8, trigger: u8, stale: bool },
    DropTrigger { account: u32, name: u8, trigger: u8 },
    Publish { account: u32, name: u8 },
    DropVersion { account: u32, name: u8, version: u64 },
    AddAlias { account: u32, name: u8, alias: u8, version: u64 },
    MoveAlias { account: u32, name: u8, alias: u8, version: u64 },
    DropAlias { account: u32, name: u8, alias: u8 },
    Reserve { account: u32, name: u8, instances: u64 },
    Unreserve { account: u32, name: u8 },
    AddLayer { account: u32, name: u8 },
    DropLayer { account: u32, name: u8, version: u64 },
    ShareLayer { account: u32, name: u8, public: bool },
    Nonce { hash: u64, expires: i64 },
    ForgetNonces { second: i64 },
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (account, name, trigger) = (1..3u32, 0..4u8, 0..3u8);
    let target = (account, name);
    let step = prop_oneof![
        4 => (target.clone(), 1..5usize).prop_map(|((account, name), limit)| Step::Create { account, name, limit }),
        3 => (target.clone(), any::<bool>()).prop_map(|((account, name), stale)| Step::Replace { account, name, stale }),
        3 => (target.clone(), any::<bool>()).prop_map(|((account, name), stale)| Step::Delete { account, name, stale }),
        4 => (target.clone(), trigger.clone(), 0..4u8).prop_map(|((account, name), trigger, prefix)| Step::AddTrigger { account, name, trigger, prefix }),
        2 => (target.clone(), trigger.clone(), any::<bool>()).prop_map(|((account, name), trigger, stale)| Step::ReplaceTrigger { account, name, trigger, stale }),
        2 => (target.clone(), 0..4u64).prop_map(|((account, name), instances)| Step::Reserve { account, name, instances }),
        1 => target.clone().prop_map(|(account, name)| Step::Unreserve { account, name }),
        4 => target.clone().prop_map(|(account, name)| Step::Publish { account, name }),
        2 => (target.clone(), 1..5u64).prop_map(|((account, name), version)| Step::DropVersion { account, name, version }),
        2 => (target.clone(), 0..3u8, 1..4u64).prop_map(|((account, name), alias, version)| Step::AddAlias { account, name, alias, version }),
        2 => (target.clone(), 0..3u8, 1..4u64).prop_map(|((account, name), alias, version)| Step::MoveAlias { account, name, alias, version }),
        1 => (target.clone(), 0..3u8).prop_map(|((account, name), alias)| Step::DropAlias { account, name, alias }),
        3 => target.clone().prop_map(|(account, name)| Step::AddLayer { account, name }),
        2 => (target.clone(), 1..5u64).prop_map(|((account, name), version)| Step::DropLayer { account, name, version }),
        1 => (target.clone(), any::<bool>()).prop_map(|((account, name), public)| Step::ShareLayer { account, name, public }),
        2 => (target, trigger).prop_map(|((account, name), trigger)| Step::DropTrigger { account, name, trigger }),
        1 => (0..5u64, 0..50i64).prop_map(|(hash, expires)| Step::Nonce { hash, expires }),
        1 => (0..50i64).prop_map(|second| Step::ForgetNonces { second }),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 1..60)
}

/// Does one step and tells how it ended, as text that must be the same for both stores.
async fn apply(store: &dyn Store, step: &Step, number: usize) -> String {
    let text = format!("step {number}");
    let key = |account: u32, name: u8| contract::key(&contract::scope(account), &format!("f{name}"));
    let trigger_key =
        |account, name, trigger: u8| TriggerKey { function: key(account, name), name: format!("t{trigger}").parse().unwrap() };
    let layer_key = |account: u32, name: u8| contract::layer_key(&contract::scope(account), &format!("l{name}"));
    let view = store.view();
    let at =
        |revision: Option<Revision>, stale: bool| if stale { Revision(u64::MAX >> 1) } else { revision.unwrap_or(Revision(1)) };
    match *step {
        Step::Create { account, name, limit } => {
            let key = key(account, name);
            format!("{:?}", store.create_function(&key, &contract::function(&key, &text), limit).await)
        }
        Step::Replace { account, name, stale } => {
            let key = key(account, name);
            let expected = at(view.function(&key).map(|stored| stored.revision), stale);
            format!("{:?}", store.replace_function(&key, &contract::function(&key, &text), expected).await)
        }
        Step::Delete { account, name, stale } => {
            let key = key(account, name);
            let expected = at(view.function(&key).map(|stored| stored.revision), stale);
            format!("{:?}", store.delete_function(&key, expected).await)
        }
        Step::AddTrigger { account, name, trigger, prefix } => {
            let key = trigger_key(account, name, trigger);
            format!("{:?}", store.create_trigger(&key, &contract::trigger(&key, &format!("p{prefix}")), 2).await)
        }
        Step::ReplaceTrigger { account, name, trigger, stale } => {
            let key = trigger_key(account, name, trigger);
            let expected = at(view.trigger(&key).map(|stored| stored.revision), stale);
            format!("{:?}", store.replace_trigger(&key, &contract::trigger(&key, &text), expected).await)
        }
        Step::DropTrigger { account, name, trigger } => {
            let key = trigger_key(account, name, trigger);
            let expected = at(view.trigger(&key).map(|stored| stored.revision), false);
            format!("{:?}", store.delete_trigger(&key, expected).await)
        }
        Step::Publish { account, name } => {
            format!("{:?}", store.publish_version(&key(account, name), &text, jiff::Timestamp::UNIX_EPOCH, 3).await)
        }
        Step::DropVersion { account, name, version } => {
            format!("{:?}", store.delete_version(&key(account, name), VersionId(version)).await)
        }
        Step::AddAlias { account, name, alias, version } => {
            let key = contract::alias_key(&key(account, name), &format!("a{alias}"));
            format!("{:?}", store.create_alias(&key, &contract::alias(&key, version), 2).await)
        }
        Step::MoveAlias { account, name, alias, version } => {
            let key = contract::alias_key(&key(account, name), &format!("a{alias}"));
            let expected = at(view.alias(&key).map(|stored| stored.revision), false);
            format!("{:?}", store.replace_alias(&key, &contract::alias(&key, version), expected).await)
        }
        Step::DropAlias { account, name, alias } => {
            let key = contract::alias_key(&key(account, name), &format!("a{alias}"));
            let expected = at(view.alias(&key).map(|stored| stored.revision), false);
            format!("{:?}", store.delete_alias(&key, expected).await)
        }
        Step::Reserve { account, name, instances } => {
            let key = SettingKey::of(&key(account, name), SettingKind::Concurrency);
            let expected = view.setting(&key).map(|stored| stored.revision);
            format!("{:?}", store.put_setting(&key, &contract::reserved(instances), expected, Some(5)).await)
        }
        Step::Unreserve { account, name } => {
            let key = SettingKey::of(&key(account, name), SettingKind::Concurrency);
            let expected = at(view.setting(&key).map(|stored| stored.revision), false);
            format!("{:?}", store.delete_setting(&key, expected).await)
        }
        Step::AddLayer { account, name } => {
            let key = layer_key(account, name);
            format!("{:?}", store.create_layer_version(&key, &contract::layer_version(&key, &text), 3).await)
        }
        Step::DropLayer { account, name, version } => {
            format!("{:?}", store.delete_layer_version(&layer_key(account, name), version).await)
        }
        Step::ShareLayer { account, name, public } => {
            format!("{:?}", store.put_layer_acl(&layer_key(account, name), public).await)
        }
        Step::Nonce { hash, expires } => format!("{:?}", store.put_nonces(&[(hash, expires)]).await),
        Step::ForgetNonces { second } => format!("{:?}", store.forget_nonces(second).await),
        Step::Reopen => String::new(),
    }
}

async fn picture(store: &dyn Store) -> String {
    let view = store.view();
    let mut text = String::new();
    for account in 1..3 {
        let scope = contract::scope(account);
        text += &format!("{:?} {}\n", store.list_functions(&scope, "", None, 100).await, view.count_of(scope.account()));
        text += &format!("{:?}\n", store.records(&scope, &RecordQuery::default()).await);
        for name in 0..4 {
            let key = contract::key(&scope, &format!("f{name}"));
            let layer = contract::layer_key(&scope, &format!("l{name}"));
            text += &format!("{:?} {:?}\n", view.layer(&layer), view.layer_versions(&layer).collect::<Vec<_>>());
            text += &format!("{:?}\n", view.versions(&key).collect::<Vec<_>>());
            text += &format!("{:?}\n", view.aliases(&key).collect::<Vec<_>>());
            text += &format!("{:?}\n", store.list_triggers(&contract::key(&scope, &format!("f{name}")), "", None, 100).await);
        }
    }
    text += &format!("{:?}\n", view.all_settings().collect::<Vec<_>>());
    for prefix in 0..4 {
        text += &format!("{:?}\n", view.trigger_by_prefix(&format!("p{prefix}")));
    }
    let mut nonces = store.nonces_after(-1).await.unwrap();
    nonces.sort_unstable();
    text + &format!("{nonces:?}")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sqlite_and_memory_stay_equal(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("store.db");
            let memory = Memory::new();
            let mut sqlite = Sqlite::open(&path).unwrap();
            for (number, step) in steps.iter().enumerate() {
                if matches!(step, Step::Reopen) {
                    sqlite.close().await;
                    sqlite = Sqlite::open(&path).unwrap();
                }
                assert_eq!(apply(&memory, step, number).await, apply(&sqlite, step, number).await, "{step:?}");
            }
            assert_eq!(picture(&memory).await, picture(&sqlite).await);
        });
    }
}
