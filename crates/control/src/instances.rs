//! Instances, as far as the control plane has to do with them.

use dunlin_model::{AccountScope, FunctionConfig, FunctionKey};
use dunlin_pool::{InstanceInfo, Pool};
use jiff::Timestamp;

use crate::control::Control;
use crate::error::Error;

/// What the control plane needs of whoever runs instances.
pub trait Instances: Send + Sync + 'static {
    /// The function changed or is gone: instances of older revisions end when they are idle.
    fn retire(&self, function: &FunctionKey);
    /// A function of this configuration exists: room for its first call may be made ahead.
    fn expect(&self, config: &FunctionConfig);
    /// The function's live instances, oldest first.
    fn instances(&self, function: &FunctionKey) -> Vec<InstanceInfo>;
}

impl Instances for Pool {
    fn retire(&self, function: &FunctionKey) {
        Self::retire(self, function);
    }
    fn expect(&self, config: &FunctionConfig) {
        Self::expect(self, config);
    }
    fn instances(&self, function: &FunctionKey) -> Vec<InstanceInfo> {
        Self::instances(self, function)
    }
}

/// Which instances to list; an absent member excludes none.
#[derive(Clone, Debug, Default)]
pub struct InstanceFilter {
    /// Only these.
    pub ids: Option<Vec<String>>,
    /// Only those started as this.
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
        if let Some(qualifier) = &filter.qualifier {
            Self::only_latest(key.name(), Some(qualifier))?;
        }
        let mut instances = self.inner.instances.instances(&key);
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
}
