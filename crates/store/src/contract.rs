//! What every [`Store`] must do, as one suite that runs over all of them. Each case gets a store of its own.

#![expect(clippy::unwrap_used, reason = "a broken promise is a panic here")]

mod domains;
mod images;
mod layers;
mod settings;
mod versions;

use std::pin::Pin;
use std::sync::Arc;

use dunlin_model::{
    AccountId, AccountScope, CodePackage, Crc64, Digest, Function, FunctionKey, FunctionPatch, HttpTriggerConfig, Limits, Origin,
    Outcome, Record, RequestId, Revision, Trigger, TriggerKey,
};
use jiff::Timestamp;

use self::domains::{a_domain_belongs_to_one_account_and_is_found_by_its_name, an_account_has_so_many_domains_and_sees_its_own};
pub use self::domains::{domain, domain_key};
use self::images::an_image_is_its_accounts_and_the_last_one_pushed;
pub use self::images::{image, image_key};
use self::layers::{
    a_layer_is_its_accounts_own_until_it_is_shared, a_layers_versions_are_numbered_once_and_limited,
    layers_that_are_made_at_once_get_numbers_of_their_own,
};
pub use self::layers::{layer_key, layer_version};
use self::settings::{
    a_disabled_function_is_known_at_once_and_settings_go_with_what_they_are_of,
    a_setting_is_written_at_the_revision_it_was_read_at, settings_of_an_account_do_not_take_more_than_there_is,
    several_functions_are_replaced_together_or_not_at_all,
};
pub use self::settings::{reserved, setting};
use self::versions::{
    a_functions_versions_and_aliases_go_with_it, a_qualifier_means_a_version_an_alias_or_the_head,
    a_version_is_a_copy_that_later_changes_do_not_reach, a_versions_number_is_never_used_twice,
    an_alias_points_to_versions_that_exist_when_it_is_written, versions_that_are_published_at_once_get_numbers_of_their_own,
};
pub use self::versions::{alias, alias_key};
use crate::{AccessKey, CreateError, DeleteError, RecordQuery, ReplaceError, Store};

type Case = fn(Arc<dyn Store>) -> Pin<Box<dyn Future<Output = ()>>>;

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        /// Every case, by the claim it checks.
        const CASES: &[(&str, Case)] = &[$((stringify!($name), |store| Box::pin($name(store)))),*];
    };
}

cases! {
    a_created_function_is_in_the_view_and_in_the_list,
    a_name_is_taken_once_per_account,
    a_write_at_an_old_revision_is_refused_and_changes_nothing,
    a_recreated_function_never_has_an_old_revision,
    a_hundred_creates_at_once_stop_exactly_at_the_limit,
    a_function_with_triggers_stays,
    a_url_prefix_belongs_to_one_trigger_and_stays_with_it,
    lists_are_pages_in_order_within_the_account_and_the_prefix,
    a_view_that_is_held_does_not_change,
    an_access_key_is_found_by_its_id_and_can_be_replaced,
    nonces_are_kept_until_they_are_forgotten,
    records_come_back_whole_newest_first_and_only_the_accounts,
    a_record_that_is_appended_again_counts_once,
    a_version_is_a_copy_that_later_changes_do_not_reach,
    a_versions_number_is_never_used_twice,
    versions_that_are_published_at_once_get_numbers_of_their_own,
    an_alias_points_to_versions_that_exist_when_it_is_written,
    a_qualifier_means_a_version_an_alias_or_the_head,
    a_functions_versions_and_aliases_go_with_it,
    a_setting_is_written_at_the_revision_it_was_read_at,
    settings_of_an_account_do_not_take_more_than_there_is,
    a_disabled_function_is_known_at_once_and_settings_go_with_what_they_are_of,
    several_functions_are_replaced_together_or_not_at_all,
    a_layers_versions_are_numbered_once_and_limited,
    layers_that_are_made_at_once_get_numbers_of_their_own,
    a_layer_is_its_accounts_own_until_it_is_shared,
    a_domain_belongs_to_one_account_and_is_found_by_its_name,
    an_account_has_so_many_domains_and_sees_its_own,
    an_image_is_its_accounts_and_the_last_one_pushed,
}

