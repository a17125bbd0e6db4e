//! Stage 2: mutual exclusion.

use super::*;

/// When a second process got past the lock that a first one held.
struct Contention {
    /// It got past the lock while the first process still held it.
    before_unlock: bool,
    /// It got past the lock at all.
    ever: bool,
}

/// Makes one process hold the lock while a second one makes `call`.
///
/// The first process runs `hold` under the lock. `hold` calls its second argument, which returns after the second
/// process has had time to get past the lock. The second process runs `contend`, which makes the call and sends the
/// event as soon as it is past the lock.
///
/// Fails the case if the call returned an error.
fn contention(
    counter: &Counter,
    hold: impl FnOnce(&mut u64, &dyn Fn()),
    call: &str,
    contend: impl FnOnce(&Event) -> io::Result<()>,
) -> Contention {
    let [held, unlock, waiting, past_the_lock] = [(); 4].map(|()| Event::new());
    let first = fork_child(|| {
        with_lock(counter, |number, _| {
            hold(number, &|| {
                held.send();
                unlock.wait();
            });
        });
    });
    held.wait();
    let second = ReportingChild::fork_fallible(|| {
        waiting.send();
        contend(&past_the_lock)
    });
    waiting.wait();
    let before_unlock = past_the_lock.arrives_within(A_WHILE);
    unlock.send();
    let ever = before_unlock || past_the_lock.arrives_within(SOON);
    reap(second.pid, ever);
    reap(first, true);
    expect_no_error(second, call);
    Contention {
        before_unlock,
        ever,
    }
}

#[test]
fn one_process_at_a_time() {
    case(|| {
        let counter = new_counter();
        let add_slowly = |number: &mut u64, pause: &dyn Fn()| {
            let before = *number;
            pause();
            *number = before + 1;
        };
        let second = contention(&counter, add_slowly, "with_lock", |past_the_lock| {
            counter.with_lock(|number, _| {
                past_the_lock.send();
                *number += 1;
            })
        });
        check!(
            !second.before_unlock,
            "A second process had the number while the first still had it: the lock does not keep it out."
        );
        check!(
            second.ever,
            "A process that waited for the lock was never woken when another gave it back: a mutex wakes nobody in \
             another process unless it is told that it is shared."
        );
        check!(
            get(&counter) == 2,
            "Two processes added 1 each, one after the other, and the number is not 2."
        );
    })
}

#[test]
fn get_waits_too() {
    case(|| {
        let counter = new_counter();
        let change_twice = |number: &mut u64, pause: &dyn Fn()| {
            *number = 1;
            pause();
            *number = 2;
        };
        let second = contention(&counter, change_twice, "get()", |past_the_lock| {
            counter.get()?;
            past_the_lock.send();
            Ok(())
        });
        check!(
            !second.before_unlock,
            "get() read the number while another process was changing it: it must lock, too."
        );
    })
}
