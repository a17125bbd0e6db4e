//! The value is assigned through a &mut. Do not implement DerefMut: two processes could each hold a &mut.

use shared_ipc::Shared;

fn main() {
    let mut shared = Shared::<u64>::new().unwrap();
    *shared = 1; //~ E0594
}
