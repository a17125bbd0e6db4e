//! Grades `shared-ipc`: a module for each stage, a case for each test.

use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use judge::probe::{mapped_pages, page_size, resident_pages, rights};
use judge::{case, check, in_child, pretend, watch, watched};
use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use shared_ipc::{Shared, ask_a_child};
use zerocopy::FromBytes;

/// 512 KiB, across many pages of any size.
type Numbers = [AtomicU64; 64 << 10];

/// A macro, and no function: a function would name the bound that the learner is to find.
macro_rules! new {
    ($type:ty) => {
        match Shared::<$type>::new() {
            Ok(shared) => shared,
            Err(error) => judge::fail(format!(
                "Shared::new() must map a value of {} bytes, and gave an error: {error}.",
                size_of::<$type>()
            )),
        }
    };
}

mod bound;
mod by_hand;
mod child;
mod shared;

judge::compile_fail! {
    bound: a_string, a_box, a_reference, a_pointer, a_cell, a_mutex, written_through
}
