//! A Cell is shared, which two processes may change at the same time.

use shared_ipc::Shared;

fn main() {
    let _shared = Shared::<std::cell::Cell<u32>>::new(); //~ E0277 E0599
}
