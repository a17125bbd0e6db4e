//! Stage 5: `Send` and `Sync`. The compile-fail cases grade the lifetimes.

use super::*;

#[test]
fn sent_to_a_thread() {
    case(|| {
        // Ends the case here if the answer has no `Region::new` yet.
        let _region = region(LEN);
        check!(
            impls::impls!(Region: Send),
            "A Region cannot be sent to another thread: a raw pointer is not Send, and you must say that yours is."
        );
    })
}

#[test]
fn shared_with_a_thread() {
    case(|| {
        // Ends the case here if the answer has no `Region::new` yet.
        let _region = region(LEN);
        check!(
            impls::impls!(Region: Sync),
            "A &Region cannot be shared with another thread: a raw pointer is not Sync, and you must say that \
             yours is."
        );
    })
}
