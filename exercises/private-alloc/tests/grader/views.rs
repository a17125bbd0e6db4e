//! Stage 5: `Send` and `Sync`. The compile-fail cases grade the lifetimes.

use std::thread;

use judge::probe::changes;

use super::*;

#[test]
fn sent_to_a_thread() {
    case(|| {
        // Ends the case here if the answer has no `Region::new` yet.
        let _region = region(LEN);
        check!(
            impls::impls!(Region: Send),
            "Region is not Send: a struct with a raw pointer is Send only by an `unsafe impl Send for Region`. Add \
             it, with a SAFETY comment."
        );
        expect_documented("Send");
    })
}

#[test]
fn shared_with_a_thread() {
    case(|| {
        // Ends the case here if the answer has no `Region::new` yet.
        let region = region(LEN);
        check!(
            impls::impls!(Region: Sync),
            "Region is not Sync: a struct with a raw pointer is Sync only by an `unsafe impl Sync for Region`. Add \
             it, with a SAFETY comment."
        );
        expect_documented("Sync");
        check!(
            !judge::answer::source::has_static_mut(),
            "The code has a `static mut`, which several threads may access at the same time: a data race. Use an atomic, a \
             OnceLock or a Mutex."
        );
        // `Cell`, `RefCell` and `UnsafeCell` are not RefUnwindSafe; atomics and locks are.
        if !impls::impls!(Region: std::panic::RefUnwindSafe) {
            let changed = changes(&region, || {
                let _ = (region.len(), region.as_slice());
            });
            check!(
                !changed,
                "len() or as_slice() writes to the Region through &self, without an atomic or a lock. Two threads may \
                 call them at the same time, so Sync is not sound."
            );
        }
    })
}

/// Fails the case if the answer has an `unsafe impl` of this trait without a comment that says why it is sound.
fn expect_documented(name: &str) {
    check!(
        !judge::answer::source::is_undocumented(name),
        "`unsafe impl {name}` has no SAFETY comment. Write directly above it, after `// SAFETY:`, why it is sound."
    );
}

/// Sends a value to another thread, whether or not it is `Send`.
struct Sent<T>(T);
// SAFETY: a region must be `Send`, and `sent_to_a_thread` grades that.
unsafe impl<T> Send for Sent<T> {}

#[test]
fn outlives_its_thread() {
    case(|| {
        let made = thread::spawn(|| {
            let mut region = region(LEN);
            fill(region.as_mut_slice());
            Sent(region)
        });
        let Ok(Sent(region)) = made.join() else {
            judge::fail("Region::new panicked in a second thread.".to_owned());
        };
        let (start, len) = (region.as_slice().as_ptr(), region.len());
        check!(
            mapped_pages(start, len) == len / page_size()
                && first_change(region.as_slice()).is_none(),
            "The thread that made a region has ended, and the region lost its pages or its contents. Unmap them only \
             in Drop."
        );
        drop_in_a_thread(region);
    })
}

/// A thread that has ended and a new one may look alike: glibc gives its stack, and with it pthread_self(3), to the next
/// one. Here both threads live, and both use the region.
#[test]
fn dropped_in_another_thread() {
    case(|| {
        let mut region = region(LEN);
        fill(region.as_mut_slice());
        drop_in_a_thread(region);
    })
}

/// Fails the case unless the region, which `fill` has filled, can be used and dropped in a new thread.
fn drop_in_a_thread(region: Region) {
    let (start, len) = (region.as_slice().as_ptr(), region.len());
    let sent = Sent(region);
    let used = thread::spawn(move || {
        let mut region = { sent }.0;
        check!(
            first_change(region.as_slice()).is_none(),
            "A region was sent to another thread, and its contents changed there. Keep the region's state in the \
             Region, not in a thread-local variable."
        );
        region.as_mut_slice().fill(0xAA);
    });
    if let Err(payload) = used.join() {
        std::panic::resume_unwind(payload);
    }
    check!(
        mapped_pages(start, len) == 0,
        "A region was dropped in a different thread from the one that made it, and it is still mapped. Unmap in \
         Drop, whichever thread runs it."
    );
}
