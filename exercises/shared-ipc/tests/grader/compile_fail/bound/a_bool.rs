//! A bool is shared, but another process may write a byte that is neither 0 nor 1.

use shared_ipc::Shared;

fn main() {
    let _shared = Shared::<bool>::new(); //~ E0277 E0599
}
