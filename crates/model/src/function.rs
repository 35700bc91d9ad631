//! A function as its owner configured it, and the rules its members obey.

mod check;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ids::{Crc64, Digest, FunctionName};
use crate::image::{CONTAINER_MEMBER, CustomContainerConfig, ImageUse};
use crate::layer::LayerUse;
use crate::limits::{InvalidField, Limits};
use crate::runtime_name::{Language, Protocol, Runtime};

/// The environment variable that asks for [`FunctionConfig::streams_requests`] with the value `true`.
pub const STREAM_REQUESTS: &str = "DUNLIN_STREAM_REQUESTS";

/// The environment variable that asks for [`FunctionConfig::makes_templates`] with the value `true`.
pub const TEMPLATE: &str = "DUNLIN_TEMPLATE";

/// Everything the owner can set, in the wire's spelling (contract section 4.2). A member that was never set stays
/// absent when it is read back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FunctionConfig {
    /// Unique within the account, fixed for life.
    pub function_name: FunctionName,
    /// Which language and version.
    pub runtime: Runtime,
    /// `file.function`; empty for custom runtimes that do not give one.
    #[serde(default)]
    pub handler: String,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// MB, a multiple of 64.
    pub memory_size: i64,
    /// Seconds one call may run.
    pub timeout: i64,
    /// vCPUs; absent means in proportion to memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<f64>,
    /// MB of writable disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_size: Option<i64>,
    /// Calls at a time in one instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_concurrency: Option<i64>,
    /// Seconds an idle instance is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<i64>,
    /// Whether instances reach public addresses.
    pub internet_access: bool,
    /// Set before user code is loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment_variables: Option<BTreeMap<String, String>>,
    /// How a custom runtime is started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custom_runtime_config: Option<CustomRuntimeConfig>,
    /// Hooks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_lifecycle_config: Option<InstanceLifecycleConfig>,
    /// Labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<Tag>>,
    /// The packages at `/opt`; of two that hold the same path, the first counts. Resolved by the control plane.
    #[serde(default, rename = "layerUses", skip_serializing_if = "Option::is_none")]
    pub layers: Option<Vec<LayerUse>>,
    /// The image that runs, where [`Runtime::is_container`]. Resolved by the control plane.
    #[serde(default, rename = "imageUse", skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageUse>,
    /// The role whose credentials instances get.
    #[serde(default)]
    pub role: String,
    /// Members that are kept and given back as they came (`logConfig`, `vpcConfig`, …), by their wire names.
    #[serde(default, flatten)]
    pub kept: BTreeMap<String, Value>,
}

/// How to start and probe the user's own HTTP server (contract section 8).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CustomRuntimeConfig {
    /// The program and its first arguments; absent means `/code/bootstrap`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// Further arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args: Option<Vec<String>>,
    /// Where the server listens; absent means 9000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<i64>,
    /// When the server counts as up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check_config: Option<CustomHealthCheckConfig>,
}

impl CustomRuntimeConfig {
    /// The port in force.
    #[must_use]
    pub fn port_in_force(&self) -> u16 {
        self.port.and_then(|port| u16::try_from(port).ok()).unwrap_or(9000)
    }
}

/// A health check over HTTP (contract section 4.3).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CustomHealthCheckConfig {
    /// Path to ask for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_get_url: Option<String>,
    /// 0–120 s, default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial_delay_seconds: Option<i64>,
    /// 1–120 s, default 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period_seconds: Option<i64>,
    /// 1–3 s, default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<i64>,
    /// 1–120, default 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_threshold: Option<i64>,
    /// 1–120, default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success_threshold: Option<i64>,
}

/// What runs once per instance, before the first and after the last call.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceLifecycleConfig {
    /// Before the first call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initializer: Option<LifecycleHook>,
    /// After the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pre_stop: Option<LifecycleHook>,
}

/// One hook: a handler or a command, never both.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LifecycleHook {
    /// `file.function`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handler: Option<String>,
    /// A program and its arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// Seconds; absent means 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i64>,
}

impl LifecycleHook {
    /// Whether there is anything to run.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.handler.as_deref().is_some_and(|handler| !handler.is_empty())
            || self.command.as_ref().is_some_and(|command| !command.is_empty())
    }

    /// Seconds in force.
    #[must_use]
    pub fn timeout_in_force(&self) -> i64 {
        self.timeout.unwrap_or(3)
    }
}

