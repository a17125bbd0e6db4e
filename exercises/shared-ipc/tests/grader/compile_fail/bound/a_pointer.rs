//! A pointer is shared, and another process has something else at its address.

use shared_ipc::Shared;

fn main() {
    let _shared = Shared::<std::sync::atomic::AtomicPtr<u8>>::new(); //~ E0277 E0599
}
