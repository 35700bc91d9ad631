//! The control plane without HTTP: functions, their code, versions, aliases, their triggers, and custom domains.
//!
//! A door authenticates and translates; [`Control`] decides. Every method takes an
//! [`AccountScope`](dunlin_model::AccountScope) and can reach nothing outside it. What it writes is intent, in the
//! store; the pool and the desk act on what they find there, so calls go on when this crate is stuck.
//!
//! ```text
//!  create ─▶ check ─▶ decode ─▶ blob ─▶ unpack (disposable sandbox) ─▶ store ─▶ instances of older code retire
//!                                 └──── taken back when a later step fails ────┘
//! ```
//!
//! # Invariants
//! - A function in the store has a blob and an unpacked tree. They are removed only when no function has used them for
//!   a grace period, so that a call that has just read the old version still finds its code.
//! - What fails leaves nothing: a package that was refused is gone before the caller hears of it; what a crash left is
//!   found by [`Control::reconcile`].
//! - Every write names the revision it replaces; a lost race is an error, not a lost update.
//! - A page token or a code link says nothing to its holder and does not survive being changed.
//!
//! Limits come from `model`, signatures from `auth`, statuses from `api`.

mod aliases;
mod async_invoke;
mod code;
mod concurrency;
mod control;
mod domains;
mod error;
mod functions;
mod images;
mod instances;
mod layers;
mod listing;
mod packages;
mod scaling;
mod seal;
mod sessions;
mod settings;
mod switches;
mod tags;
mod triggers;
mod versions;

pub use aliases::AliasInput;
pub use code::{CodeDownload, CodeLink, InputCode};
pub use concurrency::ConcurrencyInput;
pub use control::{Clock, Config, Control, Parts, Region};
pub use domains::DomainInput;
pub use dunlin_scaling::Readiness;
pub use error::Error;
pub use functions::FunctionFilter;
pub use images::ImageUpload;
pub use instances::{InstanceFilter, Instances, KeepsReady};
pub use layers::{LayerInput, LayerShown};
pub use listing::{Listing, Paging};
pub use scaling::Stands;
pub use sessions::{PoolSessions, SessionFilter, SessionInput, Sessions};
pub use settings::Listed;
pub use switches::DisableInput;
pub use tags::{ResourceGroupInput, TagFilter, TagInput, UntagInput};
pub use triggers::{TriggerInput, TriggerPatch};
pub use versions::{Direction, VersionInput};
