//! Stage 3: panics and relocking.

use super::*;

#[test]
fn a_panic_goes_on_and_the_lock_is_given_back() {
    case(|| {
        judge::expect_panics();
        let counter = new_counter();
        let panicked = panic::catch_unwind(AssertUnwindSafe(|| {
            let _ = counter.with_lock(|_, _| panic!("on purpose"));
        }));
        let Err(payload) = panicked else {
            judge::fail(
                "A panic in the closure must go on to the caller of with_lock, and was lost."
                    .to_owned(),
            )
        };
        check!(
            payload.downcast_ref::<&str>() == Some(&"on purpose"),
            "A panic in the closure must go on to the caller of with_lock as it is, and another one came."
        );
        let result = lock_in_a_child(
            &counter,
            "After a panic in the closure the lock was never given back: unlock where the closure unwinds, too.",
        );
        check!(
            result == Ok(Entry::Clean),
            "After a panic in the closure the lock must be given back, and the next with_lock {}.",
            describe(&result)
        );
    })
}

#[test]
fn twice_by_one_owner() {
    case(|| {
        let counter = new_counter();
        let nested = with_lock(&counter, |_, _| counter.with_lock(|_, _| ()).is_err());
        check!(
            nested,
            "with_lock inside with_lock must be an error: there are two &mut to one number now."
        );
        let read = with_lock(&counter, |_, _| counter.get().is_err());
        check!(
            read,
            "get() inside with_lock must be an error: it would read the number while the closure holds a &mut to it."
        );
        let result = lock_in_a_child(
            &counter,
            "After a refused with_lock the lock was never given back: only who has locked unlocks.",
        );
        check!(
            result == Ok(Entry::Clean),
            "After a refused with_lock the next one must find all well, and it {}.",
            describe(&result)
        );
    })
}

#[test]
fn the_refusal_keeps_the_lock() {
    case(|| {
        let counter = new_counter();
        let [waiting, entered] = [(); 2].map(|()| Event::new());
        let mut second = None;
        let kept_out = with_lock(&counter, |_, _| {
            let _ = counter.with_lock(|_, _| ());
            second = Some(fork_child(|| {
                waiting.send();
                let _ = counter.with_lock(|_, _| ());
                entered.send();
            }));
            waiting.wait();
            !entered.arrives_within(A_WHILE)
        });
        let after = entered.arrives_within(SOON);
        if let Some(pid) = second {
            reap(pid, after);
        }
        check!(
            kept_out,
            "A refused with_lock gave the lock of the outer one away."
        );
    })
}
