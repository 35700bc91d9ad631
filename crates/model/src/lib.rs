//! The nouns of the platform: ids, functions, triggers, limits, invocations, records.
//!
//! Every other crate speaks in these types. Nothing here does I/O, is asynchronous or reads a clock: a value that
//! exists is valid, because the only ways to make one check it.
//!
//! # Invariants
//! - An id's text form parses only as that kind of id.
//! - A [`FunctionConfig`] that passed [`FunctionConfig::check`] is within [`Limits`].
//! - An [`AccountScope`] exists only after a signature was verified (or for the platform's own work).

mod chain;
pub mod domain;
pub mod function;
pub mod ids;
pub mod image;
pub mod interpreter;
pub mod invocation;
pub mod layer;
pub mod limits;
pub mod record;
pub mod runtime_name;
pub mod scaling;
pub mod schedule;
pub mod scope;
pub mod session;
pub mod settings;
pub mod stored;
pub mod tar;
pub mod trigger;
pub mod version;

pub use chain::chain;
pub use domain::{CustomDomain, DomainKey, DomainName};
pub use function::{
    CodePackage, CustomHealthCheckConfig, CustomRuntimeConfig, Function, FunctionConfig, FunctionPatch, InstanceLifecycleConfig,
    LifecycleHook, STREAM_REQUESTS, TEMPLATE, Tag,
};
pub use ids::{
    AccessKeyId, AccountId, AliasKey, AliasName, CellId, Crc64, Digest, FunctionKey, FunctionName, InstanceId, InvalidId,
    LayerName, Qualifier, RequestId, Revision, TriggerKey, TriggerName, VersionKey,
};
pub use image::{
    CustomContainerConfig, ImageConfig, ImageKey, ImageName, ImageReference, ImageUse, ImageUser, ImageVersion, LOCAL_REGISTRY,
    LocalImage, RegistryAuthConfig, RegistryConfig,
};
pub use interpreter::{Choice, Interpreter, InterpreterId, InterpreterVersion, Interpreters, Standing, Wanted};
pub use invocation::{AttemptToken, ErrorType, FunctionError, Invocation, LogType, Origin};
pub use layer::{Layer, LayerArn, LayerKey, LayerUse, LayerVersion};
pub use limits::{InvalidField, Limits};
pub use record::{Outcome, Phases, Record};
pub use runtime_name::{Language, Protocol, Runtime};
pub use scaling::{
    Metric, Plan, Provision, Scaling, ScalingPolicy, Scheduled, ScheduledAction, TargetTrackingPolicy, Tracked, Window,
};
pub use schedule::Schedule;
pub use scope::AccountScope;
pub use session::{Affinity, Isolation, SessionAsk, SessionId, SessionRules};
pub use settings::{
    AsyncInvoke, Concurrency, Destination, DestinationConfig, Restriction, Setting, SettingContent, SettingKey, SettingKind,
    VpcBindings,
};
pub use stored::Stored;
pub use trigger::{AuthType, CorsConfig, HttpTriggerConfig, Method, Trigger};
pub use version::{Additional, Alias, Target, Version, VersionId};
