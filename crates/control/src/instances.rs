//! Instances, as far as the control plane has to do with them.

use dunlin_model::{AccountScope, AliasKey, FunctionConfig, FunctionKey, SettingKey};
use dunlin_pool::{InstanceInfo, Pool};
use dunlin_scaling::{Readiness, Scaler};
use jiff::Timestamp;

use crate::control::Control;
use crate::error::Error;
use crate::versions::resolve;

/// What the control plane needs of whoever runs instances.
pub trait Instances: Send + Sync + 'static {
    /// The function, or only the `version` of it (`LATEST` or a number), changed or is gone: the instances that there are
    /// end when they are idle.
    fn retire(&self, function: &FunctionKey, version: Option<&str>);
    /// Every instance of the function ends at once, with the calls it serves.
    fn abort(&self, function: &FunctionKey);
    /// The function may have so many instances, which are set aside for it; none lets it have what its account has left.
    fn limit(&self, function: &FunctionKey, instances: Option<usize>);
    /// A function of this configuration exists: room for its first call may be made ahead.
    fn expect(&self, config: &FunctionConfig);
    /// The function's live instances, oldest first.
    fn instances(&self, function: &FunctionKey) -> Vec<InstanceInfo>;
}

impl Instances for Pool {
    fn retire(&self, function: &FunctionKey, version: Option<&str>) {
        Self::retire(self, function, version);
    }
    fn abort(&self, function: &FunctionKey) {
        Self::abort(self, function);
    }
    fn limit(&self, function: &FunctionKey, instances: Option<usize>) {
        Self::limit(self, function, instances);
    }
    fn expect(&self, config: &FunctionConfig) {
        Self::expect(self, config);
    }
    fn instances(&self, function: &FunctionKey) -> Vec<InstanceInfo> {
        Self::instances(self, function)
    }
}

/// What the control plane needs of whoever keeps instances ready.
pub trait KeepsReady: Send + Sync + 'static {
    /// Something changed that has to do with which instances are kept: what is stored now is acted on.
    fn refresh(&self);
    /// How a setting stands, as of the last [`KeepsReady::refresh`] and what there is now.
    fn standing(&self, key: &SettingKey) -> Readiness;
}

impl KeepsReady for Scaler {
    fn refresh(&self) {
        Self::refresh(self);
    }
    fn standing(&self, key: &SettingKey) -> Readiness {
        Self::standing(self, key)
    }
}

/// Which instances to list; an absent member excludes none.
#[derive(Clone, Debug, Default)]
pub struct InstanceFilter {
    /// Only these.
    pub ids: Option<Vec<String>>,
    /// Only those of this version, or of the versions this alias points to.
    pub qualifier: Option<String>,
    /// Only those created at or after this time.
    pub created_from: Option<Timestamp>,
    /// Only those created at or before this time.
    pub created_to: Option<Timestamp>,
    /// Only those created after the instance of this id.
    pub start_key: Option<String>,
    /// 1 to 1,000; absent means all.
    pub limit: Option<i64>,
}

impl Control {
    /// The live instances of a function, oldest first.
    ///
    /// # Errors
    /// When the function does not exist or the filter makes no sense.
    pub fn list_instances(
        &self,
        scope: &AccountScope,
        function: &str,
        filter: &InstanceFilter,
    ) -> Result<Vec<InstanceInfo>, Error> {
        let (key, _) = self.function(scope, function)?;
        let limit = match filter.limit {
            None => usize::MAX,
            Some(limit) => match usize::try_from(limit) {
                Ok(limit @ 1..=1000) => limit,
                _ => return Err(Error::invalid("limit", format!("must be between 1 and 1000 (actual: {limit})"))),
            },
        };
        let mut instances = self.inner.instances.instances(&key);
        if let Some(qualifier) = &filter.qualifier {
            let versions = self.versions_behind(&key, qualifier)?;
            instances.retain(|instance| versions.contains(&instance.version));
        }
        if let Some(start) = filter.start_key.as_deref().filter(|start| !start.is_empty()) {
            let Some(position) = instances.iter().position(|instance| instance.id.as_str() == start) else {
                return Ok(Vec::new());
            };
            instances.drain(..=position);
        }
        instances.retain(|instance| {
            filter.ids.as_ref().is_none_or(|ids| ids.iter().any(|id| id == instance.id.as_str()))
                && filter.created_from.is_none_or(|from| instance.created >= from)
                && filter.created_to.is_none_or(|to| instance.created <= to)
        });
        instances.truncate(limit);
        Ok(instances)
    }

    /// Every version that calls with this qualifier may meet.
    fn versions_behind(&self, key: &FunctionKey, qualifier: &str) -> Result<Vec<String>, Error> {
        let view = self.inner.store.view();
        let own = resolve(&view, key, Some(qualifier))?.version_key(key).version.to_string();
        let alias = qualifier.parse().ok().and_then(|name| view.alias(&AliasKey { function: key.clone(), name }));
        let additional = alias.and_then(|alias| alias.value.additional).map(|additional| additional.version.to_string());
        Ok(std::iter::once(own).chain(additional).collect())
    }
}
