//! An ordered map that is cheap to copy and change.
//!
//! Entries sit in order in chunks of at most [`CHUNK_MAX`]; chunks are shared between copies. A change copies the
//! list of chunks and one chunk: at 10,000 entries that is about 150 pointers and 64 entries, not 10,000.
//!
//! # Invariants
//! - No chunk is empty or longer than [`CHUNK_MAX`]; keys rise strictly within and across chunks.

use std::borrow::Borrow;
use std::sync::Arc;

const CHUNK_MAX: usize = 128;

type Chunk<K, V> = Arc<Vec<(Arc<K>, V)>>;

#[derive(Clone, Debug)]
pub(crate) struct Sorted<K, V> {
    chunks: Vec<Chunk<K, V>>,
}

impl<K, V> Default for Sorted<K, V> {
    fn default() -> Self {
        Self { chunks: Vec::new() }
    }
}

impl<K: Ord, V: Clone> Sorted<K, V> {
    pub(crate) fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let chunk = &self.chunks[self.chunk_of(key)?];
        let at = chunk.binary_search_by(|(k, _)| (**k).borrow().cmp(key)).ok()?;
        Some(&chunk[at].1)
    }

    /// Adds an entry, or replaces the value of an equal key.
    pub(crate) fn insert(&mut self, key: K, value: V) {
        let Some(index) = self.chunk_of(&key).or((!self.chunks.is_empty()).then_some(0)) else {
            self.chunks.push(Arc::new(vec![(Arc::new(key), value)]));
            return;
        };
        let chunk = Arc::make_mut(&mut self.chunks[index]);
        match chunk.binary_search_by(|(k, _)| (**k).cmp(&key)) {
            Ok(at) => chunk[at].1 = value,
            Err(at) => chunk.insert(at, (Arc::new(key), value)),
        }
        if chunk.len() > CHUNK_MAX {
            let upper = chunk.split_off(CHUNK_MAX / 2);
            self.chunks.insert(index + 1, Arc::new(upper));
        }
    }

    pub(crate) fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let index = self.chunk_of(key)?;
        let at = self.chunks[index].binary_search_by(|(k, _)| (**k).borrow().cmp(key)).ok()?;
        let chunk = Arc::make_mut(&mut self.chunks[index]);
        let (_, value) = chunk.remove(at);
        if chunk.is_empty() {
            self.chunks.remove(index);
        }
        Some(value)
    }

    /// The entries from the first for which `before` is false. `before` must be true for a beginning of the order only.
    pub(crate) fn skip_before(&self, before: impl Fn(&K) -> bool) -> impl Iterator<Item = (&K, &V)> {
        let index = self.chunks.partition_point(|chunk| chunk.last().is_some_and(|(key, _)| before(key)));
        let skip = self.chunks.get(index).map_or(0, |chunk| chunk.partition_point(|(key, _)| before(key)));
        self.chunks[index..].iter().flat_map(|chunk| chunk.iter()).skip(skip).map(|(key, value)| (&**key, value))
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.len()).sum()
    }

    /// The last chunk that begins at or before `key`.
    fn chunk_of<Q: Ord + ?Sized>(&self, key: &Q) -> Option<usize>
    where
        K: Borrow<Q>,
    {
        self.chunks.partition_point(|chunk| (*chunk[0].0).borrow() <= key).checked_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_behaves_like_an_ordered_map(steps in proptest::collection::vec((any::<bool>(), 0u16..600, any::<u8>()), 0..2000), from in 0u16..600) {
            let mut model = BTreeMap::new();
            let mut sorted = Sorted::default();
            for (insert, key, value) in steps {
                if insert {
                    model.insert(key, value);
                    sorted.insert(key, value);
                } else {
                    prop_assert_eq!(model.remove(&key), sorted.remove(&key));
                }
                prop_assert!(sorted.chunks.iter().all(|chunk| (1..=CHUNK_MAX).contains(&chunk.len())));
            }
            prop_assert_eq!(model.len(), sorted.len());
            for key in 0..600 {
                prop_assert_eq!(model.get(&key), sorted.get(&key));
            }
            let listed: Vec<_> = sorted.skip_before(|key| *key < from).map(|(k, v)| (*k, *v)).collect();
            prop_assert_eq!(model.range(from..).map(|(k, v)| (*k, *v)).collect::<Vec<_>>(), listed);
        }
    }

    #[test]
    fn a_copy_does_not_see_later_changes() {
        let mut first = Sorted::default();
        for key in 0..1000 {
            first.insert(key, key);
        }
        let copy = first.clone();
        first.insert(5, 0);
        first.remove(&6);
        assert_eq!((copy.get(&5), copy.get(&6), copy.len()), (Some(&5), Some(&6), 1000));
    }
}
