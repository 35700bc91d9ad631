//! Authorisation by construction: the scope of a verified caller is the only maker of keys.

use crate::domain::{DomainKey, DomainName};
use crate::ids::{AccountId, AliasKey, AliasName, FunctionKey, FunctionName, LayerName, TriggerKey, TriggerName};
use crate::image::{ImageKey, ImageName};
use crate::layer::LayerKey;

/// The account on whose behalf something is done. Handlers receive one and can reach no key outside it, because no
/// function of the platform takes a bare name.
///
/// Only `auth` makes one from a request, after the signature held; the workspace's layering test refuses other callers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AccountScope {
    account: AccountId,
}

impl AccountScope {
    /// The scope of `account`, whose signature the caller has just verified.
    #[must_use]
    pub fn verified(account: AccountId) -> Self {
        Self { account }
    }

    /// The scope of the owner of a trigger or another stored reference, for calls that arrive through it.
    #[must_use]
    pub fn of_owner(key: &FunctionKey) -> Self {
        Self { account: key.account.clone() }
    }

    /// The scope of the owner of a custom domain, for calls that arrive through it.
    #[must_use]
    pub fn of_domain(key: &DomainKey) -> Self {
        Self { account: key.account.clone() }
    }

    /// The account.
    #[must_use]
    pub fn account(&self) -> &AccountId {
        &self.account
    }

    /// The key of this account's function called `name`.
    #[must_use]
    pub fn function(&self, name: FunctionName) -> FunctionKey {
        FunctionKey { account: self.account.clone(), name }
    }

    /// The key of a trigger of this account's function.
    #[must_use]
    pub fn trigger(&self, function: FunctionName, name: TriggerName) -> TriggerKey {
        TriggerKey { function: self.function(function), name }
    }

    /// The key of this account's image called `name`.
    #[must_use]
    pub fn image(&self, name: ImageName) -> ImageKey {
        ImageKey { account: self.account.clone(), name }
    }

    /// The key of this account's layer called `name`.
    #[must_use]
    pub fn layer(&self, name: LayerName) -> LayerKey {
        LayerKey { account: self.account.clone(), name }
    }

    /// The key of an alias of this account's function.
    #[must_use]
    pub fn alias(&self, function: FunctionName, name: AliasName) -> AliasKey {
        AliasKey { function: self.function(function), name }
    }

    /// The key of a custom domain of this account.
    #[must_use]
    pub fn domain(&self, name: DomainName) -> DomainKey {
        DomainKey { account: self.account.clone(), name }
    }
}
