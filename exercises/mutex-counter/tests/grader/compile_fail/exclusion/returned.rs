//! The counter is accessed after the lock was released, through the reference that the closure returned.

use mutex_counter::Counter;

fn main() {
    let counter = Counter::new().unwrap();
    let number = counter.with_lock(|number, _| number).unwrap();
    *number += 1;
}
