//! Mappings of a grader directly before and after a mapping of the answer.

use std::ptr::{null_mut, with_exposed_provenance_mut};
use std::slice;

use nix::libc;

use super::probe::{mapped_pages, page_size};

/// One page on each side of a mapping, where the addresses were free. No operation on the mapping may change them.
pub struct Neighbours {
    pages: Vec<(&'static str, usize)>,
}

/// A page that the kernel maps where it would map the next mapping. The answer's mapping then lies below it, and has
/// free addresses after it once the spacer is gone.
pub struct Spacer(*mut libc::c_void);

impl Spacer {
    /// Maps the page.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Spacer {
        Spacer(map_page(null_mut(), 0))
    }
}

impl Drop for Spacer {
    fn drop(&mut self) {
        // SAFETY: this value made the mapping, and nothing uses it.
        unsafe { libc::munmap(self.0, page_size()) };
    }
}

impl Neighbours {
    /// Maps a page before and a page after the `len` bytes at `start`, and fills them. Drop the spacer first.
    pub fn of(start: *const u8, len: usize) -> Neighbours {
        let page = page_size();
        let end = (start.addr() + len).next_multiple_of(page);
        let around = [("before", start.addr() - page), ("after", end)];
        let map = |(side, address)| map_at(address).then_some((side, address));
        Neighbours {
            pages: around.into_iter().filter_map(map).collect(),
        }
    }

    /// Fails the case if a neighbour was unmapped or overwritten. `what` describes the operation.
    ///
    /// # Panics
    /// If the case fails: that is how it ends.
    pub fn expect_untouched(&self, what: &str) {
        for (side, address) in &self.pages {
            let page: *const u8 = with_exposed_provenance_mut(*address);
            if mapped_pages(page, 1) == 0 {
                crate::fail(format!(
                    "{what} also unmapped the page {side} it, which belongs to another mapping. Pass munmap the start \
                     and the length of your mapping."
                ));
            }
            // SAFETY: the page is mapped, readable, and changed by nobody while the slice lives.
            let bytes = unsafe { slice::from_raw_parts(page, page_size()) };
            if bytes.iter().any(|byte| *byte != FILL) {
                crate::fail(format!(
                    "{what} also changed the page {side} it, which belongs to another mapping."
                ));
            }
        }
    }
}

impl Drop for Neighbours {
    fn drop(&mut self) {
        for (_, address) in &self.pages {
            // SAFETY: `map_at` mapped this page, and no reference to it exists.
            unsafe { libc::munmap(with_exposed_provenance_mut(*address), page_size()) };
        }
    }
}

const FILL: u8 = 0xC3;

/// Maps a page at `address` and fills it. Returns false if something is mapped there.
fn map_at(address: usize) -> bool {
    let wanted = with_exposed_provenance_mut(address);
    let mapped = map_page(wanted, libc::MAP_FIXED_NOREPLACE);
    if mapped != wanted {
        return false;
    }
    // SAFETY: the page was mapped just now, writable.
    unsafe { mapped.cast::<u8>().write_bytes(FILL, page_size()) };
    true
}

fn map_page(address: *mut libc::c_void, flags: libc::c_int) -> *mut libc::c_void {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = flags | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: callers do not pass MAP_FIXED, so no mapping is replaced.
    unsafe { libc::mmap(address, page_size(), protection, flags, -1, 0) }
}
