//! A value is assigned through a mutable reference, of which two processes would have one each.

use shared_ipc::Shared;

fn main() {
    let mut shared = Shared::<u64>::new().unwrap();
    *shared = 1; //~ E0594
}