/// Runs every case over a fresh store from `fresh`.
///
/// # Panics
/// When the store breaks the contract.
pub async fn check<F: Future<Output = Arc<dyn Store>>>(fresh: impl Fn() -> F) {
    for (claim, case) in CASES {
        eprintln!("contract: {claim}");
        case(fresh().await).await;
    }
}

/// An account made of the last digits `number`.
#[must_use]
pub fn scope(number: u32) -> AccountScope {
    AccountScope::verified(account(number))
}

fn account(number: u32) -> AccountId {
    format!("{number:016}").parse().expect("sixteen digits")
}

/// A key of `scope`.
#[must_use]
pub fn key(scope: &AccountScope, name: &str) -> FunctionKey {
    scope.function(name.parse().expect("the case's name is one"))
}

/// A small function called like `key`; `description` tells versions of it apart.
#[must_use]
pub fn function(key: &FunctionKey, description: &str) -> Function {
    let patch = FunctionPatch {
        function_name: Some(key.name().to_string()),
        runtime: Some("python3.10".into()),
        handler: Some("index.handler".into()),
        description: Some(description.into()),
        ..FunctionPatch::default()
    };
    Function {
        config: patch.create(&Limits::default()).expect("the fixture is within limits"),
        code: CodePackage { digest: Digest::of(description.as_bytes()), checksum: Crc64::of(b"zip"), size: 3 },
        function_id: format!("id-{description}"),
        created: Timestamp::UNIX_EPOCH,
        modified: Timestamp::UNIX_EPOCH,
    }
}

/// A trigger called like `key`, reached at `url_prefix`.
#[must_use]
pub fn trigger(key: &TriggerKey, url_prefix: &str) -> Trigger {
    let config_text = r#"{"authType":"anonymous","methods":["GET"]}"#;
    Trigger {
        name: key.name.clone(),
        trigger_id: format!("id-{url_prefix}"),
        description: String::new(),
        qualifier: "LATEST".into(),
        http: HttpTriggerConfig::parse(config_text).expect("the fixture is well formed"),
        config_text: config_text.into(),
        url_prefix: url_prefix.into(),
        created: Timestamp::UNIX_EPOCH,
        modified: Timestamp::UNIX_EPOCH,
    }
}

/// The record of a call of `key`, `second` seconds after 1970.
#[must_use]
pub fn record(key: &FunctionKey, second: i64) -> Record {
    Record {
        request_id: RequestId::random(),
        account: key.account().clone(),
        function: key.name().clone(),
        version: "LATEST".into(),
        qualifier: "LATEST".into(),
        instance: None,
        origin: Origin::Api,
        trigger: None,
        started: Timestamp::from_second(second).expect("a small number"),
        cold: false,
        queue_us: 1,
        bind_us: 2,
        load_us: 3,
        init_us: 4,
        handler_us: 5,
        billed_ms: 6,
        memory_mb: 128,
        memory_peak_bytes: u64::from(u32::MAX) + 7,
        cpu_millis: 62,
        cpu_us: 8,
        bytes_in: 9,
        bytes_out: 10,
        outcome: Outcome::Succeeded,
        error_type: None,
    }
}

fn trigger_key(function: &FunctionKey, name: &str) -> TriggerKey {
    TriggerKey { function: function.clone(), name: name.parse().expect("the case's name is one") }
}

async fn a_created_function_is_in_the_view_and_in_the_list(store: Arc<dyn Store>) {
    let scope = scope(1);
    let key = key(&scope, "f");
    let revision = store.create_function(&key, &function(&key, "one"), 10).await.unwrap();
    let view = store.view();
    let stored = view.function(&key).unwrap();
    assert_eq!((stored.revision, &stored.value), (revision, &function(&key, "one")));
    assert_eq!(view.functions_of(scope.account()).count(), 1);
    let page = store.list_functions(&scope, "", None, 10).await.unwrap();
    assert_eq!((page.items, page.next), (vec![Arc::clone(stored)], None));
}

