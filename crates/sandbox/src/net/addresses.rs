//! What everything is called: a function of the installation's id and of its block, so that two platforms on one host
//! never meet.

use std::net::Ipv4Addr;

use super::ranges::{CELLS, Range4};
use crate::installation::InstallationId;
use crate::uids::BLOCKS;

/// How many addresses an installation has: [`CELLS`] divided by the blocks of a host.
const PER_BLOCK: u32 = (1 << 17) / BLOCKS;
const PER_BLOCK_BITS: u8 = 32 - PER_BLOCK.trailing_zeros() as u8;
/// The address of the host's end of every link.
const GATEWAY: u32 = 1;
/// The address of the host's end of the probe's outer link.
const PROBE: u32 = 2;
const FIRST_CELL: u32 = 4;

/// The names and addresses of one installation.
#[derive(Clone, Debug)]
pub(super) struct Addresses {
    installation: InstallationId,
    range: Range4,
}

impl Addresses {
    pub(super) fn new(installation: InstallationId, block: u32) -> Self {
        let first = CELLS.address((block % BLOCKS) * PER_BLOCK);
        Self { installation, range: Range4::new(first, PER_BLOCK_BITS) }
    }

    /// Where this installation's cells are.
    pub(super) fn range(&self) -> Range4 {
        self.range
    }

    /// The host, seen from every cell.
    pub(super) fn gateway(&self) -> Ipv4Addr {
        self.range.address(GATEWAY)
    }

    pub(super) fn probe(&self) -> Ipv4Addr {
        self.range.address(PROBE)
    }

    /// What the names of our links begin with.
    pub(super) fn link_prefix(&self) -> String {
        format!("dn{}", self.installation)
    }

    /// The link that stands for the internet while the host's own firewall is probed. Not one of ours to the rules.
    pub(super) fn probe_link(&self) -> String {
        format!("dp{}", self.installation)
    }

    /// The kernel's number for our links together, by which they are deleted together.
    pub(super) fn group(&self) -> u32 {
        self.installation.number()
    }

    pub(super) fn table(&self) -> String {
        format!("dunlin_{}", self.installation)
    }

    pub(super) fn slot(&self, slot: Slot) -> (String, Ipv4Addr) {
        (format!("{}{:04x}", self.link_prefix(), slot.0), self.range.address(slot.0))
    }
}

/// One cell's place among the installation's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Slot(u32);

/// Hands out places; one that was given back is used again as late as possible.
#[derive(Debug)]
pub(super) struct Slots {
    taken: Vec<bool>,
    next: usize,
}

impl Slots {
    pub(super) fn new() -> Self {
        let mut taken = vec![false; PER_BLOCK as usize];
        let last = taken.len() - 1;
        taken[..FIRST_CELL as usize].fill(true);
        taken[last] = true;
        Self { taken, next: 0 }
    }

    pub(super) fn take(&mut self) -> Option<Slot> {
        let count = self.taken.len();
        let free = (0..count).map(|n| (self.next + n) % count).find(|at| !self.taken[*at])?;
        self.taken[free] = true;
        self.next = free + 1;
        Some(Slot(free as u32))
    }

    pub(super) fn give_back(&mut self, slot: Slot) {
        self.taken[slot.0 as usize] = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_share_the_range_without_overlap() {
        let of = |block| Addresses::new(InstallationId::random(), block);
        assert_eq!(of(0).range().to_string(), "198.18.0.0/20");
        assert_eq!(of(1).gateway(), Ipv4Addr::new(198, 18, 16, 1));
        assert_eq!(of(BLOCKS - 1).range().to_string(), "198.19.240.0/20");
        assert!(CELLS.contains(of(BLOCKS - 1).range().address(PER_BLOCK - 1)));
    }

    #[test]
    fn names_fit_the_kernels_fifteen_characters() {
        let addresses = Addresses::new(InstallationId::random(), 3);
        let mut slots = Slots::new();
        let mut last = slots.take().unwrap();
        while let Some(slot) = slots.take() {
            last = slot;
        }
        let (name, address) = addresses.slot(last);
        assert!(name.len() <= 15 && addresses.probe_link().len() <= 15);
        assert!(addresses.range().contains(address));
    }

    #[test]
    fn a_place_given_back_is_used_after_all_others() {
        let mut slots = Slots::new();
        let first = slots.take().unwrap();
        slots.give_back(first);
        let second = slots.take().unwrap();
        assert_ne!(first, second);
        let mut count = 1;
        while slots.take().is_some_and(|slot| slot != first) {
            count += 1;
        }
        assert_eq!(count, PER_BLOCK - FIRST_CELL - 2);
    }
}
