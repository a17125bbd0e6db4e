use shared_ipc::Shared;
use std::sync::atomic::{AtomicU64, Ordering};

fn main() {
    let shared = Shared::<AtomicU64>::new().unwrap();
    (*shared).store(1, Ordering::Relaxed);
}
