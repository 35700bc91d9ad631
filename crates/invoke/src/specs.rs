//! What instances are made from, kept ready for the versions that are called.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use dunlin_model::{FunctionKey, Interpreters, Revision, Target, VersionId};
use dunlin_pool::{InstanceSpec, NoInterpreter};

/// Functions whose specs are kept.
const FUNCTIONS_MAX: usize = 16_384;
/// Versions of one function whose specs are kept: more than are called side by side.
const VERSIONS_MAX: usize = 16;

/// A cache: forgetting is harmless.
#[derive(Default)]
pub(crate) struct Specs {
    known: RwLock<HashMap<FunctionKey, Vec<Known>>>,
}

/// The spec of one version, as of one revision of what is stored.
struct Known {
    version: Option<VersionId>,
    revision: Revision,
    spec: Arc<InstanceSpec>,
}

impl Specs {
    /// The spec of `target`, which is one of `function`'s.
    ///
    /// # Errors
    /// None of `interpreters` serves its runtime any more.
    pub(crate) fn of(
        &self,
        function: &FunctionKey,
        target: &Target,
        interpreters: &Interpreters,
    ) -> Result<Arc<InstanceSpec>, NoInterpreter> {
        let (version, revision) = (target.version(), target.revision());
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let found = known.get(function).and_then(|versions| versions.iter().find(|known| known.version == version));
        match found.filter(|known| known.revision == revision) {
            Some(known) => Ok(Arc::clone(&known.spec)),
            None => {
                drop(known);
                self.renew(function, target, interpreters)
            }
        }
    }

    fn renew(
        &self,
        function: &FunctionKey,
        target: &Target,
        interpreters: &Interpreters,
    ) -> Result<Arc<InstanceSpec>, NoInterpreter> {
        let (version, revision) = (target.version(), target.revision());
        let mut all = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= FUNCTIONS_MAX && !all.contains_key(function) {
            all.clear();
        }
        let versions = all.entry(function.clone()).or_default();
        let before = versions.iter().position(|known| known.version == version).map(|at| versions.remove(at));
        // A change that no instance can see leaves the instances there are warm.
        let key = match &before {
            Some(known) if known.spec.function().runs_like(target.function()) => known.spec.key().clone(),
            _ => target.version_key(function),
        };
        let spec = Arc::new(InstanceSpec::new(key, Arc::new(target.function().clone()), interpreters)?);
        if versions.len() >= VERSIONS_MAX {
            versions.remove(0);
        }
        versions.push(Known { version, revision, spec: Arc::clone(&spec) });
        Ok(spec)
    }
}

#[cfg(test)]
mod tests {
    use dunlin_model::Stored;
    use dunlin_store::contract;

    use super::*;

    #[test]
    fn instances_stay_the_same_through_changes_they_cannot_see() {
        let key = contract::key(&contract::scope(1), "f");
        let function = contract::function(&key, "one");
        let head = |function: &dunlin_model::Function, revision| {
            Target::Head(Arc::new(Stored { value: function.clone(), revision: Revision(revision) }))
        };
        let (specs, interpreters) = (Specs::default(), Interpreters::usual());
        let of = |target: &Target| specs.of(&key, target, &interpreters).expect("Python serves it");
        let first = of(&head(&function, 1));
        assert!(Arc::ptr_eq(&first, &of(&head(&function, 1))));
        let mut described = function.clone();
        described.config.description = "two".to_owned();
        let second = of(&head(&described, 2));
        assert_eq!((second.key(), second.function().config.description.as_str()), (first.key(), "two"));
        let mut slower = described.clone();
        slower.config.timeout += 1;
        assert_eq!(of(&head(&slower, 3)).key().revision, Revision(3));
        let recreated = dunlin_model::Function { function_id: "another".to_owned(), ..slower };
        assert_eq!(of(&head(&recreated, 4)).key().revision, Revision(4));
    }
}
