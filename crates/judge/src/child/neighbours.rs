//! Mappings of a grader directly before and after a mapping of the answer.

use std::ptr::{null_mut, with_exposed_provenance_mut};
use std::slice;

use nix::libc;

use super::probe::{mapped_pages, page_size, resident_pages};
use super::smaps::resident_beside;

/// One page on each side of a mapping, where the addresses were free. No operation on the mapping may change them.
pub struct Neighbours {
    pages: Vec<(&'static str, usize)>,
    contents: Contents,
}

/// What the pages hold.
enum Contents {
    /// `FILL`.
    Filled,
    /// Nothing: they are not resident. The mapping has `len` bytes at `start`, and reserves more memory around them, of which
    /// `resident` pages are resident.
    Untouched {
        start: *const u8,
        len: usize,
        resident: usize,
    },
}

/// A page that the kernel maps where it would map the next mapping. The answer's mapping then lies below it, and has
/// free addresses after it once the spacer is gone.
pub struct Spacer {
    page: *mut libc::c_void,
    /// Mappings of the same length that fill gaps elsewhere.
    plugs: Vec<*mut libc::c_void>,
    len: usize,
}

impl Spacer {
    /// Maps the page.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Spacer {
        Spacer {
            page: map_page(null_mut(), 0),
            plugs: Vec::new(),
            len: 0,
        }
    }

    /// Maps the page so that the next mapping of `len` bytes lies directly below it.
    pub fn above(len: usize) -> Spacer {
        /// The most gaps of that length to fill.
        const GAPS: usize = 32;
        let page = page_size();
        let len = len.next_multiple_of(page);
        let start = map(null_mut(), len + 2 * page, 0);
        if start == libc::MAP_FAILED {
            return Spacer::new();
        }
        let spacer = start.wrapping_byte_add(len + page);
        // SAFETY: this part of the mapping, which was made just now, is not used.
        unsafe { libc::munmap(start, len + page) };
        let mut plugs = Vec::new();
        for _ in 0..GAPS {
            let next = map(null_mut(), len, 0);
            if next == libc::MAP_FAILED {
                break;
            }
            if next.wrapping_byte_add(len) == spacer {
                // SAFETY: the mapping was made just now, and is not used.
                unsafe { libc::munmap(next, len) };
                break;
            }
            plugs.push(next);
        }
        Spacer {
            page: spacer,
            plugs,
            len,
        }
    }
}

impl Drop for Spacer {
    fn drop(&mut self) {
        for plug in &self.plugs {
            // SAFETY: this value made the mapping, and nothing uses it.
            unsafe { libc::munmap(*plug, self.len) };
        }
        // SAFETY: as above.
        unsafe { libc::munmap(self.page, page_size()) };
    }
}

impl Neighbours {
    /// Maps a page before and a page after the `len` bytes at `start`, and fills them. Drop the spacer first.
    pub fn of(start: *const u8, len: usize) -> Neighbours {
        let mut neighbours = Neighbours::untouched(start, len);
        neighbours.contents = Contents::Filled;
        for (_, address) in &neighbours.pages {
            let page: *mut u8 = with_exposed_provenance_mut(*address);
            // SAFETY: the page was mapped just now, writable.
            unsafe { page.write_bytes(FILL, page_size()) };
        }
        neighbours
    }

    /// Maps a page before and a page after the `len` bytes at `start`. No operation on the mapping may make them
    /// resident, or pages that the mapping reserves around these bytes. Drop the spacer first.
    ///
    /// # Panics
    /// If nothing is mapped at `start`, which fails the case.
    pub fn untouched(start: *const u8, len: usize) -> Neighbours {
        // Beside an arbitrary address, such as MAP_FAILED, there may be no page.
        if mapped_pages(start, 1) == 0 {
            crate::fail(
                "Nothing is mapped at the address that your code returned. Check mmap's result."
                    .to_owned(),
            );
        }
        let page = page_size();
        let end = (start.addr() + len).next_multiple_of(page);
        let around = [("before", start.addr() - page), ("after", end)];
        let map = |(side, address)| map_at(address).then_some((side, address));
        Neighbours {
            pages: around.into_iter().filter_map(map).collect(),
            contents: Contents::Untouched {
                start,
                len,
                resident: resident_beside(start, len),
            },
        }
    }

    /// Fails the case if a neighbour was unmapped, overwritten or, if it was untouched, made resident, and if memory that the
    /// mapping reserves was made resident. `what` describes the operation.
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
            if let Contents::Untouched { .. } = self.contents {
                if resident_pages(page, 1) > 0 {
                    crate::fail(format!(
                        "{what} also made the page {side} it resident, which belongs to another mapping. Touch only \
                         the pages of your mapping."
                    ));
                }
                continue;
            }
            // SAFETY: the page is mapped, readable, and changed by nobody while the slice lives.
            let bytes = unsafe { slice::from_raw_parts(page, page_size()) };
            if bytes.iter().any(|byte| *byte != FILL) {
                crate::fail(format!(
                    "{what} also changed the page {side} it, which belongs to another mapping."
                ));
            }
        }
        if let Contents::Untouched {
            start,
            len,
            resident,
        } = self.contents
            && resident_beside(start, len) > resident
        {
            crate::fail(format!(
                "{what} also made pages resident that are only reserved, beside it in the same mapping. Touch only the \
                 pages of its length."
            ));
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

/// Maps a page at `address`. Returns false if something is mapped there.
fn map_at(address: usize) -> bool {
    let wanted = with_exposed_provenance_mut(address);
    map_page(wanted, libc::MAP_FIXED_NOREPLACE) == wanted
}

fn map_page(address: *mut libc::c_void, flags: libc::c_int) -> *mut libc::c_void {
    map(address, page_size(), flags)
}

fn map(address: *mut libc::c_void, len: usize, flags: libc::c_int) -> *mut libc::c_void {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = flags | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: callers do not pass MAP_FIXED, so no mapping is replaced.
    unsafe { libc::mmap(address, len, protection, flags, -1, 0) }
}
