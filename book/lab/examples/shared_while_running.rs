//! A process reads what another writes to shared memory while both run. Release and acquire order the accesses.
//!
//! Claims: 19, 42.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use lab::sharing::{Child, Memory};

fn main() {
    // ANCHOR: main
    let [value, turn] = Memory::Shared.atomics();
    let child = Child::start(|| {
        value.store(42, Relaxed);
        turn.store(1, Release);
        while turn.load(Acquire) != 2 {
            std::thread::yield_now();
        }
        value.load(Relaxed) as i32
    });
    child.wait_until(|| turn.load(Acquire) == 1);
    let parent_read = value.load(Relaxed);
    assert!(child.is_running());
    value.store(43, Relaxed);
    turn.store(2, Release);
    let child_read = child.exit_code();
    // ANCHOR_END: main
    println!("the parent read {parent_read} while the child ran");
    println!("the child read {child_read} and ended");
    assert_eq!((parent_read, child_read), (42, 43));
}
