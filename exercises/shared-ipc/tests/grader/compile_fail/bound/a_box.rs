//! A Box is shared, but it points into the heap of one process.

use shared_ipc::Shared;

fn main() {
    let _shared = Shared::<Option<Box<u8>>>::new(); //~ E0277 E0599
}
