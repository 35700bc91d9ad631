//! What is said about a function beside its configuration: instances do not see it, and it changes without touching them.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{AccountId, FunctionKey, FunctionName, InvalidId};
use crate::limits::InvalidField;
use crate::scaling::{Provision, Scaling};

/// Which kind of setting. A function has at most one of each kind for each qualifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SettingKind {
    /// See [`AsyncInvoke`]; for each qualifier.
    AsyncInvoke,
    /// See [`Concurrency`]; for the function as a whole.
    Concurrency,
    /// See [`Restriction`]; for the function as a whole.
    Restriction,
    /// See [`VpcBindings`]; for the function as a whole.
    VpcBindings,
    /// See [`Provision`]; for each qualifier.
    Provision,
    /// See [`Scaling`]; for each qualifier.
    Scaling,
}

impl SettingKind {
    /// All there are.
    pub const ALL: [Self; 6] =
        [Self::AsyncInvoke, Self::Concurrency, Self::Restriction, Self::VpcBindings, Self::Provision, Self::Scaling];

    /// As it is stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AsyncInvoke => "asyncInvoke",
            Self::Concurrency => "concurrency",
            Self::Restriction => "restriction",
            Self::VpcBindings => "vpcBindings",
            Self::Provision => "provision",
            Self::Scaling => "scaling",
        }
    }
}

impl fmt::Display for SettingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for SettingKind {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let found = Self::ALL.into_iter().find(|kind| kind.as_str() == text);
        found.ok_or(InvalidId { what: "kind of setting", rule: "it must be one that this release knows" })
    }
}

/// Addresses one setting of one function. Keys of one account and kind lie together, by function and qualifier.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SettingKey {
    account: AccountId,
    kind: SettingKind,
    function: FunctionName,
    qualifier: Box<str>,
}

impl SettingKey {
    /// The function's setting of a `kind` that concerns all of it.
    #[must_use]
    pub fn of(function: &FunctionKey, kind: SettingKind) -> Self {
        Self::for_qualifier(function, kind, "")
    }

    /// The function's setting of a `kind` that it has for each `qualifier`.
    #[must_use]
    pub fn for_qualifier(function: &FunctionKey, kind: SettingKind, qualifier: &str) -> Self {
        Self { account: function.account().clone(), kind, function: function.name().clone(), qualifier: qualifier.into() }
    }

    /// Whose it is.
    #[must_use]
    pub fn account(&self) -> &AccountId {
        &self.account
    }

    /// Which kind.
    #[must_use]
    pub fn kind(&self) -> SettingKind {
        self.kind
    }

    /// The name of its function.
    #[must_use]
    pub fn function_name(&self) -> &FunctionName {
        &self.function
    }

    /// Its function.
    #[must_use]
    pub fn function(&self) -> FunctionKey {
        FunctionKey::from_stored(self.account.clone(), self.function.clone())
    }

    /// `LATEST`, a version or an alias; empty for kinds that concern the whole function.
    #[must_use]
    pub fn qualifier(&self) -> &str {
        &self.qualifier
    }
}

/// One setting as it is stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Setting {
    /// What it says.
    pub content: SettingContent,
    /// When it was first made.
    pub created: Timestamp,
    /// When it last changed.
    pub modified: Timestamp,
}

/// What a setting says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SettingContent {
    /// How asynchronous calls are treated.
    AsyncInvoke(AsyncInvoke),
    /// How many instances there may be.
    Concurrency(Concurrency),
    /// Whether it may be called at all.
    Restriction(Restriction),
    /// Which networks it is bound to.
    VpcBindings(VpcBindings),
    /// How many instances are kept ready, in the older form.
    Provision(Provision),
    /// How many instances are kept ready, in the newer form.
    Scaling(Scaling),
}

impl SettingContent {
    /// Which kind it is.
    #[must_use]
    pub fn kind(&self) -> SettingKind {
        match self {
            Self::AsyncInvoke(_) => SettingKind::AsyncInvoke,
            Self::Concurrency(_) => SettingKind::Concurrency,
            Self::Restriction(_) => SettingKind::Restriction,
            Self::VpcBindings(_) => SettingKind::VpcBindings,
            Self::Provision(_) => SettingKind::Provision,
            Self::Scaling(_) => SettingKind::Scaling,
        }
    }

    /// How much it takes of what an account's settings of this kind share.
    #[must_use]
    pub fn share(&self) -> u64 {
        match self {
            Self::Concurrency(concurrency) => concurrency.reserved_concurrency,
            Self::AsyncInvoke(_) | Self::Restriction(_) | Self::VpcBindings(_) | Self::Provision(_) | Self::Scaling(_) => 0,
        }
    }
}

/// Instances that are set aside for a function, which may not have more (contract section 12).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Concurrency {
    /// How many; 0 means that it cannot be called.
    pub reserved_concurrency: u64,
}

