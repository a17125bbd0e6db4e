//! A reference is shared, and another process has something else at its address.

use shared_ipc::Shared;

fn main() {
    let _shared = Shared::<Option<&'static u8>>::new(); //~ E0277 E0599
}