async fn a_name_is_taken_once_per_account(store: Arc<dyn Store>) {
    let (mine, theirs) = (key(&scope(1), "f"), key(&scope(2), "f"));
    store.create_function(&mine, &function(&mine, "mine"), 10).await.unwrap();
    let again = store.create_function(&mine, &function(&mine, "again"), 10).await;
    assert!(matches!(again, Err(CreateError::AlreadyExists)), "{again:?}");
    store.create_function(&theirs, &function(&theirs, "theirs"), 10).await.unwrap();
    assert_eq!(store.view().function(&mine).unwrap().value.config.description, "mine");
    assert_eq!(store.view().function(&theirs).unwrap().value.config.description, "theirs");
}

async fn a_write_at_an_old_revision_is_refused_and_changes_nothing(store: Arc<dyn Store>) {
    let key = key(&scope(1), "f");
    let missing = store.replace_function(&key, &function(&key, "x"), Revision(1)).await;
    assert!(matches!(missing, Err(ReplaceError::NotFound)), "{missing:?}");
    let first = store.create_function(&key, &function(&key, "one"), 10).await.unwrap();
    let second = store.replace_function(&key, &function(&key, "two"), first).await.unwrap();
    assert!(second > first);
    let stale = store.replace_function(&key, &function(&key, "three"), first).await;
    assert!(matches!(stale, Err(ReplaceError::Conflict { actual }) if actual == second), "{stale:?}");
    let stale = store.delete_function(&key, first).await;
    assert!(matches!(stale, Err(DeleteError::Conflict { actual }) if actual == second), "{stale:?}");
    assert_eq!(store.view().function(&key).unwrap().value.config.description, "two");
    store.delete_function(&key, second).await.unwrap();
    assert!(store.view().function(&key).is_none());
    assert!(matches!(store.delete_function(&key, second).await, Err(DeleteError::NotFound)));
}

async fn a_recreated_function_never_has_an_old_revision(store: Arc<dyn Store>) {
    let key = key(&scope(1), "f");
    let mut last = Revision(0);
    for _ in 0..5 {
        let revision = store.create_function(&key, &function(&key, "same"), 10).await.unwrap();
        assert!(revision > last);
        store.delete_function(&key, revision).await.unwrap();
        last = revision;
    }
}

