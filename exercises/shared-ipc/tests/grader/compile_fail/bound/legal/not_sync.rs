use std::marker::PhantomData;
use std::mem::MaybeUninit;

use shared_ipc::Shared;

#[derive(Clone, Copy)]
struct IsSync(PhantomData<u8>);

fn main() {
    let _shared = Shared::<MaybeUninit<IsSync>>::new().unwrap();
}
