//! A Box is shared, which another process would free on its own heap.

use shared_ipc::Shared;

fn main() {
    let _shared = Shared::<Option<Box<u8>>>::new(); //~ E0277 E0599
}
