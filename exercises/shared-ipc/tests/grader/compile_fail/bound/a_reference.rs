//! A reference is shared, but the address in it is valid in one process only.

use shared_ipc::Shared;

fn main() {
    let _shared = Shared::<Option<&'static u8>>::new(); //~ E0277 E0599
}
