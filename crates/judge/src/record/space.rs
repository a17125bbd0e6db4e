//! The address space of one process, from its calls: what is mapped, and what was.

use std::ops::Range;

use nix::libc;
use rangemap::RangeMap;

/// One successful `mmap`, or what is left of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// Counts from 0 in a case. An address may be mapped again; an id is never reused.
    pub id: usize,
    pub start: u64,
    /// Bytes, in whole pages.
    pub len: u64,
    pub protection: i32,
    pub shared: bool,
    /// MAP_ANONYMOUS.
    pub anonymous: bool,
    /// MAP_STACK. std maps such memory in each new thread, for its handler of stack overflows.
    pub stack: bool,
}

impl Mapping {
    /// Whether it is readable and writable.
    pub fn usable(&self) -> bool {
        let both = libc::PROT_READ | libc::PROT_WRITE;
        self.protection & both == both
    }
}

/// One address space. A fork clones it; threads share it.
#[derive(Debug, Clone, Default)]
pub struct Space {
    live: RangeMap<u64, Mapping>,
    /// Unmapped, and not mapped again since.
    gone: RangeMap<u64, Mapping>,
}

impl Space {
    pub fn map(&mut self, mapping: Mapping) {
        let range = mapping.start..mapping.start + mapping.len;
        if range.is_empty() {
            return;
        }
        self.unmap(range.clone());
        self.gone.remove(range.clone());
        self.live.insert(range, mapping);
    }

    pub fn unmap(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let removed: Vec<_> = self.pieces(&range).collect();
        for (piece, mapping) in removed {
            self.gone.insert(piece, mapping);
        }
        self.live.remove(range);
    }

    pub fn protect(&mut self, range: Range<u64>, protection: i32) {
        if range.is_empty() {
            return;
        }
        let pieces: Vec<_> = self.pieces(&range).collect();
        for (piece, mapping) in pieces {
            let mapping = Mapping {
                protection,
                ..mapping
            };
            self.live.insert(piece, mapping);
        }
    }

    /// The mapping at `address`.
    pub fn at(&self, address: u64) -> Option<&Mapping> {
        self.live.get(&address)
    }

    /// The last mapping at `address`, if there is none now.
    pub fn gone_at(&self, address: u64) -> Option<&Mapping> {
        self.gone.get(&address)
    }

    /// The mapping that ends at or before `address`, less than `reach` bytes away, with the distance.
    pub fn ending_before(&self, address: u64, reach: u64) -> Option<(&Mapping, u64)> {
        let around = address.saturating_sub(reach)..address.max(1);
        let (range, mapping) = self.live.overlapping(around).next_back()?;
        Some((mapping, address - range.end))
    }

    /// The mapping that begins after `address`, at most `reach` bytes away, with the distance.
    pub fn beginning_after(&self, address: u64, reach: u64) -> Option<(&Mapping, u64)> {
        let around = address..address.saturating_add(reach);
        let (range, mapping) = self.live.overlapping(around).next()?;
        Some((mapping, range.start - address))
    }

    /// The mappings in `range`, cut to it.
    pub fn pieces(&self, range: &Range<u64>) -> impl Iterator<Item = (Range<u64>, Mapping)> {
        self.live
            .overlapping(range.clone())
            .map(|(piece, mapping)| {
                let cut = piece.start.max(range.start)..piece.end.min(range.end);
                (cut, mapping.clone())
            })
    }

    /// All mappings.
    pub fn all(&self) -> impl Iterator<Item = (&Range<u64>, &Mapping)> {
        self.live.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(id: usize, start: u64, len: u64) -> Mapping {
        Mapping {
            id,
            start,
            len,
            protection: libc::PROT_READ | libc::PROT_WRITE,
            shared: false,
            anonymous: true,
            stack: false,
        }
    }

    #[test]
    fn unmapping_the_middle_leaves_both_sides() {
        let mut space = Space::default();
        space.map(mapping(0, 0x1000, 0x3000));
        space.unmap(0x2000..0x3000);
        assert!(space.at(0x1fff).is_some());
        assert!(space.at(0x2000).is_none());
        assert_eq!(space.gone_at(0x2000).unwrap().id, 0);
        assert!(space.at(0x3000).is_some());
        assert!(space.gone_at(0x3000).is_none());
    }

    #[test]
    fn a_new_mapping_replaces_an_unmapped_one() {
        let mut space = Space::default();
        space.map(mapping(0, 0x1000, 0x1000));
        space.unmap(0x1000..0x2000);
        space.map(mapping(1, 0x1000, 0x1000));
        assert_eq!(space.at(0x1000).unwrap().id, 1);
        assert!(space.gone_at(0x1000).is_none());
    }

    #[test]
    fn mprotect_changes_only_its_range() {
        let mut space = Space::default();
        space.map(mapping(0, 0x1000, 0x3000));
        space.protect(0x2000..0x3000, libc::PROT_NONE);
        assert!(space.at(0x1000).unwrap().usable());
        assert!(!space.at(0x2000).unwrap().usable());
        assert!(space.at(0x3000).unwrap().usable());
    }

    #[test]
    fn distances_are_measured_from_the_nearest_byte() {
        let mut space = Space::default();
        space.map(mapping(0, 0x10000, 0x1000));
        assert_eq!(space.ending_before(0x11000, 0x1000).unwrap().1, 0);
        assert_eq!(space.ending_before(0x11010, 0x1000).unwrap().1, 0x10);
        assert!(space.ending_before(0x13000, 0x1000).is_none());
        assert_eq!(space.beginning_after(0xfff0, 0x1000).unwrap().1, 0x10);
    }
}
