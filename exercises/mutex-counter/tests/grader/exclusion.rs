//! Stage 2: mutual exclusion between processes.

use super::*;

/// One process waits inside; whether another gets in meanwhile, and whether it does afterwards.
#[test]
fn one_process_at_a_time() {
    case(|| {
        let counter = new();
        let [inside, leave, at_the_door, second_inside] = [(); 4].map(|()| Message::new());
        let first = child(|| {
            locked(&counter, |number, _| {
                let before = *number;
                inside.send();
                leave.wait();
                *number = before + 1;
            });
        });
        inside.wait();
        let second = waiter(|| {
            at_the_door.send();
            counter.with_lock(|number, _| {
                second_inside.send();
                *number += 1;
            })
        });
        at_the_door.wait();
        let both = second_inside.comes_within(A_WHILE);
        leave.send();
        let after = both || second_inside.comes_within(SOON);
        if !after {
            let _ = kill(second.pid, Signal::SIGKILL);
        }
        for pid in [first, second.pid] {
            let _ = waitpid(pid, None);
        }
        expect_no_error(second, "with_lock");
        check!(
            !both,
            "A second process had the number while the first still had it: the lock does not keep it out."
        );
        check!(
            after,
            "A process that waited for the lock was never woken when another gave it back: a mutex wakes nobody in \
             another process unless it is told that it is shared."
        );
        check!(
            got(&counter) == 2,
            "Two processes added 1 each, one after the other, and the number is not 2."
        );
    })
}

#[test]
fn get_waits_too() {
    case(|| {
        let counter = new();
        let [inside, leave, at_the_door, read] = [(); 4].map(|()| Message::new());
        let first = child(|| {
            locked(&counter, |number, _| {
                *number = 1;
                inside.send();
                leave.wait();
                *number = 2;
            });
        });
        inside.wait();
        let second = waiter(|| {
            at_the_door.send();
            counter.get()?;
            read.send();
            Ok(())
        });
        at_the_door.wait();
        let early = read.comes_within(A_WHILE);
        leave.send();
        let after = early || read.comes_within(SOON);
        if !after {
            let _ = kill(second.pid, Signal::SIGKILL);
        }
        for pid in [first, second.pid] {
            let _ = waitpid(pid, None);
        }
        expect_no_error(second, "get()");
        check!(
            !early,
            "get() read the number while another process was changing it: it must lock, too."
        );
    })
}
