//! Grades `private-alloc`: a module for each stage, a case for each test.

// An answer may take `&self` where the stub takes `&mut self`; that is judged, and needs no warning here.
#![allow(unused_mut)]

use std::io;
use std::io::ErrorKind::{self, InvalidInput, OutOfMemory};

use judge::probe::{faults, mapped_pages, page_size, resident_pages, rights};
use judge::{case, check, in_child, pretend, watch, watched};
use nix::libc;
use private_alloc::{Region, map_by_hand, unmap_by_hand};

mod by_hand;
mod errors;
mod populate;
mod region;
mod views;

/// A whole number of pages on every machine, and the size in the transcripts.
const LEN: usize = 512 << 10;

/// Fails the case unless the region was made.
#[track_caller]
fn region(len: usize) -> Region {
    made("Region::new", len, Region::new(len))
}

fn made(call: &str, len: usize, result: io::Result<Region>) -> Region {
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

/// Fails the case unless the page can be read and written, and no more: told here, it is clearer than the signal would be.
fn expect_read_and_write(start: *const u8) {
    let rights = rights(start);
    check!(
        rights.mapped,
        "The address that your function gave is not mapped."
    );
    check!(
        rights.read,
        "Your memory cannot be read: PROT_READ is missing."
    );
    check!(
        rights.write,
        "Your memory cannot be written: PROT_WRITE is missing."
    );
    check!(
        !rights.execute,
        "Your memory can be executed: leave PROT_EXEC out, so that nobody who writes data here can make it code."
    );
}

/// Writes the first byte of each page, and counts the page faults that this takes.
fn faults_of_writing(bytes: &mut [u8], value: u8) -> u64 {
    #[inline(never)]
    fn write_each_page(bytes: &mut [u8], page: usize, value: u8) {
        for byte in bytes.iter_mut().step_by(page) {
            // SAFETY: a reference is valid to write through. Volatile, so that each write is made.
            unsafe { (&raw mut *byte).write_volatile(value) };
        }
    }
    let page = page_size();
    // The code itself may be touched for the first time, and that is a fault too.
    write_each_page(&mut [0; 2], 1, value);
    faults();
    let before = faults();
    write_each_page(bytes, page, value);
    faults() - before
}

/// Fails the case unless the call was refused with that kind of error.
fn expect_refused(call: &str, result: io::Result<Region>, kind: ErrorKind) {
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

judge::compile_fail! {
    views: view_outlives_region, dropped_while_viewed, two_writers, read_while_writing
}
