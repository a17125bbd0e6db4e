//! Stage 4: which types may be shared.

use super::*;

#[test]
fn plain_values_may_be_shared() {
    case(|| {
        let number = new!(AtomicU64);
        number.store(1, SeqCst);
        let _plain = new!([[u32; 4]; 4]);
    })
}
