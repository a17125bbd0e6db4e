//! Stage 3: panics in the closure, and relocking by the owner.

use super::*;

#[test]
fn a_panic_goes_on_and_the_lock_is_given_back() {
    case(|| {
        judge::expect_panics();
        let counter = new();
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
        let told = lock_in_a_child(
            &counter,
            "After a panic in the closure the lock was never given back: unlock where the closure unwinds, too.",
        );
        check!(
            told == Ok(Entry::Clean),
            "After a panic in the closure the lock must be given back, and the next with_lock {}.",
            in_words(&told)
        );
    })
}

#[test]
fn twice_by_one_owner() {
    case(|| {
        let counter = new();
        let nested = locked(&counter, |_, _| counter.with_lock(|_, _| ()).is_err());
        check!(
            nested,
            "with_lock inside with_lock must be an error: there are two &mut to one number now."
        );
        let read = locked(&counter, |_, _| counter.get().is_err());
        check!(
            read,
            "get() inside with_lock must be an error: it would read the number while the closure holds a &mut to it."
        );
        let told = lock_in_a_child(
            &counter,
            "After a refused with_lock the lock was never given back: only who has locked unlocks.",
        );
        check!(
            told == Ok(Entry::Clean),
            "After a refused with_lock the next one must find all well, and it {}.",
            in_words(&told)
        );
    })
}

#[test]
fn the_refusal_keeps_the_lock() {
    case(|| {
        let counter = new();
        let [at_the_door, inside] = [(); 2].map(|()| Message::new());
        let mut second = None;
        let kept_out = locked(&counter, |_, _| {
            let _ = counter.with_lock(|_, _| ());
            second = Some(child(|| {
                at_the_door.send();
                let _ = counter.with_lock(|_, _| ());
                inside.send();
            }));
            at_the_door.wait();
            !inside.comes_within(A_WHILE)
        });
        let after = inside.comes_within(SOON);
        if let Some(pid) = second {
            if !after {
                let _ = kill(pid, Signal::SIGKILL);
            }
            let _ = waitpid(pid, None);
        }
        check!(
            kept_out,
            "A refused with_lock gave the lock of the outer one away."
        );
    })
}
