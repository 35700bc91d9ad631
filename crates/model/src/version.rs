//! Published versions and the aliases that point to them (contract sections 4.4 and 12).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::function::Function;
use crate::ids::{AliasName, FunctionKey, InvalidId, Revision, VersionKey};
use crate::limits::InvalidField;
use crate::stored::Stored;

/// Names one published version of a function: 1, 2, … in the order of publishing, never used twice in the function's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VersionId(pub u64);

impl fmt::Display for VersionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for VersionId {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
        let id = text.parse().ok().filter(|_| plain).map(Self);
        id.ok_or(InvalidId { what: "versionId", rule: "it must be the number of a published version, for example '1'" })
    }
}

/// A copy of a function as it was when it was published. Never changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Version {
    /// Its number.
    pub id: VersionId,
    /// Free text.
    pub description: String,
    /// When it was published.
    pub created: Timestamp,
    /// Configuration and code. The code is shared with whoever else has the same.
    pub function: Function,
}

/// A name for a version that can be pointed elsewhere.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Alias {
    /// Unique within the function.
    pub name: AliasName,
    /// What it points to.
    pub version: VersionId,
    /// A second version that gets a share of the calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub additional: Option<Additional>,
    /// Free text.
    pub description: String,
    /// When it was created.
    pub created: Timestamp,
    /// When it last changed.
    pub modified: Timestamp,
}

/// The second version of an alias.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Additional {
    /// Which; another one than the alias's own.
    pub version: VersionId,
    /// The share of calls it gets, 0 to 1.
    pub weight: f64,
}

impl Additional {
    /// A second version with its share of the calls.
    ///
    /// # Errors
    /// When the weight is no share.
    pub fn new(version: VersionId, weight: f64) -> Result<Self, InvalidField> {
        if (0.0..=1.0).contains(&weight) {
            return Ok(Self { version, weight });
        }
        let field = format!("additionalVersionWeight.{version}");
        Err(InvalidField::new(field, format!("must be between 0 and 1 (actual: {weight})")))
    }
}

impl Alias {
    /// The version that serves a call. `chance` is evenly distributed between 0 and 1, 1 excluded.
    #[must_use]
    pub fn pick(&self, chance: f64) -> VersionId {
        self.additional.filter(|additional| chance < additional.weight).map_or(self.version, |additional| additional.version)
    }
}

/// What a qualifier meant at one moment: exactly one version of a function, with all that runs. Cheap to clone.
#[derive(Clone, Debug)]
pub enum Target {
    /// The head.
    Head(Arc<Stored<Function>>),
    /// A published version.
    Published(Arc<Stored<Version>>),
}

impl Target {
    /// Configuration and code.
    #[must_use]
    pub fn function(&self) -> &Function {
        match self {
            Self::Head(stored) => &stored.value,
            Self::Published(stored) => &stored.value.function,
        }
    }

    /// The version's number; absent for the head.
    #[must_use]
    pub fn version(&self) -> Option<VersionId> {
        match self {
            Self::Head(_) => None,
            Self::Published(stored) => Some(stored.value.id),
        }
    }

    /// When what runs was written.
    #[must_use]
    pub fn revision(&self) -> Revision {
        match self {
            Self::Head(stored) => stored.revision,
            Self::Published(stored) => stored.revision,
        }
    }

    /// What its instances are bound to; `function` is whose target this is.
    #[must_use]
    pub fn version_key(&self, function: &FunctionKey) -> VersionKey {
        let version = self.version().map_or_else(|| "LATEST".into(), |id| id.to_string().into());
        VersionKey { function: function.clone(), version, revision: self.revision() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_id_is_a_plain_positive_number() {
        assert_eq!("12".parse(), Ok(VersionId(12)));
        for text in ["", "0", "01", "+1", "-1", "1.0", "1 ", "LATEST", "18446744073709551616", "١"] {
            assert!(text.parse::<VersionId>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_weight_is_a_share() {
        for weight in [0.0, 0.1, 1.0] {
            assert!(Additional::new(VersionId(1), weight).is_ok(), "{weight}");
        }
        for weight in [-0.1, 1.000_001, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let error = Additional::new(VersionId(7), weight).expect_err("no share");
            assert_eq!(error.field, "additionalVersionWeight.7", "{weight}");
        }
    }

    #[test]
    fn an_alias_picks_by_weight() {
        let additional = Some(Additional { version: VersionId(2), weight: 0.25 });
        let alias = Alias {
            name: "prod".parse().unwrap(),
            version: VersionId(1),
            additional,
            description: String::new(),
            created: Timestamp::UNIX_EPOCH,
            modified: Timestamp::UNIX_EPOCH,
        };
        let picked: Vec<_> = [0.0, 0.249, 0.25, 0.999].into_iter().map(|chance| alias.pick(chance).0).collect();
        assert_eq!(picked, [2, 2, 1, 1]);
        assert_eq!(Alias { additional: None, ..alias }.pick(0.0), VersionId(1));
    }
}