/// A label. The wire capitalises its members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tag {
    /// 1–64 characters.
    #[serde(rename = "Key")]
    pub key: String,
    /// 0–128 characters.
    #[serde(rename = "Value", default)]
    pub value: String,
}

/// A stored code package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CodePackage {
    /// Where the zip and its unpacked tree are found.
    pub digest: Digest,
    /// What the vendor's tools compare.
    pub checksum: Crc64,
    /// Bytes of the zip.
    pub size: u64,
}

/// A function as it is stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Function {
    /// What the owner set.
    pub config: FunctionConfig,
    /// What runs.
    pub code: CodePackage,
    /// A random id, new for every creation, so that a deleted function's namesake is another one.
    pub function_id: String,
    /// When it was created.
    pub created: Timestamp,
    /// When it last changed.
    pub modified: Timestamp,
}

impl Function {
    /// Whether an instance cannot tell this from `other`: what differs, if anything does, is for the owner's eyes only.
    #[must_use]
    pub fn runs_like(&self, other: &Self) -> bool {
        let seen = |function: &Self| {
            let mut config = function.config.clone();
            (config.tags, config.description) = (None, String::new());
            config.kept.remove("resourceGroupId");
            config
        };
        self.function_id == other.function_id && self.code == other.code && seen(self) == seen(other)
    }
}

/// A partial change, in the wire's spelling: only present members apply. The same shape reads `CreateFunctionInput`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FunctionPatch {
    /// Only on create.
    pub function_name: Option<String>,
    /// See [`FunctionConfig::runtime`].
    pub runtime: Option<String>,
    /// See [`FunctionConfig::handler`].
    pub handler: Option<String>,
    /// See [`FunctionConfig::description`].
    pub description: Option<String>,
    /// See [`FunctionConfig::memory_size`].
    pub memory_size: Option<i64>,
    /// See [`FunctionConfig::timeout`].
    pub timeout: Option<i64>,
    /// See [`FunctionConfig::cpu`].
    pub cpu: Option<f64>,
    /// See [`FunctionConfig::disk_size`].
    pub disk_size: Option<i64>,
    /// See [`FunctionConfig::instance_concurrency`].
    pub instance_concurrency: Option<i64>,
    /// See [`FunctionConfig::idle_timeout`].
    pub idle_timeout: Option<i64>,
    /// See [`FunctionConfig::internet_access`].
    pub internet_access: Option<bool>,
    /// See [`FunctionConfig::environment_variables`].
    pub environment_variables: Option<BTreeMap<String, String>>,
    /// See [`FunctionConfig::custom_runtime_config`].
    pub custom_runtime_config: Option<CustomRuntimeConfig>,
    /// See [`FunctionConfig::instance_lifecycle_config`].
    pub instance_lifecycle_config: Option<InstanceLifecycleConfig>,
    /// See [`FunctionConfig::tags`]; only on create.
    pub tags: Option<Vec<Tag>>,
    /// See [`FunctionConfig::role`].
    pub role: Option<String>,
    /// Everything else: kept members, `code`, and what the wire may add.
    #[serde(flatten)]
    pub rest: BTreeMap<String, Value>,
}

/// See [`FunctionConfig::scales_on_demand`].
const ON_DEMAND_OFF: &str = "disableOndemand";

/// Members that are stored and given back as they came.
const KEPT: &[&str] = &[
    CONTAINER_MEMBER,
    "customDNS",
    "disableInjectCredentials",
    ON_DEMAND_OFF,
    "enableLongLiving",
    "gpuConfig",
    "instanceIsolationMode",
    "juiceFsConfig",
    "logConfig",
    "microSandboxConfig",
    "nasConfig",
    "ossMountConfig",
    "polarFsConfig",
    "resourceGroupId",
    "sessionAffinity",
    "sessionAffinityConfig",
    "tracingConfig",
    "vpcConfig",
];

