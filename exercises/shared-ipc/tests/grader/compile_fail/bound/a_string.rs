//! A String is shared, but it points into the heap of one process.

use shared_ipc::Shared;

fn main() {
    let _shared = Shared::<String>::new(); //~ E0277 E0599
}
