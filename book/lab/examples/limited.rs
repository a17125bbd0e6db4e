//! `RLIMIT_AS` counts every mapping; `RLIMIT_DATA` counts private memory that may be written, and nothing else.

use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

const LIMIT: u64 = 32 << 20;
const LEN: usize = 64 << 20;

// ANCHOR: main
/// Maps twice what the limit allows. With `later` it is made writable afterwards.
fn ask(limit: Resource, rights: i32, flags: i32, later: bool) -> Result<(), Errno> {
    let (before, most) = getrlimit(limit).expect("getrlimit");
    setrlimit(limit, LIMIT, most).expect("setrlimit");
    let flags = flags | libc::MAP_ANONYMOUS;
    let nowhere = std::ptr::null_mut();
    // SAFETY: without MAP_FIXED the kernel takes addresses where nothing is mapped.
    let start = unsafe { libc::mmap(nowhere, LEN, rights, flags, -1, 0) };
    let mut result = match start {
        libc::MAP_FAILED => Err(Errno::last()),
        _ => Ok(()),
    };
    if later && result.is_ok() {
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: more rights take nothing from anybody.
        let answer = unsafe { libc::mprotect(start, LEN, rights) };
        result = Errno::result(answer).map(drop);
    }
    setrlimit(limit, before, most).expect("setrlimit");
    if start != libc::MAP_FAILED {
        // SAFETY: the mapping is this function's own, and nothing uses it.
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
    for (name, rights, flags, later, is_data) in rows {
        let addresses = ask(Resource::RLIMIT_AS, rights, flags, later);
        let data = ask(Resource::RLIMIT_DATA, rights, flags, later);
        let shown = format!("{addresses:?}");
        println!("{name:<25} {shown:<12} {data:?}");
        assert_eq!(addresses, Err(Errno::ENOMEM));
        let expected = if is_data { Err(Errno::ENOMEM) } else { Ok(()) };
        assert_eq!(data, expected);
    }
}
