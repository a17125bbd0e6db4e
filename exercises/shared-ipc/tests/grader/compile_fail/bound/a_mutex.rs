//! A std::sync::Mutex is shared, but it cannot wake a waiter in another process.

use shared_ipc::Shared;

fn main() {
    let _shared = Shared::<std::sync::Mutex<u32>>::new(); //~ E0277 E0599
}
