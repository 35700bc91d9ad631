//! Pages.

use crate::error::Error;
use crate::seal::Seal;

/// Which page of a listing, in the wire's words.
#[derive(Clone, Debug, Default)]
pub struct Paging {
    /// Only names that begin with this; absent and empty mean all.
    pub prefix: Option<String>,
    /// 1 to 100; absent means 20.
    pub limit: Option<i64>,
    /// What the page before gave; absent and empty mean the first page.
    pub next_token: Option<String>,
}

impl Paging {
    /// How many items the page holds.
    pub(crate) fn limit_in_force(&self) -> Result<usize, Error> {
        match self.limit {
            None => Ok(20),
            Some(limit) => match usize::try_from(limit) {
                Ok(limit @ 1..=100) => Ok(limit),
                _ => Err(Error::invalid("limit", format!("must be between 1 and 100 (actual: {limit})"))),
            },
        }
    }

    pub(crate) fn prefix(&self) -> &str {
        self.prefix.as_deref().unwrap_or_default()
    }

    /// The name after which the page begins.
    pub(crate) fn after(&self, seal: &Seal, purpose: &[&str]) -> Result<Option<String>, Error> {
        match self.next_token.as_deref() {
            None | Some("") => Ok(None),
            Some(token) => seal
                .open(purpose, token)
                .and_then(|name| String::from_utf8(name).ok())
                .map(Some)
                .ok_or_else(|| Error::invalid("nextToken", "is invalid: pass on the nextToken of the page before, unchanged")),
        }
    }
}
