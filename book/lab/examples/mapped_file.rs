//! A shared file mapping and read(2) use the same pages; a private mapping has its own copies.

use std::env;
use std::os::unix::fs::FileExt;

use lab::kernel::{map_file, temporary_file};
use lab::sharing::Child;
use nix::sys::mman::MapFlags;
use nix::sys::wait::WaitStatus;

fn main() {
    let file = temporary_file(&env::temp_dir(), 0).expect("a temporary file");
    file.write_all_at(&[1], 0).expect("write");
    let first_byte = || {
        let mut byte = [0];
        file.read_exact_at(&mut byte, 0).expect("read");
        byte[0]
    };
    // ANCHOR: main
    let private = map_file(&file, 1, MapFlags::MAP_PRIVATE);
    // SAFETY: the mapping is writable, and nothing else accesses it.
    unsafe { lab::write(private.as_ptr(), 9) };
    let after_private = first_byte();
    let shared = map_file(&file, 2, MapFlags::MAP_SHARED);
    // SAFETY: as above.
    unsafe { lab::write(shared.as_ptr(), 2) };
    let after_shared = first_byte(); // without msync
    let beyond = lab::page(shared, 1); // the file has one byte
    // ANCHOR_END: main
    println!("written through a private mapping, read by read(2): {after_private}");
    println!("written through a shared mapping, read by read(2): {after_shared}");
    assert_eq!((after_private, after_shared), (1, 2));
    let child = Child::start(|| {
        // SAFETY: the address is mapped. The kernel ends this process, because the file does not reach there.
        unsafe { lab::read(beyond) }.into()
    });
    let WaitStatus::Signaled(_, signal, _) = child.wait() else {
        panic!("the child has read a byte beyond the end of the file");
    };
    println!("touched beyond the end of the file: {signal}");
    assert_eq!(signal.as_str(), "SIGBUS");
}
