//! How much the platform takes on, as the operator says on the command line.

use std::ffi::OsString;
use std::time::Duration;

use dunlin_model::Limits;

/// What the operator said; what is absent is the platform's own choice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    /// Most instances of one account at a time.
    pub instances_per_account: Option<usize>,
    /// Most instances of one function at a time, where nothing else was said of it.
    pub instances_per_function: Option<usize>,
    /// Most calls that wait for an instance.
    pub waiting_calls: Option<usize>,
    /// How long a call may wait for an instance, apart from how long it may run.
    pub queue_wait: Option<Duration>,
    /// Most cells of one kind that wait for a function; 0 makes none ahead of need.
    pub stock: Option<usize>,
    /// Memory that cells and instances may use together, in MB.
    pub memory_mb: Option<u64>,
    /// How long the load must have been lower before fewer instances are kept ready.
    pub scale_in_after: Option<Duration>,
    /// What instances do between calls.
    pub idle: Idle,
}

/// What an instance does between calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Idle {
    /// Its processes are stopped soon after a call and go on with the next one, as in Function Compute.
    #[default]
    Freeze,
    /// They run on.
    Run,
}

impl Capacity {
    /// The same, for the command line of the server.
    pub(crate) fn arguments(&self) -> Vec<OsString> {
        let named = [
            ("--instances-per-account", self.instances_per_account.map(|most| most.to_string())),
            ("--instances-per-function", self.instances_per_function.map(|most| most.to_string())),
            ("--waiting-calls", self.waiting_calls.map(|most| most.to_string())),
            ("--queue-wait", self.queue_wait.map(|wait| wait.as_secs().to_string())),
            ("--stock", self.stock.map(|most| most.to_string())),
            ("--memory-mb", self.memory_mb.map(|mb| mb.to_string())),
            ("--scale-in-after", self.scale_in_after.map(|after| after.as_secs().to_string())),
            ("--idle", (self.idle == Idle::Run).then(|| "run".to_owned())),
        ];
        let said = named.into_iter().filter_map(|(name, value)| Some([name.into(), value?.into()]));
        said.flatten().collect()
    }

    pub(crate) fn limits(&self) -> Limits {
        let mut limits = Limits::default();
        limits.instances_per_account_max = self.instances_per_account.unwrap_or(limits.instances_per_account_max);
        limits
    }

    pub(crate) fn pool(&self, region: String, limits: &Limits) -> dunlin_pool::Config {
        let mut config = dunlin_pool::Config {
            region,
            instances_per_account_max: limits.instances_per_account_max,
            instances_per_function_max: self.instances_per_function,
            stock_max: self.stock,
            ..dunlin_pool::Config::default()
        };
        config.memory_bytes_max = self.memory_mb.map_or(config.memory_bytes_max, |mb| mb.saturating_mul(1 << 20));
        if self.idle == Idle::Run {
            config.freeze_after = None;
        }
        config.waiting_max = self.waiting_calls.unwrap_or(config.waiting_max);
        config
    }

    pub(crate) fn scaling(&self) -> dunlin_scaling::Config {
        let mut config = dunlin_scaling::Config::default();
        config.scale_in_after = self.scale_in_after.unwrap_or(config.scale_in_after);
        config
    }

    pub(crate) fn invoke(&self, limits: &Limits) -> dunlin_invoke::Config {
        let mut config =
            dunlin_invoke::Config { payload_bytes_max: limits.payload_bytes_max, ..dunlin_invoke::Config::default() };
        config.queue_wait_max = self.queue_wait.unwrap_or(config.queue_wait_max);
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_said_is_passed_on() {
        assert!(Capacity::default().arguments().is_empty());
        let capacity =
            Capacity { stock: Some(0), queue_wait: Some(Duration::from_secs(5)), idle: Idle::Run, ..Capacity::default() };
        assert_eq!(capacity.arguments(), ["--queue-wait", "5", "--stock", "0", "--idle", "run"]);
    }
}
