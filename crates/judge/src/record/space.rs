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
    /// The length that `mmap` was called with, in whole pages: mremap changes that of a mapping, but not that of the
    /// shared object behind it.
    pub object: u64,
    /// MADV_DONTFORK: a child does not inherit it.
    pub not_forked: bool,
}

/// How a mapping went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gone {
    Unmapped,
    /// mremap moved it.
    Moved,
    /// mremap shortened the mapping.
    CutOff,
    /// MADV_DONTFORK kept it from the child.
    NotForked,
}

impl Mapping {
    /// Whether it is readable and writable.
    pub fn usable(&self) -> bool {
        let both = libc::PROT_READ | libc::PROT_WRITE;
        self.protection & both == both
    }
}

/// One address space. Threads share it.
#[derive(Debug, Clone, Default)]
pub struct Space {
    live: RangeMap<u64, Mapping>,
    /// Unmapped, and not mapped again since.
    gone: RangeMap<u64, (Mapping, Gone)>,
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
        self.remove(range, Gone::Unmapped);
    }

    pub fn remove(&mut self, range: Range<u64>, how: Gone) {
        if range.is_empty() {
            return;
        }
        let removed: Vec<_> = self.pieces(&range).collect();
        for (piece, mapping) in removed {
            self.gone.insert(piece, (mapping, how));
        }
        self.live.remove(range);
    }

    pub fn protect(&mut self, range: Range<u64>, protection: i32) {
        self.change(range, |mapping| mapping.protection = protection);
    }

    /// Applies MADV_DONTFORK (`true`) or MADV_DOFORK.
    pub fn keep_from_children(&mut self, range: Range<u64>, not_forked: bool) {
        self.change(range, |mapping| mapping.not_forked = not_forked);
    }

    fn change(&mut self, range: Range<u64>, change: impl Fn(&mut Mapping)) {
        if range.is_empty() {
            return;
        }
        let pieces: Vec<_> = self.pieces(&range).collect();
        for (piece, mut mapping) in pieces {
            change(&mut mapping);
            self.live.insert(piece, mapping);
        }
    }

    /// The address space of a forked child.
    pub fn forked(&self) -> Space {
        let mut child = self.clone();
        for (range, mapping) in self.live.iter() {
            if mapping.not_forked {
                child.remove(range.clone(), Gone::NotForked);
            }
        }
        child
    }

    /// The mapping at `address`.
    pub fn at(&self, address: u64) -> Option<&Mapping> {
        self.live.get(&address)
    }

    /// The last mapping at `address`, if there is none now, and how it went.
    pub fn gone_at(&self, address: u64) -> Option<(&Mapping, Gone)> {
        let (mapping, how) = self.gone.get(&address)?;
        Some((mapping, *how))
    }

    /// The mapping that ends at or before `address`, less than `reach` bytes away, with its range.
    pub fn ending_before(&self, address: u64, reach: u64) -> Option<(&Range<u64>, &Mapping)> {
        let around = address.saturating_sub(reach)..address.max(1);
        let last = self.live.overlapping(around).next_back();
        last.filter(|(range, _)| range.end <= address)
    }

    /// The mapping that begins after `address`, at most `reach` bytes away, with its range.
    pub fn beginning_after(&self, address: u64, reach: u64) -> Option<(&Range<u64>, &Mapping)> {
        let around = address..address.saturating_add(reach);
        let first = self.live.overlapping(around).next();
        first.filter(|(range, _)| range.start > address)
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
            object: len,
            not_forked: false,
        }
    }

    #[test]
    fn unmapping_the_middle_leaves_both_sides() {
        let mut space = Space::default();
        space.map(mapping(0, 0x1000, 0x3000));
        space.unmap(0x2000..0x3000);
        assert!(space.at(0x1fff).is_some());
        assert!(space.at(0x2000).is_none());
        assert_eq!(space.gone_at(0x2000).unwrap().0.id, 0);
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
    fn a_neighbour_does_not_contain_the_address() {
        let mut space = Space::default();
        space.map(mapping(0, 0x10000, 0x1000));
        let range = 0x10000..0x11000;
        for address in [0x11000, 0x11010] {
            assert_eq!(space.ending_before(address, 0x1000).unwrap().0, &range);
        }
        assert!(space.ending_before(0x13000, 0x1000).is_none());
        assert_eq!(space.beginning_after(0xfff0, 0x1000).unwrap().0, &range);
        assert!(space.beginning_after(0x10010, 0x1000).is_none());
        assert!(space.ending_before(0x10010, 0x1000).is_none());
    }

    #[test]
    fn a_child_does_not_inherit_what_is_kept_from_it() {
        let mut space = Space::default();
        space.map(mapping(0, 0x1000, 0x3000));
        space.keep_from_children(0x2000..0x4000, true);
        space.keep_from_children(0x3000..0x4000, false);
        let child = space.forked();
        assert!(child.at(0x1000).is_some());
        assert_eq!(child.gone_at(0x2000).unwrap().1, Gone::NotForked);
        assert!(child.at(0x3000).is_some());
        assert!(space.at(0x2000).is_some());
    }
}
