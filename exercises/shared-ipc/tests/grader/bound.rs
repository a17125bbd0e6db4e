//! Stage 4: trait bounds. The compile-fail cases grade the types that must be rejected.

use std::marker::PhantomPinned;
use std::mem::MaybeUninit;
use std::sync::MutexGuard;

use super::*;

#[test]
fn plain_values_may_be_shared() {
    case(|| {
        let number = new!(AtomicU64);
        (*number).store(1, SeqCst);
        let _plain = new!([[u32; 4]; 4]);
        with_no_other_trait(&0);
    })
}

/// As the value of a `MaybeUninit`, it is `FromBytes` and `Sync`, but no other trait holds: not `Send`, `Unpin`,
/// `UnwindSafe`, `RefUnwindSafe`, `Copy` or `'static`.
#[allow(dead_code)]
struct OnlyShared<'a>(
    MutexGuard<'a, u8>,
    PhantomPinned,
    &'a mut u8,
    &'a (dyn Fn() + Sync),
);

/// The lifetime belongs to the caller, so that it is not `'static`.
fn with_no_other_trait<'a>(_: &'a u8) {
    let _value = new!(MaybeUninit<OnlyShared<'a>>);
}
