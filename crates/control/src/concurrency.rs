//! Instances set aside for a function.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use dunlin_model::{AccountScope, Concurrency, FunctionKey, Setting, SettingContent, SettingKey, SettingKind, Stored};
use serde::Deserialize;

use crate::control::Control;
use crate::error::Error;
use crate::instances::Instances;
use crate::listing::Paging;
use crate::settings::Listed;

/// What a reservation is made from, in the wire's spelling.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConcurrencyInput {
    /// How many instances; 0 means that the function cannot be called.
    pub reserved_concurrency: Option<i64>,
}

impl Control {
    /// Sets instances aside for a function, which then may not have more. Holds from now on, also for calls that wait.
    ///
    /// # Errors
    /// When the number is wrong, or the account would be left with less than a tenth of its instances.
    pub async fn put_concurrency(
        &self,
        scope: &AccountScope,
        function: &str,
        input: ConcurrencyInput,
    ) -> Result<Arc<Stored<Setting>>, Error> {
        let (function, _) = self.function(scope, function)?;
        let given = input.reserved_concurrency.ok_or_else(|| Error::invalid("reservedConcurrency", "is required"))?;
        let max = self.limits().instances_per_account_max as u64 * 9 / 10;
        let instances = u64::try_from(given).ok().filter(|instances| *instances <= max);
        let instances = instances.ok_or_else(|| {
            Error::invalid(
                "reservedConcurrency",
                format!("must be between 0 and {max}, which is 90 % of the account's instances (actual: {given})"),
            )
        })?;
        let key = SettingKey::of(&function, SettingKind::Concurrency);
        let content = SettingContent::Concurrency(Concurrency { reserved_concurrency: instances });
        let stored = self.put_setting(&key, Some(max), |_| Ok(content.clone())).await?;
        self.apply_limits();
        Ok(stored)
    }

    /// A function's reservation.
    ///
    /// # Errors
    /// When there is none, or no such function.
    pub fn get_concurrency(&self, scope: &AccountScope, function: &str) -> Result<Arc<Stored<Setting>>, Error> {
        let (function, _) = self.function(scope, function)?;
        let found = self.setting(&SettingKey::of(&function, SettingKind::Concurrency));
        found.ok_or_else(|| Error::ConcurrencyNotFound { function: function.name().clone() })
    }

    /// Gives a function's reservation up.
    ///
    /// # Errors
    /// When there is none, or no such function.
    pub async fn delete_concurrency(&self, scope: &AccountScope, function: &str) -> Result<(), Error> {
        let (function, _) = self.function(scope, function)?;
        if !self.delete_setting(&SettingKey::of(&function, SettingKind::Concurrency)).await? {
            return Err(Error::ConcurrencyNotFound { function: function.name().clone() });
        }
        self.apply_limits();
        Ok(())
    }

    /// One page of the account's reservations, all or one function's, and the token of the next page.
    ///
    /// # Errors
    /// When the page makes no sense.
    pub fn list_concurrency(
        &self,
        scope: &AccountScope,
        function: Option<&str>,
        paging: &Paging,
    ) -> Result<(Vec<Listed>, Option<String>), Error> {
        self.list_settings(scope, SettingKind::Concurrency, function, paging)
    }

    /// Tells whoever runs instances about the reservations that are stored. Cheap when nothing changed.
    pub(crate) fn apply_limits(&self) {
        let view = self.inner.store.view();
        let stored = view.all_settings().filter_map(|(key, setting)| match &setting.value.content {
            SettingContent::Concurrency(concurrency) => {
                Some((key.function(), usize::try_from(concurrency.reserved_concurrency).unwrap_or(usize::MAX)))
            }
            _ => None,
        });
        self.inner.reservations.apply(stored.collect(), &*self.inner.instances);
    }
}

/// The reservations that were told to whoever runs instances.
#[derive(Default)]
pub(crate) struct Reservations {
    told: Mutex<BTreeMap<FunctionKey, usize>>,
}

impl Reservations {
    fn apply(&self, stored: BTreeMap<FunctionKey, usize>, instances: &dyn Instances) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        for function in told.keys().filter(|function| !stored.contains_key(*function)) {
            instances.limit(function, None);
        }
        for (function, limit) in stored.iter().filter(|(function, limit)| told.get(*function) != Some(*limit)) {
            instances.limit(function, Some(*limit));
        }
        *told = stored;
    }
}
