//! What a store keeps, with the revision it was written at.

use crate::ids::Revision;

/// A value and the revision it was written at. A write that replaces it names that revision.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored<T> {
    /// What was stored.
    pub value: T,
    /// When, on the store's one counter.
    pub revision: Revision,
}
