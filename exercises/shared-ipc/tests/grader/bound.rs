//! Stage 4: trait bounds. The compile-fail cases grade the types that must be rejected.

use super::*;

#[test]
fn plain_values_may_be_shared() {
    case(|| {
        let number = new!(AtomicU64);
        number.store(1, SeqCst);
        let _plain = new!([[u32; 4]; 4]);
    })
}
