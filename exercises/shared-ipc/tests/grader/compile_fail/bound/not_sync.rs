//! A MaybeUninit of a type that is not Sync is shared, but two processes could use it at the same time.

use std::marker::PhantomData;
use std::mem::MaybeUninit;

use shared_ipc::Shared;

/// It is `Copy`, `Send`, `Unpin`, `UnwindSafe`, `RefUnwindSafe` and `'static`, but not `Sync`.
#[derive(Clone, Copy)]
struct NotSync(PhantomData<*mut u8>);

// SAFETY: there is no pointer.
unsafe impl Send for NotSync {}

fn main() {
    let _shared = Shared::<MaybeUninit<NotSync>>::new(); //~ E0277 E0599
}
