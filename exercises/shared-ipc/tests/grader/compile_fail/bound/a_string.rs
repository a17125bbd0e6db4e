//! A String is shared, whose pointer leads into one process's heap.

use shared_ipc::Shared;

fn main() {
    let _shared = Shared::<String>::new(); //~ E0277 E0599
}
