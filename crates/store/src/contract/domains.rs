//! Custom domains.

use std::sync::Arc;

use dunlin_model::domain::{CertConfig, PathConfig, RouteConfig, Scheme};
use dunlin_model::{AccountScope, CustomDomain, DomainKey};
use jiff::Timestamp;

use super::scope;
use crate::{CreateError, DeleteError, ReplaceError, Store};

/// The key of a domain of `scope`.
#[must_use]
pub fn domain_key(scope: &AccountScope, name: &str) -> DomainKey {
    scope.domain(name.parse().expect("the case's name is one"))
}

/// A domain called like `key`, all of whose paths go to `function`.
#[must_use]
pub fn domain(key: &DomainKey, function: &str) -> CustomDomain {
    let route = PathConfig { path: Some("/*".into()), function_name: Some(function.into()), ..PathConfig::default() };
    let cert_config = CertConfig { cert_name: None, certificate: "public".into(), private_key: "private".into() };
    CustomDomain {
        domain_name: key.name().clone(),
        protocol: Scheme::Both,
        route_config: Some(RouteConfig { routes: vec![route] }),
        auth_config: None,
        cert_config: Some(cert_config),
        tls_config: None,
        cors_config: None,
        waf_config: None,
        is_e2b: None,
        created: Timestamp::UNIX_EPOCH,
        modified: Timestamp::UNIX_EPOCH,
    }
}

pub(super) async fn a_domain_belongs_to_one_account_and_is_found_by_its_name(store: Arc<dyn Store>) {
    let (mine, theirs) = (domain_key(&scope(1), "www.example.com"), domain_key(&scope(2), "www.example.com"));
    let first = store.create_domain(&mine, &domain(&mine, "f"), 10).await.unwrap();
    for key in [&mine, &theirs] {
        let again = store.create_domain(key, &domain(key, "g"), 10).await;
        assert!(matches!(again, Err(CreateError::AlreadyExists)), "{again:?}");
    }
    let view = store.view();
    let (owner, found) = view.domain_by_name("www.example.com").unwrap();
    assert_eq!((owner, &found.value, found.revision), (&mine, &domain(&mine, "f"), first));
    assert!(view.domain(&theirs).is_none() && view.domain_by_name("example.com").is_none());
    assert!(matches!(store.delete_domain(&theirs, first).await, Err(DeleteError::NotFound)));
    let foreign = store.replace_domain(&theirs, &domain(&theirs, "g"), first).await;
    assert!(matches!(foreign, Err(ReplaceError::NotFound)), "{foreign:?}");

    let second = store.replace_domain(&mine, &domain(&mine, "g"), first).await.unwrap();
    let stale = store.replace_domain(&mine, &domain(&mine, "h"), first).await;
    assert!(matches!(stale, Err(ReplaceError::Conflict { actual }) if actual == second), "{stale:?}");
    assert_eq!(store.view().domain_by_name("www.example.com").unwrap().1.value, domain(&mine, "g"));
    assert!(matches!(store.delete_domain(&mine, first).await, Err(DeleteError::Conflict { .. })));
    store.delete_domain(&mine, second).await.unwrap();
    assert!(store.view().domain_by_name("www.example.com").is_none());
    store.create_domain(&theirs, &domain(&theirs, "f"), 10).await.unwrap();
}

pub(super) async fn an_account_has_so_many_domains_and_sees_its_own(store: Arc<dyn Store>) {
    let (one, two) = (scope(1), scope(2));
    for name in ["b.example", "a.example"] {
        let key = domain_key(&one, name);
        store.create_domain(&key, &domain(&key, "f"), 2).await.unwrap();
    }
    let third = domain_key(&one, "c.example");
    let over = store.create_domain(&third, &domain(&third, "f"), 2).await;
    assert!(matches!(over, Err(CreateError::LimitExceeded { limit: 2 })), "{over:?}");
    let other = domain_key(&two, "c.example");
    store.create_domain(&other, &domain(&other, "f"), 2).await.unwrap();
    let names = |scope: &AccountScope| -> Vec<String> {
        store.view().domains(scope.account()).map(|domain| domain.value.domain_name.to_string()).collect()
    };
    assert_eq!((names(&one), names(&two)), (vec!["a.example".to_owned(), "b.example".to_owned()], vec!["c.example".to_owned()]));
}
