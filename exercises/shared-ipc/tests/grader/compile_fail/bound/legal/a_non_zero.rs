use shared_ipc::Shared;

fn main() {
    let _shared = Shared::<u32>::new().unwrap();
}
