//! Layers: packages that are shared by functions and seen by them at `/opt` (contract sections 4.9 and 12).

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::function::CodePackage;
use crate::ids::{AccountId, Digest, InvalidId, LayerName};

/// Addresses one layer of one account.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LayerKey {
    pub(crate) account: AccountId,
    pub(crate) name: LayerName,
}

impl LayerKey {
    /// The account that owns the layer.
    #[must_use]
    pub fn account(&self) -> &AccountId {
        &self.account
    }

    /// The layer's name.
    #[must_use]
    pub fn name(&self) -> &LayerName {
        &self.name
    }

    /// Restores a key that the store itself wrote. Requests build keys through [`crate::AccountScope`] only.
    #[must_use]
    pub fn from_stored(account: AccountId, name: LayerName) -> Self {
        Self { account, name }
    }
}

impl fmt::Display for LayerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.account, self.name)
    }
}

/// What all versions of a layer have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer {
    /// The number of its newest version, whether that still exists or not. None is used twice.
    pub last_version: u64,
    /// Whether functions of other accounts may use it.
    pub public: bool,
}

/// One version of a layer. Never changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LayerVersion {
    /// The layer.
    pub name: LayerName,
    /// Its number, from 1.
    pub version: u64,
    /// Free text.
    pub description: String,
    /// Under which terms it may be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
    /// What it is meant for. Advice, not a rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compatible_runtime: Option<Vec<String>>,
    /// What it holds.
    pub code: CodePackage,
    /// When it was made.
    pub created: Timestamp,
}

/// A layer version that a function uses: what it was called, and what it was when the function was configured. It stays
/// usable for the function when the version is deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LayerUse {
    /// The layer version's resource name.
    pub arn: String,
    /// What is seen at `/opt`.
    pub digest: Digest,
    /// Bytes of the zip.
    pub size: u64,
}

/// The resource name of a layer version: `acs:fc:REGION:ACCOUNT:layers/NAME/versions/NUMBER`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerArn {
    /// Where it is.
    pub region: String,
    /// Whose it is.
    pub account: AccountId,
    /// The layer.
    pub name: LayerName,
    /// The version's number.
    pub version: u64,
}

impl fmt::Display for LayerArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "acs:fc:{}:{}:layers/{}/versions/{}", self.region, self.account, self.name, self.version)
    }
}

impl FromStr for LayerArn {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        const WRONG: InvalidId = InvalidId {
            what: "layer",
            rule: "it must be the resource name of a layer version: acs:fc:REGION:ACCOUNT:layers/NAME/versions/NUMBER",
        };
        let read = || {
            let (region, rest) = text.strip_prefix("acs:fc:")?.split_once(':')?;
            let (account, rest) = rest.split_once(":layers/")?;
            let (name, number) = rest.split_once("/versions/")?;
            Some(Self {
                region: region.to_owned(),
                account: account.parse().ok()?,
                name: name.parse().ok()?,
                version: number.parse::<crate::VersionId>().ok()?.0,
            })
        };
        read().ok_or(WRONG)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_name_reads_back_what_it_writes() {
        let text = "acs:fc:cn-hangzhou:0000000000000001:layers/tools/versions/12";
        let arn: LayerArn = text.parse().unwrap();
        assert_eq!((arn.name.as_str(), arn.version, arn.to_string().as_str()), ("tools", 12, text));
        for bad in [
            "",
            "tools",
            "acs:fc:r:1:layers/tools/versions/1",
            "acs:fc:r:0000000000000001:layers/9/versions/1",
            "acs:fc:r:0000000000000001:layers/tools/versions/0",
            "acs:fc:r:0000000000000001:layers/tools/versions/01",
            "acs:fc:r:0000000000000001:layers/tools",
            "acs:fc:r:0000000000000001:functions/tools/versions/1",
            "acs:fc:r:0000000000000001:layers/../versions/1",
        ] {
            assert!(bad.parse::<LayerArn>().is_err(), "{bad}");
        }
    }
}
