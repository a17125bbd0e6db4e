//! Grades `private-alloc`. Each stage is a module, and each test is a case.

// If an answer takes `&self` where the stub takes `&mut self`, the compile-fail cases say so. The learner does not need
// rustc's warning about the grader's `let mut` as well.
#![allow(unused_mut)]

use std::io;
use std::io::ErrorKind::{self, InvalidInput, OutOfMemory};

use judge::probe::{Kind, expect_plain, mapped_pages, page_size, permissions, resident_pages};
use judge::{case, check, in_child, pretend, watch, watched};
use private_alloc::Region;

mod by_hand;
mod errors;
mod populate;
mod region;
mod views;

/// A multiple of every page size. The transcripts contain this length.
const LEN: usize = 512 << 10;

/// Returns a new region, or fails the case.
fn region(len: usize) -> Region {
    expect_region("Region::new", len, Region::new(len))
}

/// Returns the region, or fails the case if `call` returned an error.
fn expect_region(call: &str, len: usize, result: io::Result<Region>) -> Region {
    match result {
        Ok(region) => region,
        Err(error) => judge::fail(format!(
            "{call}({len}) must give a region, and gave an error: {error}."
        )),
    }
}

/// Fails the case unless every byte is zero.
fn expect_zeros(bytes: &[u8]) {
    if let Some(offset) = bytes.iter().position(|byte| *byte != 0) {
        judge::fail(format!(
            "Fresh memory must read as zero, and byte {offset} of your region reads {}.",
            bytes[offset]
        ));
    }
}

/// Fails the case unless the page is readable, writable and not executable. This says more than a SIGSEGV would.
fn expect_read_and_write(start: *const u8) {
    let permissions = permissions(start);
    check!(
        permissions.mapped,
        "The address that your function gave is not mapped."
    );
    check!(
        permissions.read,
        "Your memory cannot be read: PROT_READ is missing."
    );
    check!(
        permissions.write,
        "Your memory cannot be written: PROT_WRITE is missing."
    );
    check!(
        !permissions.execute,
        "Your memory can be executed: leave PROT_EXEC out, so that nobody who writes data here can make it code."
    );
}

/// Fails the case unless `call` failed with an error of this kind.
fn expect_error(call: &str, result: io::Result<Region>, kind: ErrorKind) {
    match result {
        Ok(_) => judge::fail(format!(
            "{call} must be an error, {kind:?}, and it gave a region."
        )),
        Err(error) => check!(
            error.kind() == kind,
            "{call} must fail with {kind:?}, and it failed with {:?}.",
            error.kind()
        ),
    }
}

judge::answer!();

judge::compile_fail! {
    views: view_outlives_region, dropped_while_viewed, two_writers, read_while_writing
}
