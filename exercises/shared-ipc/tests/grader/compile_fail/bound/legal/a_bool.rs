use shared_ipc::Shared;

fn main() {
    let _shared = Shared::<u8>::new().unwrap();
}
