//! Grades `shared-ipc`. Each stage is a module, and each test is a case.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use judge::{case, check, watch, watched};
use shared_ipc::Shared;

/// 512 KiB: several pages, whatever the page size is.
type Numbers = [AtomicU64; 64 << 10];

/// Returns a new `Shared<$type>`, or fails the case.
///
/// A generic function would have to name the bound that the learner is asked to find, so this is a macro.
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

judge::answer!();

judge::compile_fail! {
    bound: a_string, a_box, a_reference, a_pointer, a_cell, a_mutex, written_through
}
