//! A private mapping is private to a process: other threads see a write, the parent of the process does not.
//!
//! Claims: 42.

use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;

use lab::kernel::Child;

fn main() {
    let start = lab::map_private(1).as_ptr().cast::<AtomicU8>();
    // SAFETY: the page is never unmapped, and is accessed only through this reference.
    let byte = unsafe { &*start };
    // ANCHOR: main
    byte.store(1, Ordering::Relaxed);

    let mut child = Child::fork(|_| byte.store(2, Ordering::Relaxed));
    child.step(0);
    let after_child = byte.load(Ordering::Relaxed);
    println!("a child wrote 2:  this thread reads {after_child}");

    thread::scope(|scope| {
        scope.spawn(|| byte.store(3, Ordering::Relaxed));
    });
    let after_thread = byte.load(Ordering::Relaxed);
    println!("a thread wrote 3: this thread reads {after_thread}");
    // ANCHOR_END: main
    assert_eq!((after_child, after_thread), (1, 3));
}
