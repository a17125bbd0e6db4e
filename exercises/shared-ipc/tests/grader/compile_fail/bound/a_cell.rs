//! A Cell is shared, but two processes could change it at the same time without synchronisation.

use shared_ipc::Shared;

fn main() {
    let _shared = Shared::<std::cell::Cell<u32>>::new(); //~ E0277 E0599
}