async fn a_hundred_creates_at_once_stop_exactly_at_the_limit(store: Arc<dyn Store>) {
    let scope = scope(1);
    let tasks: Vec<_> = (0..100)
        .map(|number| {
            let (store, key) = (Arc::clone(&store), key(&scope, &format!("f{number}")));
            tokio::spawn(async move { store.create_function(&key, &function(&key, "x"), 40).await })
        })
        .collect();
    let (mut created, mut refused) = (0, 0);
    for task in tasks {
        match task.await.unwrap() {
            Ok(_) => created += 1,
            Err(CreateError::LimitExceeded { limit: 40 }) => refused += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!((created, refused), (40, 60));
    assert_eq!(store.view().count_of(scope.account()), 40);
    // What is deleted makes room for exactly one more.
    let view = store.view();
    let (gone, stored) = view.functions().next().unwrap();
    store.delete_function(gone, stored.revision).await.unwrap();
    let (new, newer) = (key(&scope, "new"), key(&scope, "newer"));
    store.create_function(&new, &function(&new, "x"), 40).await.unwrap();
    assert!(matches!(store.create_function(&newer, &function(&newer, "x"), 40).await, Err(CreateError::LimitExceeded { .. })));
}

async fn a_function_with_triggers_stays(store: Arc<dyn Store>) {
    let key = key(&scope(1), "f");
    let trigger_key = trigger_key(&key, "web");
    let orphan = store.create_trigger(&trigger_key, &trigger(&trigger_key, "p"), 10).await;
    assert!(matches!(orphan, Err(CreateError::FunctionNotFound)), "{orphan:?}");
    let revision = store.create_function(&key, &function(&key, "x"), 10).await.unwrap();
    let of_trigger = store.create_trigger(&trigger_key, &trigger(&trigger_key, "p"), 10).await.unwrap();
    assert!(matches!(store.delete_function(&key, revision).await, Err(DeleteError::NotEmpty)));
    store.delete_trigger(&trigger_key, of_trigger).await.unwrap();
    assert!(matches!(store.delete_trigger(&trigger_key, of_trigger).await, Err(DeleteError::NotFound)));
    store.delete_function(&key, revision).await.unwrap();
}

async fn a_url_prefix_belongs_to_one_trigger_and_stays_with_it(store: Arc<dyn Store>) {
    let key = key(&scope(1), "f");
    store.create_function(&key, &function(&key, "x"), 10).await.unwrap();
    let (first, second) = (trigger_key(&key, "a"), trigger_key(&key, "b"));
    let revision = store.create_trigger(&first, &trigger(&first, "p"), 1).await.unwrap();
    let full = store.create_trigger(&second, &trigger(&second, "q"), 1).await;
    assert!(matches!(full, Err(CreateError::LimitExceeded { limit: 1 })), "{full:?}");
    let taken = store.create_trigger(&second, &trigger(&second, "p"), 9).await;
    assert!(matches!(taken, Err(CreateError::PrefixTaken)), "{taken:?}");
    let again = store.create_trigger(&first, &trigger(&first, "r"), 9).await;
    assert!(matches!(again, Err(CreateError::AlreadyExists)), "{again:?}");
    let changed = Trigger { description: "changed".into(), ..trigger(&first, "other") };
    let replaced = store.replace_trigger(&first, &changed, revision).await.unwrap();
    assert!(
        matches!(store.replace_trigger(&first, &changed, revision).await, Err(ReplaceError::Conflict { actual }) if actual == replaced)
    );
    let view = store.view();
    let (owner, stored) = view.trigger_by_prefix("p").unwrap();
    assert_eq!((owner, stored.value.description.as_str(), stored.value.url_prefix.as_str()), (&key, "changed", "p"));
    assert!(view.trigger_by_prefix("other").is_none());
    assert_eq!(view.triggers(&key).count(), 1);
    store.delete_trigger(&first, replaced).await.unwrap();
    assert!(store.view().trigger_by_prefix("p").is_none());
    store.create_trigger(&second, &trigger(&second, "p"), 1).await.unwrap();
}

async fn lists_are_pages_in_order_within_the_account_and_the_prefix(store: Arc<dyn Store>) {
    let (mine, theirs) = (scope(2), scope(1));
    for (scope, name) in
        [(&mine, "b2"), (&mine, "a"), (&mine, "b1"), (&mine, "b3"), (&mine, "c"), (&theirs, "b0"), (&scope(3), "b9")]
    {
        let key = key(scope, name);
        store.create_function(&key, &function(&key, "x"), 10).await.unwrap();
    }
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = store.list_functions(&mine, "b", after.as_deref(), 2).await.unwrap();
        assert!(page.items.len() <= 2);
        seen.extend(page.items.iter().map(|stored| stored.value.config.function_name.to_string()));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, ["b1", "b2", "b3"]);
    assert!(store.list_functions(&mine, "z", None, 5).await.unwrap().items.is_empty());
    assert_eq!(store.list_functions(&mine, "", Some("b2"), 5).await.unwrap().items.len(), 2);

    let owner = key(&mine, "a");
    for name in ["t3", "t1", "t2"] {
        let key = trigger_key(&owner, name);
        store.create_trigger(&key, &trigger(&key, name), 10).await.unwrap();
    }
    let page = store.list_triggers(&owner, "t", Some("t1"), 1).await.unwrap();
    assert_eq!((page.items[0].value.name.as_str(), page.next.as_deref()), ("t2", Some("t2")));
    assert!(store.list_triggers(&key(&mine, "b1"), "", None, 9).await.unwrap().items.is_empty());
}

async fn a_view_that_is_held_does_not_change(store: Arc<dyn Store>) {
    let key = key(&scope(1), "f");
    let before = store.view();
    let revision = store.create_function(&key, &function(&key, "one"), 10).await.unwrap();
    let held = store.view();
    store.delete_function(&key, revision).await.unwrap();
    assert!(before.function(&key).is_none() && held.function(&key).is_some() && store.view().function(&key).is_none());
}

async fn an_access_key_is_found_by_its_id_and_can_be_replaced(store: Arc<dyn Store>) {
    let first = AccessKey { id: "AKID.one".parse().unwrap(), account: account(1), secret: "s1".into() };
    store.put_access_key(&first).await.unwrap();
    let second = AccessKey { secret: "s2".into(), ..first.clone() };
    store.put_access_key(&second).await.unwrap();
    assert_eq!(store.view().access_key(&first.id), Some(&second));
    assert!(store.view().access_key(&"other".parse().unwrap()).is_none());
}

async fn nonces_are_kept_until_they_are_forgotten(store: Arc<dyn Store>) {
    store.put_nonces(&[(u64::MAX, 10), (1, 20), (2, 30)]).await.unwrap();
    store.put_nonces(&[(2, 40)]).await.unwrap();
    let mut kept = store.nonces_after(9).await.unwrap();
    kept.sort_unstable();
    assert_eq!(kept, [(1, 20), (2, 40), (u64::MAX, 10)]);
    store.forget_nonces(20).await.unwrap();
    assert_eq!(store.nonces_after(0).await.unwrap(), [(2, 40)]);
}

async fn records_come_back_whole_newest_first_and_only_the_accounts(store: Arc<dyn Store>) {
    let (f, g, theirs) = (key(&scope(1), "f"), key(&scope(1), "g"), key(&scope(2), "f"));
    let written: Vec<_> = (0..5).map(|second| record(if second % 2 == 0 { &f } else { &g }, second)).collect();
    store.append_records(&written).await.unwrap();
    store.append_records(&[record(&theirs, 9)]).await.unwrap();
    let all = store.records(&scope(1), &RecordQuery::default()).await.unwrap();
    assert_eq!((all.items, all.next), (written.iter().rev().cloned().collect(), None));
    let of_f = RecordQuery { function: Some(f.name().clone()), limit: 2, ..RecordQuery::default() };
    let page = store.records(&scope(1), &of_f).await.unwrap();
    assert_eq!(page.items, [written[4].clone(), written[2].clone()]);
    let page = store.records(&scope(1), &RecordQuery { after: page.next, ..of_f.clone() }).await.unwrap();
    assert_eq!((page.items, page.next), (vec![written[0].clone()], None));
    let one = RecordQuery { request: Some(written[3].request_id.clone()), ..RecordQuery::default() };
    assert_eq!(store.records(&scope(1), &one).await.unwrap().items, [written[3].clone()]);
    assert!(store.records(&scope(2), &one).await.unwrap().items.is_empty());
    let between = RecordQuery { since: Some(written[1].started), until: Some(written[3].started), ..RecordQuery::default() };
    assert_eq!(store.records(&scope(1), &between).await.unwrap().items, [written[2].clone(), written[1].clone()]);
    let nonsense = RecordQuery { after: Some("x' OR 1".into()), ..RecordQuery::default() };
    assert!(store.records(&scope(1), &nonsense).await.unwrap().items.is_empty());
}

async fn a_record_that_is_appended_again_counts_once(store: Arc<dyn Store>) {
    let key = key(&scope(1), "f");
    let (first, second) = (record(&key, 1), record(&key, 2));
    store.append_records(std::slice::from_ref(&first)).await.unwrap();
    store.append_records(&[first.clone(), second.clone()]).await.unwrap();
    assert_eq!(store.records(&scope(1), &RecordQuery::default()).await.unwrap().items, [second, first]);
}
