//! Stage 5: borrows of a region, `Send` and `Sync`.

use super::*;

#[test]
fn sent_to_a_thread() {
    case(|| {
        let _started = region(LEN);
        check!(
            impls::impls!(Region: Send),
            "A Region cannot be sent to another thread: a raw pointer is not Send, and you must say that yours is."
        );
    })
}

#[test]
fn shared_with_a_thread() {
    case(|| {
        let _started = region(LEN);
        check!(
            impls::impls!(Region: Sync),
            "A &Region cannot be shared with another thread: a raw pointer is not Sync, and you must say that \
             yours is."
        );
    })
}
