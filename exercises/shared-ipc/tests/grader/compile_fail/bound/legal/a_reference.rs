use shared_ipc::Shared;

fn main() {
    let _shared = Shared::<u64>::new().unwrap();
}
