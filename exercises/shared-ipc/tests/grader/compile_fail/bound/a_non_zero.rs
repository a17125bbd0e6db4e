//! A NonZero is shared, but the bytes of a new value are 0.

use shared_ipc::Shared;

fn main() {
    let _shared = Shared::<std::num::NonZero<u32>>::new(); //~ E0277 E0599
}
