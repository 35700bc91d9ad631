//! Host uids: who a cell is, seen from outside.
//!
//! Every platform on a host claims a [`Block`] of 65,536 uids, far above those of people and services. The block's first
//! is the server's, the next ones are kept for the platform, and [`Uids`] hands out the rest, one per live cell. Gids
//! are the same numbers. A container has many uids instead: a range out of those that go with the block,
//! above all blocks.
//!
//! # Invariants
//! - A block belongs to one platform of this host at a time; the kernel drops the claim when its holder dies.
//! - Two live cells never share a uid, and one that was given back is reused as late as possible.

use std::collections::{HashSet, VecDeque};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// How many uids a block has.
pub const BLOCK_SIZE: u32 = 65_536;
/// The first uid of the first block: above what distributions, containers and directory services hand out.
pub const FIRST_UID: u32 = 1_000_000_000;
/// How many blocks a host has, and so how many platforms it can run.
pub const BLOCKS: u32 = 32;
/// The first uid of the first range of a container.
const FIRST_RANGE: u32 = 2_000_000_000;
/// How many containers, and unpackers of images, a platform has at a time.
const RANGES: u32 = 512;
/// How many uids one of them has.
pub(crate) const RANGE_SIZE: u32 = dunlin_walls::ids::COUNT;
const _: () = assert!((u32::MAX - FIRST_RANGE) / RANGE_SIZE > BLOCKS * RANGES);
/// Uids at the start of a block that no cell gets: the server's and spares.
const RESERVED: u32 = 16;
/// One lock file per block. In memory: a reboot forgets it, and nothing survives a reboot that needs it.
const CLAIMS_DIR: &str = "/run/dunlin/uids";

/// Why no block could be claimed.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Every block is held by a running platform.
    #[error("all {BLOCKS} blocks of host uids are in use")]
    AllTaken,
    /// The directory of claims could not be used.
    #[error("cannot use {}", path.display())]
    Io {
        /// What was touched.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// A claimed block of host uids. Dropping it gives the block up.
#[derive(Debug)]
pub struct Block {
    index: u32,
    /// Its lock is the claim.
    _claim: File,
}

impl Block {
    /// Claims `preferred` if it is free, else the first free block.
    pub fn claim(preferred: Option<u32>) -> Result<Self, ClaimError> {
        Self::claim_in(Path::new(CLAIMS_DIR), preferred)
    }

    fn claim_in(dir: &Path, preferred: Option<u32>) -> Result<Self, ClaimError> {
        let error = |path: &Path| {
            let path = path.to_path_buf();
            move |source| ClaimError::Io { path, source }
        };
        DirBuilder::new().recursive(true).mode(0o755).create(dir).map_err(error(dir))?;
        let preferred = preferred.filter(|index| *index < BLOCKS);
        for index in preferred.into_iter().chain(0..BLOCKS) {
            let path = dir.join(index.to_string());
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW)
                .open(&path)
                .map_err(error(&path))?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Self { index, _claim: file }),
                Err(rustix::io::Errno::WOULDBLOCK) => {}
                Err(errno) => return Err(error(&path)(errno.into())),
            }
        }
        Err(ClaimError::AllTaken)
    }

    /// Which block this is, from 0 to [`BLOCKS`] - 1.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.index
    }

    /// The uid and gid of the server process.
    #[must_use]
    pub fn server_uid(&self) -> u32 {
        FIRST_UID + self.index * BLOCK_SIZE
    }

    /// The uids for cells and unpackers, all free. To be called once per claim.
    #[must_use]
    pub fn cells(&self) -> Uids {
        let first = self.server_uid();
        let ranges = self.index * RANGES..(self.index + 1) * RANGES;
        Uids::new(first + RESERVED..first + BLOCK_SIZE, ranges)
    }
}

/// Hands out the uids of one block, and the ranges that go with it: first those never used, then what was given back longest
/// ago.
#[derive(Debug)]
pub struct Uids {
    single: Numbers,
    /// By their numbers.
    ranges: Numbers,
}

impl Uids {
    fn new(single: Range<u32>, ranges: Range<u32>) -> Self {
        Self { single: Numbers::new(single), ranges: Numbers::new(ranges) }
    }

    /// A uid that no live cell has, or `None` when all are taken.
    pub fn take(&mut self) -> Option<u32> {
        self.single.take()
    }

    /// The first of as many uids as a container has, of which no live cell has one, or `None` when all ranges are taken.
    pub fn take_range(&mut self) -> Option<u32> {
        self.ranges.take().map(|range| FIRST_RANGE + range * RANGE_SIZE)
    }

    /// Gives back what `uid` is or begins, once nothing runs under it. What is not taken is left as it is.
    pub fn give_back(&mut self, uid: u32) {
        match uid.checked_sub(FIRST_RANGE) {
            None => self.single.give_back(uid),
            Some(offset) => self.ranges.give_back(offset / RANGE_SIZE),
        }
    }
}

#[derive(Debug)]
struct Numbers {
    range: Range<u32>,
    fresh: VecDeque<Range<u32>>,
    returned: VecDeque<u32>,
    live: HashSet<u32>,
}

