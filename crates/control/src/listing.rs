//! Pages.

use std::sync::Arc;

use dunlin_model::Stored;

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

/// One page of a listing, and the token of the next page.
pub type Listing<T> = (Vec<Arc<Stored<T>>>, Option<String>);

/// Cuts one page out of `items`, which are all of a listing in its order. `is_after` tells whether an item comes behind the
/// one with that mark.
pub(crate) fn page<'a, T: 'a>(
    seal: &Seal,
    purpose: &[&str],
    paging: &Paging,
    items: impl Iterator<Item = &'a Arc<Stored<T>>>,
    is_after: impl Fn(&Stored<T>, &str) -> bool,
    mark: impl Fn(&Stored<T>) -> String,
) -> Result<Listing<T>, Error> {
    let limit = paging.limit_in_force()?;
    let after = paging.after(seal, purpose)?;
    let mut rest = items.filter(|item| after.as_ref().is_none_or(|last| is_after(item, last)));
    let found: Vec<_> = rest.by_ref().take(limit).map(Arc::clone).collect();
    let more = rest.next().is_some();
    let next = found.last().filter(|_| more).map(|last| seal.close(purpose, mark(last).as_bytes()));
    Ok((found, next))
}
