//! stub
use std::time::Duration;
use dunlin_model::VersionKey;
use crate::class::Class;
/// What a call needs.
#[derive(Clone, Debug)]
pub struct Demand {
    /// What the instance is bound to.
    pub key: VersionKey,
    /// What it is made from.
    pub class: Class,
    /// Calls at a time.
    pub concurrency: u32,
    /// How long an idle instance is kept, when the function says.
    pub idle: Option<Duration>,
    /// Its limit.
    pub memory_bytes: u64,
}
