//! Settings, and changes of several functions at once.

use std::sync::Arc;

use dunlin_model::{
    AsyncInvoke, Concurrency, FunctionKey, Restriction, Revision, Setting, SettingContent, SettingKey, SettingKind,
};
use jiff::Timestamp;

use super::{alias, alias_key, function, key, scope};
use crate::{DeleteError, PutError, ReplaceError, Store};

/// A setting with this content.
#[must_use]
pub fn setting(content: SettingContent) -> Setting {
    Setting { content, created: Timestamp::UNIX_EPOCH, modified: Timestamp::UNIX_EPOCH }
}

/// A setting that reserves so many instances.
#[must_use]
pub fn reserved(instances: u64) -> Setting {
    setting(SettingContent::Concurrency(Concurrency { reserved_concurrency: instances }))
}

fn concurrency(function: &FunctionKey) -> SettingKey {
    SettingKey::of(function, SettingKind::Concurrency)
}

pub(super) async fn a_setting_is_written_at_the_revision_it_was_read_at(store: Arc<dyn Store>) {
    let f = key(&scope(1), "f");
    let key = concurrency(&f);
    assert!(matches!(store.put_setting(&key, &reserved(1), None, None).await, Err(PutError::FunctionNotFound)));
    let head = store.create_function(&f, &function(&f, "x"), 10).await.unwrap();
    let first = store.put_setting(&key, &reserved(1), None, None).await.unwrap();
    let again = store.put_setting(&key, &reserved(2), None, None).await;
    assert!(matches!(again, Err(PutError::Conflict { actual }) if actual == first), "{again:?}");
    let second = store.put_setting(&key, &reserved(2), Some(first), None).await.unwrap();
    let stale = store.put_setting(&key, &reserved(3), Some(first), None).await;
    assert!(matches!(stale, Err(PutError::Conflict { actual }) if actual == second), "{stale:?}");
    assert_eq!(store.view().setting(&key).unwrap().value, reserved(2));
    assert_eq!(store.view().function(&f).unwrap().revision, head, "the function is as it was");
    assert!(matches!(store.delete_setting(&key, first).await, Err(DeleteError::Conflict { .. })));
    store.delete_setting(&key, second).await.unwrap();
    assert!(matches!(store.delete_setting(&key, second).await, Err(DeleteError::NotFound)));
    let gone = store.put_setting(&key, &reserved(3), Some(second), None).await;
    assert!(matches!(gone, Err(PutError::Conflict { actual: Revision(0) })), "{gone:?}");
}

pub(super) async fn settings_of_an_account_do_not_take_more_than_there_is(store: Arc<dyn Store>) {
    let (mine, theirs) = (scope(1), scope(2));
    for (scope, name) in [(&mine, "a"), (&mine, "b"), (&theirs, "a")] {
        let key = key(scope, name);
        store.create_function(&key, &function(&key, "x"), 10).await.unwrap();
    }
    let (a, b) = (concurrency(&key(&mine, "a")), concurrency(&key(&mine, "b")));
    let first = store.put_setting(&a, &reserved(6), None, Some(10)).await.unwrap();
    let over = store.put_setting(&b, &reserved(5), None, Some(10)).await;
    assert!(matches!(over, Err(PutError::ShareExceeded { max: 10, taken: 6 })), "{over:?}");
    store.put_setting(&b, &reserved(4), None, Some(10)).await.unwrap();
    let other = concurrency(&key(&theirs, "a"));
    store.put_setting(&other, &reserved(10), None, Some(10)).await.unwrap();
    store.put_setting(&a, &reserved(1), Some(first), Some(10)).await.unwrap();
    let view = store.view();
    let listed: Vec<_> = view
        .settings(mine.account(), SettingKind::Concurrency)
        .map(|(key, setting)| (key.function_name().to_string(), setting.value.content.share()))
        .collect();
    assert_eq!(listed, [("a".to_owned(), 1), ("b".to_owned(), 4)]);
    assert_eq!(view.settings(mine.account(), SettingKind::AsyncInvoke).count(), 0);
}

pub(super) async fn a_disabled_function_is_known_at_once_and_settings_go_with_what_they_are_of(store: Arc<dyn Store>) {
    let (f, g) = (key(&scope(1), "f"), key(&scope(1), "g"));
    let mut head = Revision(0);
    for key in [&g, &f] {
        head = store.create_function(key, &function(key, "x"), 10).await.unwrap();
        store.publish_version(key, "", Timestamp::UNIX_EPOCH, 10).await.unwrap();
    }
    let off = |disable| setting(SettingContent::Restriction(Restriction { disable, reason: Some("why".to_owned()) }));
    let switch = SettingKey::of(&f, SettingKind::Restriction);
    let first = store.put_setting(&switch, &off(true), None, None).await.unwrap();
    assert!(store.view().is_disabled(&f) && !store.view().is_disabled(&g));
    let second = store.put_setting(&switch, &off(false), Some(first), None).await.unwrap();
    assert!(!store.view().is_disabled(&f));
    store.put_setting(&switch, &off(true), Some(second), None).await.unwrap();

    let prod = alias_key(&f, "prod");
    let of_alias = store.create_alias(&prod, &alias(&prod, 1), 9).await.unwrap();
    let later = |qualifier| SettingKey::for_qualifier(&f, SettingKind::AsyncInvoke, qualifier);
    for qualifier in ["LATEST", "1", "prod"] {
        store
            .put_setting(&later(qualifier), &setting(SettingContent::AsyncInvoke(AsyncInvoke::default())), None, None)
            .await
            .unwrap();
    }
    store.delete_alias(&prod, of_alias).await.unwrap();
    store.delete_version(&f, "1".parse().unwrap()).await.unwrap();
    let left: Vec<_> = ["LATEST", "1", "prod"].into_iter().filter(|name| store.view().setting(&later(name)).is_some()).collect();
    assert_eq!(left, ["LATEST"]);

    store.put_setting(&concurrency(&g), &reserved(1), None, None).await.unwrap();
    store.delete_function(&f, head).await.unwrap();
    let kept: Vec<_> = store.view().all_settings().map(|(key, _)| key.function_name().to_string()).collect();
    assert_eq!(kept, ["g"]);
    assert!(!store.view().is_disabled(&f), "a namesake begins anew");
}

pub(super) async fn several_functions_are_replaced_together_or_not_at_all(store: Arc<dyn Store>) {
    let (f, g) = (key(&scope(1), "f"), key(&scope(1), "g"));
    let of_f = store.create_function(&f, &function(&f, "one"), 10).await.unwrap();
    let of_g = store.create_function(&g, &function(&g, "one"), 10).await.unwrap();
    let both = |of_g| vec![(f.clone(), function(&f, "two"), of_f), (g.clone(), function(&g, "two"), of_g)];
    let stale = store.replace_functions(&both(of_f)).await;
    assert!(matches!(stale, Err(ReplaceError::Conflict { .. })), "{stale:?}");
    let said = |key: &FunctionKey| store.view().function(key).unwrap().value.config.description.clone();
    assert_eq!((said(&f), said(&g)), ("one".to_owned(), "one".to_owned()));
    store.replace_functions(&both(of_g)).await.unwrap();
    assert_eq!((said(&f), said(&g)), ("two".to_owned(), "two".to_owned()));
}
