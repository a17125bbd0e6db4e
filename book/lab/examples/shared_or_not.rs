//! A parent sees its child's writes only through a shared mapping that was made before the fork.
//!
//! Claims: 18, 19, 23, 42.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use lab::sharing::{Child, Memory};

type Numbers = &'static [AtomicU32; 2];

fn both(numbers: Numbers) -> [u32; 2] {
    numbers.each_ref().map(|number| number.load(Relaxed))
}

fn write(numbers: Numbers) {
    numbers[0].store(100, Relaxed);
    numbers[1].store(200, Relaxed);
    assert_eq!(both(numbers), [100, 200]);
}

fn main() {
    // ANCHOR: main
    let shared = Memory::Shared.atomics();
    let private = Memory::Private.atomics();
    let child = Child::start(|| {
        let too_late = Memory::Shared.atomics();
        for numbers in [shared, private, too_late] {
            write(numbers);
        }
        0
    });
    assert_eq!(child.exit_code(), 0);
    let too_late = Memory::Shared.atomics();
    println!("shared, mapped before the fork:   {:?}", both(shared));
    println!("private, mapped before the fork:  {:?}", both(private));
    println!("shared, mapped by each after it:  {:?}", both(too_late));
    // ANCHOR_END: main
    assert_eq!(both(shared), [100, 200]);
    assert_eq!(both(private), [0, 0]);
    assert_eq!(both(too_late), [0, 0]);
}
