//! The counter is accessed after the lock was released, through a reference that the closure stored outside.

use mutex_counter::Counter;

fn main() {
    let counter = Counter::new().unwrap();
    let mut kept = None;
    counter.with_lock(|number, _| kept = Some(number)).unwrap();
    *kept.unwrap() += 1;
}
