//! Grades `private-alloc`. Each stage is a module, and each test is a case.

// If an answer takes `&self` where the stub takes `&mut self`, the compile-fail cases say so. The learner does not need
// rustc's warning about the grader's `let mut` as well.
#![allow(unused_mut)]

use std::io;
use std::io::ErrorKind::{self, InvalidInput, OutOfMemory};

use judge::probe::{
    Kind, expect_ok_whatever_errno, expect_plain, failed_call, forget_failed_calls, is_from_output,
    mapped_pages, page_size, permissions, resident_pages, vm_flags,
};
use judge::{
    Call, Errno, Neighbours, Seen, Spacer, case, check, in_child, pretend, refusals, refuse, watch,
    watched,
};
use private_alloc::Region;

mod by_hand;
mod errors;
mod populate;
mod region;
mod views;

/// A multiple of every page size. The transcripts contain this length.
const LEN: usize = 512 << 10;

/// More bytes than a `u32` counts, and a multiple of every page size.
const OVER_4_GIB: usize = (4 << 30) + (64 << 10);

/// Lengths at which rounding to pages goes wrong, with names that are the same on every machine.
fn lengths() -> [(usize, &'static str); 7] {
    let page = page_size();
    [
        (1, "1 byte"),
        (page - 1, "1 page less 1 byte"),
        (page, "1 page"),
        (page + 1, "1 page and 1 byte"),
        (3 * page + 123, "3 pages and 123 bytes"),
        (16 * page - 1, "16 pages less 1 byte"),
        (LEN, "512 KiB"),
    ]
}

/// Lengths at which an answer may map in another way, for example with huge pages: an even one, and one that ends within
/// a page.
const LARGE: [(usize, &str); 3] = [
    (2 << 20, "2 MiB"),
    ((2 << 20) + 1, "2 MiB and 1 byte"),
    ((64 << 20) + 1, "64 MiB and 1 byte"),
];

/// An errno that none of the answer's system calls sets. The graders set it before a call of the answer.
const STALE: Errno = Errno::EDOM;

/// Sets errno to `STALE`, and forgets which calls have failed. Call it before a function of the answer.
fn begin_call() {
    STALE.set();
    forget_failed_calls();
}

/// Fails the case if the error comes from errno, and not from a call that has failed.
fn expect_own_errno(call: &str, error: &io::Error) {
    check!(
        error.raw_os_error() != Some(STALE as i32),
        "{call} returned the error \"{error}\", which an earlier call had left in errno. errno counts only after a call \
         that failed: look at the call's result first."
    );
    check!(
        !is_from_output(error),
        "{call} returned the error \"{error}\", which the output of a message had left in errno. Any call may change \
         errno: call io::Error::last_os_error() directly after the call that failed."
    );
}

/// Returns a new region, or fails the case.
fn region(len: usize) -> Region {
    begin_call();
    expect_region("Region::new", len, Region::new(len))
}

/// Returns the region, or fails the case if `call` returned an error.
fn expect_region(call: &str, len: usize, result: io::Result<Region>) -> Region {
    match result {
        Ok(region) => region,
        Err(error) => {
            expect_own_errno(call, &error);
            judge::fail(format!(
                "{call}({len}) returned the error \"{error}\"; expected a region.{}",
                failed_call(&error)
            ));
        }
    }
}

/// The byte that `fill` writes at this offset. It is never 0, and no two neighbouring pages are alike.
const fn pattern(offset: usize) -> u8 {
    (offset % PERIOD) as u8 + 1
}

/// A prime, so that it divides no page size.
const PERIOD: usize = 251;

/// Compared and copied block by block, because an unoptimised loop over bytes takes milliseconds.
static PATTERN: [u8; 64 * PERIOD] = {
    let mut bytes = [0; 64 * PERIOD];
    let mut offset = 0;
    while offset < bytes.len() {
        bytes[offset] = pattern(offset);
        offset += 1;
    }
    bytes
};

static ZEROS: [u8; PATTERN.len()] = [0; PATTERN.len()];

fn fill(bytes: &mut [u8]) {
    for block in bytes.chunks_mut(PATTERN.len()) {
        block.copy_from_slice(&PATTERN[..block.len()]);
    }
}

/// Returns the first offset at which the bytes are not those that `fill` has written.
fn first_change(bytes: &[u8]) -> Option<usize> {
    first_difference(bytes, &PATTERN)
}

/// Returns the first offset at which the bytes differ from a repetition of `block`.
fn first_difference(bytes: &[u8], block: &[u8]) -> Option<usize> {
    let mut chunks = bytes.chunks(block.len()).enumerate();
    let (index, chunk) = chunks.find(|(_, chunk)| *chunk != &block[..chunk.len()])?;
    let offset = chunk
        .iter()
        .zip(block)
        .position(|(got, expected)| got != expected);
    Some(index * block.len() + offset?)
}

fn is_zero(bytes: &[u8]) -> bool {
    first_difference(bytes, &ZEROS).is_none()
}

/// Fails the case unless every byte is zero.
fn expect_zeros(bytes: &[u8]) {
    if let Some(offset) = first_difference(bytes, &ZEROS) {
        judge::fail(format!(
            "Byte {offset} of a new region is {}; expected 0. Map new memory for each region: the kernel zeroes every \
             page that it maps.",
            bytes[offset]
        ));
    }
}

/// Fails the case if the answer has left something, or asked for huge pages of the machine's pool.
fn expect_clean(seen: &Seen) {
    let from_pool = |call: &&Call| call.args[3] & nix::libc::MAP_HUGETLB as u64 != 0;
    let mapped = seen.calls("mmap");
    if let Some(call) = mapped.into_iter().find(from_pool) {
        judge::fail(format!(
            "Your code called mmap for {} with MAP_HUGETLB. If the machine has reserved huge pages, one touch makes a \
             huge page resident, and munmap fails for a length that is not a multiple of it. Leave out MAP_HUGETLB.",
            judge::amount(call.args[1] as usize)
        ));
    }
    seen.expect_nothing_left();
}

/// Describes `count` of a number of pages, as the subject of a sentence about `whose` pages: `its only page is`.
fn pages_of(whose: &str, count: usize, all: usize) -> String {
    match (count, all) {
        (1, 1) => format!("{whose} only page is"),
        (1, _) => format!("1 of {whose} {all} pages is"),
        _ => format!("{count} of {whose} {all} pages are"),
    }
}

/// Fails the case unless the page is readable, writable and not executable. This says more than a SIGSEGV would.
fn expect_read_and_write(start: *const u8) {
    let permissions = permissions(start);
    check!(
        permissions.mapped,
        "Nothing is mapped at the first byte of the new memory. Keep all of it mapped until its owner unmaps it."
    );
    check!(
        permissions.read,
        "The memory is mapped without read permission. Pass PROT_READ | PROT_WRITE."
    );
    check!(
        permissions.write,
        "The memory is mapped without write permission. Pass PROT_READ | PROT_WRITE."
    );
    check!(
        !permissions.execute,
        "The memory is mapped with execute permission. Leave out PROT_EXEC, so that data written here cannot run as \
         code."
    );
}

/// Fails the case unless all pages of the `len` bytes at `start` are mapped.
fn expect_mapped(start: *const u8, len: usize, name: &str) {
    let (mapped, expected) = (mapped_pages(start, len), len.div_ceil(page_size()));
    check!(
        mapped > 0,
        "Nothing is mapped at the address of a region of {name}. Check mmap's result, and keep the mapping until Drop."
    );
    check!(
        // What is mapped after the region's first page may belong to something else.
        mapped < expected || permissions(start.wrapping_add(len - 1)) == permissions(start),
        "A region of {name} is not mapped up to its last byte. Pass the whole length to mmap."
    );
    check!(
        mapped == expected,
        "Of the {expected} pages of a region of {name}, {mapped} are mapped; expected all of them."
    );
}

/// Fails the case unless `call` failed with an error of this kind.
fn expect_error(call: &str, result: io::Result<Region>, kind: ErrorKind) {
    match result {
        Ok(_) => judge::fail(format!("{call} returned Ok; expected Err({kind:?}).")),
        Err(error) => {
            expect_own_errno(call, &error);
            check!(
                error.kind() == kind,
                "{call} returned Err({:?}); expected Err({kind:?}).{}",
                error.kind(),
                match error.raw_os_error() {
                    Some(errno) => format!(
                        " A system call failed with {:?}: check the length before the call, or return {kind:?} then.",
                        Errno::from_raw(errno)
                    ),
                    None => String::new(),
                }
            );
        }
    }
}

/// Locks the page at `start`. Returns false if RLIMIT_MEMLOCK or the machine does not permit that.
fn lock_a_page(start: *const u8) -> bool {
    // SAFETY: mlock changes no contents. The lock ends with the mapping.
    (unsafe { nix::libc::mlock(start.cast(), 1) }) == 0 && is_locked(start)
}

fn is_locked(start: *const u8) -> bool {
    vm_flags(start).is_some_and(|flags| flags.has("lo"))
}

/// From here on this thread may not lock memory, also if it is root's.
fn forbid_locks() {
    /// Version 3 of the header, and the capability that exempts from RLIMIT_MEMLOCK (capget(2)). Not in libc's crate.
    const VERSION: u32 = 0x2008_0522;
    const CAP_IPC_LOCK: u32 = 1 << 14;
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    /// Effective, permitted and inheritable capabilities, in two halves.
    type Sets = [[u32; 3]; 2];
    let header = Header {
        version: VERSION,
        pid: 0,
    };
    let mut sets: Sets = [[0; 3]; 2];
    // SAFETY: the call reads the header and writes the sets.
    unsafe { nix::libc::syscall(nix::libc::SYS_capget, &raw const header, &raw mut sets) };
    sets[0][0] &= !CAP_IPC_LOCK;
    // SAFETY: the call reads both.
    unsafe { nix::libc::syscall(nix::libc::SYS_capset, &raw const header, &raw const sets) };
    let none = nix::libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the call reads the limits.
    unsafe { nix::libc::setrlimit(nix::libc::RLIMIT_MEMLOCK, &raw const none) };
    judge::rebase_state();
}

judge::answer!();

judge::compile_fail! {
    views: view_outlives_region, dropped_while_viewed, two_writers, read_while_writing
}
