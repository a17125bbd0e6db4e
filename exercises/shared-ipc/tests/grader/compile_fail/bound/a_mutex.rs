//! A Mutex of Rust's is shared, which wakes nobody in another process.

use shared_ipc::Shared;

fn main() {
    let _shared = Shared::<std::sync::Mutex<u32>>::new(); //~ E0277 E0599
}
