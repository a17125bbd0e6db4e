//! RLIMIT_AS limits all mappings. RLIMIT_DATA limits only private writable memory.

use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

const LIMIT: u64 = 32 << 20;
const LEN: usize = 64 << 20;

// ANCHOR: main
/// Maps twice what the limit allows. With `then_writable`, mprotect makes the mapping
/// writable afterwards.
fn try_map(limit: Resource, prot: i32, flags: i32, then_writable: bool) -> Result<(), Errno> {
    let (soft, hard) = getrlimit(limit).expect("getrlimit");
    setrlimit(limit, LIMIT, hard).expect("setrlimit");
    let flags = flags | libc::MAP_ANONYMOUS;
    let any_address = std::ptr::null_mut();
    // SAFETY: without MAP_FIXED, mmap does not replace an existing mapping.
    let start = unsafe { libc::mmap(any_address, LEN, prot, flags, -1, 0) };
    let mut result = match start {
        libc::MAP_FAILED => Err(Errno::last()),
        _ => Ok(()),
    };
    if then_writable && result.is_ok() {
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: this function made the mapping, and mprotect only adds permissions.
        let returned = unsafe { libc::mprotect(start, LEN, prot) };
        result = Errno::result(returned).map(drop);
    }
    setrlimit(limit, soft, hard).expect("setrlimit");
    if start != libc::MAP_FAILED {
        // SAFETY: this function made the mapping, and nothing accesses it.
        unsafe { libc::munmap(start, LEN) };
    }
    result
}
// ANCHOR_END: main

fn main() {
    let (read, write) = (libc::PROT_READ, libc::PROT_READ | libc::PROT_WRITE);
    let (private, shared) = (libc::MAP_PRIVATE, libc::MAP_SHARED);
    let lazy = private | libc::MAP_NORESERVE;
    let rows = [
        ("private, to write", write, private, false, true),
        ("private, to read", read, private, false, false),
        ("private, no access", libc::PROT_NONE, private, false, false),
        (
            "no access, then mprotect",
            libc::PROT_NONE,
            private,
            true,
            true,
        ),
        ("private, MAP_NORESERVE", write, lazy, false, true),
        ("shared, to write", write, shared, false, false),
    ];
    println!("64 MiB, with a limit of   RLIMIT_AS    RLIMIT_DATA");
    for (name, prot, flags, then_writable, is_data) in rows {
        let addresses = try_map(Resource::RLIMIT_AS, prot, flags, then_writable);
        let data = try_map(Resource::RLIMIT_DATA, prot, flags, then_writable);
        let shown = format!("{addresses:?}");
        println!("{name:<25} {shown:<12} {data:?}");
        assert_eq!(addresses, Err(Errno::ENOMEM));
        let expected = if is_data { Err(Errno::ENOMEM) } else { Ok(()) };
        assert_eq!(data, expected);
    }
}