impl FunctionPatch {
    /// Makes a new function's configuration out of this patch, with the contract's defaults.
    ///
    /// # Errors
    /// The first member that is missing or wrong.
    pub fn create(self, limits: &Limits) -> Result<FunctionConfig, InvalidField> {
        let name = self.function_name.as_deref().ok_or_else(|| InvalidField::new("functionName", "is required"))?;
        let runtime = self.runtime.as_deref().ok_or_else(|| InvalidField::new("runtime", "is required"))?;
        let base = FunctionConfig {
            function_name: name.parse()?,
            runtime: parse_runtime(runtime)?,
            handler: String::new(),
            description: String::new(),
            memory_size: 128,
            timeout: 3,
            cpu: None,
            disk_size: None,
            instance_concurrency: None,
            idle_timeout: None,
            internet_access: true,
            environment_variables: None,
            custom_runtime_config: None,
            instance_lifecycle_config: None,
            tags: None,
            layers: None,
            image: None,
            role: String::new(),
            kept: BTreeMap::from([
                ("instanceIsolationMode".into(), Value::from("SHARE")),
                ("sessionAffinity".into(), Value::from("NONE")),
                ("disableOndemand".into(), Value::from(false)),
            ]),
        };
        let tags = self.tags.clone().filter(|tags| !tags.is_empty());
        let mut config = self.apply(base, limits)?;
        config.tags = tags;
        config.check(limits)?;
        Ok(config)
    }

    /// Applies the members that are present to `base`.
    ///
    /// # Errors
    /// The first member that is wrong; `base` is untouched then.
    pub fn apply(self, base: FunctionConfig, limits: &Limits) -> Result<FunctionConfig, InvalidField> {
        let mut config = base;
        if let Some(runtime) = &self.runtime {
            config.runtime = parse_runtime(runtime)?;
        }
        if let Some(handler) = self.handler {
            config.handler = handler;
        }
        if let Some(description) = self.description {
            config.description = description;
        }
        config.memory_size = self.memory_size.unwrap_or(config.memory_size);
        config.timeout = self.timeout.unwrap_or(config.timeout);
        config.cpu = self.cpu.or(config.cpu);
        config.disk_size = self.disk_size.or(config.disk_size);
        config.instance_concurrency = self.instance_concurrency.or(config.instance_concurrency);
        config.idle_timeout = self.idle_timeout.or(config.idle_timeout);
        config.internet_access = self.internet_access.unwrap_or(config.internet_access);
        if let Some(variables) = self.environment_variables {
            // An explicitly empty map clears the setting.
            config.environment_variables = Some(variables).filter(|variables| !variables.is_empty());
        }
        if let Some(custom) = self.custom_runtime_config {
            config.custom_runtime_config = Some(custom);
        }
        if let Some(hooks) = self.instance_lifecycle_config {
            config.instance_lifecycle_config = Some(hooks);
        }
        if let Some(role) = self.role {
            config.role = role;
        }
        for (member, value) in self.rest {
            if KEPT.contains(&member.as_str()) {
                if value.is_null() {
                    continue;
                }
                if member == ON_DEMAND_OFF && !value.is_boolean() {
                    return Err(InvalidField::new(member, "must be true or false"));
                }
                config.kept.insert(member, value);
            }
        }
        config.check(limits)?;
        Ok(config)
    }
}

fn parse_runtime(text: &str) -> Result<Runtime, InvalidField> {
    Runtime::parse(text).map_err(|problem| InvalidField::new("runtime", format!("is invalid: {problem}")))
}

impl FunctionConfig {
    /// Whether there may be more instances than are kept ready.
    #[must_use]
    pub fn scales_on_demand(&self) -> bool {
        self.kept.get(ON_DEMAND_OFF) != Some(&Value::Bool(true))
    }

    /// Member `customContainerConfig`, as far as it is understood.
    ///
    /// # Errors
    /// The member that cannot be read.
    pub fn container(&self) -> Result<CustomContainerConfig, InvalidField> {
        let given = self.kept.get(CONTAINER_MEMBER).filter(|given| !given.is_null());
        let read = given.map_or_else(|| Ok(CustomContainerConfig::default()), CustomContainerConfig::deserialize);
        read.map_err(|error| InvalidField::new(CONTAINER_MEMBER, format!("is malformed: {error}")))
    }

    /// How the user's own HTTP server is spoken with, which a custom runtime and a container say in different places.
    #[must_use]
    pub fn server_in_force(&self) -> CustomRuntimeConfig {
        if self.runtime.is_container() {
            // Checked when it was stored.
            return self.container().unwrap_or_default().server();
        }
        self.custom_runtime_config.clone().unwrap_or_default()
    }

