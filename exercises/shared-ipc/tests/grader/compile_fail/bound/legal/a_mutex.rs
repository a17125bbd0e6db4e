use shared_ipc::Shared;

fn main() {
    let _shared = Shared::<[std::sync::atomic::AtomicU32; 2]>::new().unwrap();
}
