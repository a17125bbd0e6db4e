//! What one process writes to shared memory another reads while both run; a release and an acquire put it in order.
//! Claims: 19, 42.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use lab::sharing::{Child, Memory};

fn main() {
    // ANCHOR: main
    let [value, turn] = Memory::Shared.numbers();
    let child = Child::start(|| {
        value.store(42, Relaxed);
        turn.store(1, Release);
        while turn.load(Acquire) != 2 {
            std::thread::yield_now();
        }
        value.load(Relaxed) as i32
    });
    child.wait_until(|| turn.load(Acquire) == 1);
    let question = value.load(Relaxed);
    assert!(child.runs());
    value.store(43, Relaxed);
    turn.store(2, Release);
    let answer = child.status();
    // ANCHOR_END: main
    println!("the parent read {question} while the child ran");
    println!("the child read {answer} and ended");
    assert_eq!((question, answer), (42, 43));
}