impl Numbers {
    fn new(range: Range<u32>) -> Self {
        // Starting anywhere keeps the first cells after a restart from being the first cells before it.
        let mut bytes = [0; 4];
        getrandom::fill(&mut bytes).expect("the kernel has randomness once it has booted");
        let middle = range.start + u32::from_le_bytes(bytes) % (range.end - range.start);
        let fresh = [middle..range.end, range.start..middle].into_iter().collect();
        Self { range, fresh, returned: VecDeque::new(), live: HashSet::new() }
    }

    fn take(&mut self) -> Option<u32> {
        let uid = loop {
            let Some(first) = self.fresh.front_mut() else { break self.returned.pop_front()? };
            match first.next() {
                Some(uid) => break uid,
                None => drop(self.fresh.pop_front()),
            }
        };
        self.live.insert(uid);
        Some(uid)
    }

    fn give_back(&mut self, uid: u32) {
        debug_assert!(self.range.contains(&uid), "uid {uid} is of another block");
        if self.live.remove(&uid) {
            self.returned.push_back(uid);
        }
    }

    /// How many are taken.
    #[cfg(test)]
    fn live(&self) -> usize {
        self.live.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The index that is claimed in the end. Another test's child has copies of this process's locks between its fork
    /// and its exec, so a block may be free only a moment after it was dropped.
    fn claims(dir: &std::path::Path, preferred: Option<u32>, expected: u32) -> bool {
        let started = std::time::Instant::now();
        while started.elapsed().as_secs() < 30 {
            if Block::claim_in(dir, preferred).unwrap().index() == expected {
                return true;
            }
            std::thread::yield_now();
        }
        false
    }

    #[test]
    fn two_platforms_get_different_blocks_and_a_dropped_one_is_free_again() {
        let dir = tempfile::tempdir().unwrap();
        let a = Block::claim_in(dir.path(), None).unwrap();
        let b = Block::claim_in(dir.path(), None).unwrap();
        assert_eq!((a.index(), b.index()), (0, 1));
        drop(a);
        assert!(claims(dir.path(), Some(1), 0));
        drop(b);
        assert!(claims(dir.path(), Some(1), 1));
        assert!(claims(dir.path(), Some(4_000_000), 0));
    }

    #[test]
    fn a_full_host_is_said_to_be_full() {
        let dir = tempfile::tempdir().unwrap();
        let all: Vec<_> = (0..BLOCKS).map(|_| Block::claim_in(dir.path(), None).unwrap()).collect();
        assert!(matches!(Block::claim_in(dir.path(), None), Err(ClaimError::AllTaken)));
        assert!(all.iter().all(|block| block.server_uid().checked_add(BLOCK_SIZE).is_some()));
    }

    #[test]
    fn no_uid_is_handed_out_twice_and_reuse_comes_last() {
        let mut uids = Numbers::new(100..110);
        let mut taken: Vec<_> = (0..10).map(|_| uids.take().unwrap()).collect();
        assert_eq!(uids.take(), None);
        uids.give_back(taken[3]);
        uids.give_back(taken[7]);
        assert_eq!(uids.take(), Some(taken[3]));
        assert_eq!(uids.take(), Some(taken[7]));
        taken.sort_unstable();
        assert_eq!(taken, (100..110).collect::<Vec<_>>());
    }

    #[test]
    fn a_uid_just_given_back_waits_for_all_others() {
        let mut uids = Numbers::new(100..104);
        let first = uids.take().unwrap();
        uids.give_back(first);
        let next: Vec<_> = (0..4).map(|_| uids.take().unwrap()).collect();
        assert_eq!(next.iter().position(|uid| *uid == first), Some(3));
        assert_eq!(uids.live(), 4);
    }

    #[test]
    fn containers_have_ranges_that_meet_nothing_else() {
        let blocks: Vec<_> = {
            let dir = tempfile::tempdir().unwrap();
            (0..BLOCKS).map(|_| Block::claim_in(dir.path(), None).unwrap()).collect()
        };
        let mut ends = Vec::new();
        for block in &blocks {
            let mut uids = block.cells();
            let firsts: Vec<_> = std::iter::from_fn(|| uids.take_range()).collect();
            assert_eq!(firsts.len(), RANGES as usize);
            ends.extend(firsts.iter().map(|first| (*first, first.checked_add(BLOCK_SIZE).unwrap())));
            assert!(uids.take().unwrap() < FIRST_RANGE);
            uids.give_back(firsts[7]);
            assert_eq!((uids.take_range(), uids.take_range()), (Some(firsts[7]), None));
        }
        ends.sort_unstable();
        assert!(ends.windows(2).all(|pair| pair[0].1 <= pair[1].0));
        assert!(ends[0].0 >= FIRST_UID + BLOCKS * BLOCK_SIZE);
    }

    #[test]
    fn giving_back_twice_gives_back_once() {
        let mut uids = Numbers::new(100..101);
        let uid = uids.take().unwrap();
        uids.give_back(uid);
        uids.give_back(uid);
        assert_eq!(uids.take(), Some(uid));
        assert_eq!(uids.take(), None);
    }
}