/// Whether a function may be called at all (contract section 4.2, `FunctionRestriction`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Restriction {
    /// It may not.
    pub disable: bool,
    /// Why not, in the owner's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The networks a function is bound to. Kept and given back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VpcBindings {
    /// In the order in which they were bound.
    pub vpc_ids: Vec<String>,
}

/// How asynchronous calls are treated (contract section 11). Members that were never set stay absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AsyncInvoke {
    /// Whether calls are kept as tasks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub async_task: Option<bool>,
    /// How often a call that failed is tried again, 0 to 8; absent means 3.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_async_retry_attempts: Option<i64>,
    /// Seconds after which a call that still waits is given up, 1 to 604,800; absent means 86,400.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_async_event_age_in_seconds: Option<i64>,
    /// Who hears how a call ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination_config: Option<DestinationConfig>,
}

/// Who hears how an asynchronous call ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DestinationConfig {
    /// When it did well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_success: Option<Destination>,
    /// When it failed for good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<Destination>,
}

/// One receiver.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Destination {
    /// Its resource name; absent or empty for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
}

impl AsyncInvoke {
    /// Checks every member. `function` is whose setting it is: its results do not go to itself or to another account.
    ///
    /// # Errors
    /// The first member that is wrong.
    pub fn check(&self, function: &FunctionKey) -> Result<(), InvalidField> {
        let within = |field: &str, value: Option<i64>, low: i64, high: i64| match value {
            Some(value) if !(low..=high).contains(&value) => {
                Err(InvalidField::new(field, format!("must be between {low} and {high} (actual: {value})")))
            }
            _ => Ok(()),
        };
        within("maxAsyncRetryAttempts", self.max_async_retry_attempts, 0, 8)?;
        within("maxAsyncEventAgeInSeconds", self.max_async_event_age_in_seconds, 1, 604_800)?;
        let Some(config) = &self.destination_config else { return Ok(()) };
        for (field, destination) in [("onSuccess", &config.on_success), ("onFailure", &config.on_failure)] {
            let given = destination.as_ref().and_then(|destination| destination.destination.as_deref()).unwrap_or_default();
            if !given.is_empty() {
                let wrong = |problem| InvalidField::new(format!("destinationConfig.{field}.destination"), problem);
                check_destination(given, function).map_err(wrong)?;
            }
        }
        Ok(())
    }
}

fn check_destination(given: &str, function: &FunctionKey) -> Result<(), &'static str> {
    const FORM: &str =
        "must be a resource name like acs:fc:REGION:ACCOUNT:functions/NAME or acs:mns:REGION:ACCOUNT:/queues/NAME/messages";
    let parts: Vec<&str> = given.splitn(5, ':').collect();
    let ["acs", service, _region, account, resource] = parts[..] else { return Err(FORM) };
    if given.len() > 512 || given.chars().any(|c| c.is_control() || c.is_whitespace()) || resource.is_empty() {
        return Err(FORM);
    }
    if !["fc", "mns", "eventbridge", "mq"].contains(&service) {
        return Err(FORM);
    }
    if account != function.account().as_str() {
        return Err("must be of the function's own account");
    }
    if service == "fc" {
        let name = resource.strip_prefix("functions/").ok_or(FORM)?.split('/').next().unwrap_or_default();
        if name.parse::<FunctionName>().is_err() {
            return Err(FORM);
        }
        if name == function.name().as_str() {
            return Err("is the function itself, which would call itself without end");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_is_a_resource_of_the_same_account_and_not_the_function_itself() {
        let function = FunctionKey::from_stored("0000000000000001".parse().unwrap(), "f".parse().unwrap());
        for good in [
            "acs:fc:cn-hangzhou:0000000000000001:functions/g",
            "acs:fc:cn-hangzhou:0000000000000001:functions/g/prod",
            "acs:mns:cn-hangzhou:0000000000000001:/queues/q/messages",
            "acs:eventbridge:cn-hangzhou:0000000000000001:eventbus/default",
        ] {
            assert_eq!(check_destination(good, &function), Ok(()), "{good}");
        }
        for bad in [
            "g",
            "acs:fc:r:0000000000000001",
            "acs:fc:r:0000000000000001:",
            "acs:fc:r:0000000000000002:functions/g",
            "acs:fc:r:0000000000000001:functions/f",
            "acs:fc:r:0000000000000001:functions/f/prod",
            "acs:fc:r:0000000000000001:functions/",
            "acs:fc:r:0000000000000001:services/x",
            "acs:oss:r:0000000000000001:bucket",
            "acs:mns:r:0000000000000001:/queues/q\n",
        ] {
            assert!(check_destination(bad, &function).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_kind_reads_back_what_it_writes() {
        for kind in SettingKind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
    }
}