    /// vCPUs in force: what was set, or memory in proportion, at least 0.05.
    #[must_use]
    pub fn cpu_in_force(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "memory is at most 32768")]
        self.cpu.unwrap_or_else(|| (self.memory_size as f64 / 2048.0).max(0.05))
    }

    /// Whether a built-in runtime gets the body of an HTTP request as a stream instead of in the event (`context.body`, or in
    /// Java an `InputStream`): asked for by the environment variable [`STREAM_REQUESTS`].
    #[must_use]
    pub fn streams_requests(&self) -> bool {
        let asked = || self.environment_variables.as_ref()?.get(STREAM_REQUESTS);
        self.runtime.protocol() == Protocol::Frames && asked().is_some_and(|value| value == "true")
    }

    /// Whether instances after the first are forked from one that has loaded the code: asked for by the environment variable
    /// [`TEMPLATE`].
    #[must_use]
    pub fn makes_templates(&self) -> bool {
        let asked = || self.environment_variables.as_ref()?.get(TEMPLATE);
        self.runtime.language() == Language::Python && asked().is_some_and(|value| value == "true")
    }

    /// The initializer, if one is set.
    #[must_use]
    pub fn initializer(&self) -> Option<&LifecycleHook> {
        self.instance_lifecycle_config.as_ref()?.initializer.as_ref().filter(|hook| hook.is_set())
    }

    /// The pre-stop hook, if one is set.
    #[must_use]
    pub fn pre_stop(&self) -> Option<&LifecycleHook> {
        self.instance_lifecycle_config.as_ref()?.pre_stop.as_ref().filter(|hook| hook.is_set())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn created(json: &str) -> Result<FunctionConfig, InvalidField> {
        let patch: FunctionPatch = serde_json::from_str(json).expect("the case is JSON of the right types");
        patch.create(&Limits::default())
    }

    #[test]
    fn a_minimal_function_gets_the_contracts_defaults() {
        let config = created(r#"{"functionName":"f","runtime":"python3.10","handler":"index.handler"}"#).unwrap();
        assert_eq!((config.memory_size, config.timeout, config.internet_access), (128, 3, true));
        assert_eq!(config.cpu_in_force(), 0.0625);
        let json = serde_json::to_value(&config).unwrap();
        assert!(json.get("cpu").is_none() && json.get("environmentVariables").is_none(), "{json}");
    }

    #[test]
    fn every_wrong_member_is_named() {
        let base = r#""functionName":"f","runtime":"python3.10","handler":"index.handler""#;
        for (member, field) in [
            (r#""memorySize":-1"#, "memorySize"),
            (r#""memorySize":129"#, "memorySize"),
            (r#""memorySize":9223372036854775807"#, "memorySize"),
            (r#""timeout":0"#, "timeout"),
            (r#""timeout":86401"#, "timeout"),
            (r#""cpu":0.07"#, "cpu"),
            (r#""diskSize":513"#, "diskSize"),
            (r#""instanceConcurrency":0"#, "instanceConcurrency"),
            (r#""environmentVariables":{"A=B":"x"}"#, "environmentVariables.A=B"),
            (r#""environmentVariables":{"FC_X":"x"}"#, "environmentVariables.FC_X"),
            (r#""customRuntimeConfig":{"port":70000}"#, "customRuntimeConfig.port"),
            (
                r#""instanceLifecycleConfig":{"initializer":{"handler":"a.b","timeout":301}}"#,
                "instanceLifecycleConfig.initializer.timeout",
            ),
            (r#""instanceLifecycleConfig":{"preStop":{"command":["a"]}}"#, "instanceLifecycleConfig.preStop.command"),
            (r#""tags":[{"Key":"acs:x","Value":""}]"#, "tags"),
        ] {
            let error = created(&format!("{{{base},{member}}}")).expect_err(member);
            assert_eq!(error.field, field, "{member}");
        }
    }

    #[test]
    fn a_handler_cannot_climb_out_of_the_code() {
        for handler in ["../x.handler", "/etc/x.h", "a/../b.c", "nodot", "", "a.", ".b", "a//b.c"] {
            let json = format!(r#"{{"functionName":"f","runtime":"nodejs20","handler":{handler:?}}}"#);
            assert_eq!(created(&json).expect_err(handler).field, "handler");
        }
    }

    #[test]
    fn a_patch_leaves_absent_members_alone() {
        let base =
            created(r#"{"functionName":"f","runtime":"python3.10","handler":"index.handler","environmentVariables":{"A":"1"}}"#)
                .unwrap();
        let patch: FunctionPatch = serde_json::from_str(r#"{"timeout":9}"#).unwrap();
        let changed = patch.apply(base.clone(), &Limits::default()).unwrap();
        assert_eq!(changed.timeout, 9);
        assert_eq!(changed.environment_variables, base.environment_variables);
    }
}
