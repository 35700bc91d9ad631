//! What is made once per change of a stored thing and read by every request: routes, keys, certificates.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use dunlin_model::Revision;

/// Most things that are kept ready; then all are dropped and made anew as they are asked for.
const ENTRIES_MAX: usize = 4096;

/// Things by name, each as of one revision. Reading takes no lock.
pub(crate) struct Compiled<T> {
    entries: ArcSwap<HashMap<String, (Revision, Arc<T>)>>,
}

impl<T> Default for Compiled<T> {
    fn default() -> Self {
        Self { entries: ArcSwap::default() }
    }
}

impl<T> Compiled<T> {
    /// The thing called `name` as of `revision`; made now if it is not there.
    ///
    /// # Errors
    /// Whatever `make` fails with. Nothing is kept then.
    pub(crate) fn get<E>(&self, name: &str, revision: Revision, make: impl FnOnce() -> Result<T, E>) -> Result<Arc<T>, E> {
        if let Some((_, thing)) = self.entries.load().get(name).filter(|(at, _)| *at == revision) {
            return Ok(Arc::clone(thing));
        }
        let made = Arc::new(make()?);
        self.entries.rcu(|entries| {
            let mut entries = if entries.len() < ENTRIES_MAX { HashMap::clone(entries) } else { HashMap::new() };
            // A request that began before the change must not put the older one back.
            if entries.get(name).is_none_or(|(at, _)| *at < revision) {
                entries.insert(name.to_owned(), (revision, Arc::clone(&made)));
            }
            entries
        });
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thing_is_made_once_for_each_revision() {
        let compiled = Compiled::default();
        let get = |revision, value: Result<u8, ()>| compiled.get("a", Revision(revision), || value).map(|thing| *thing);
        assert_eq!(get(1, Err(())), Err(()));
        assert_eq!(get(1, Ok(1)), Ok(1));
        assert_eq!(get(1, Ok(9)), Ok(1));
        assert_eq!(get(2, Ok(2)), Ok(2));
        assert_eq!(get(1, Ok(1)), Ok(1), "for whoever still holds the older one");
        assert_eq!(get(2, Ok(9)), Ok(2), "which does not push out the newer");
    }
}
