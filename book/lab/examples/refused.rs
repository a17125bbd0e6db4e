//! What mmap refuses, by which error, and that a refusal is `MAP_FAILED` and no null pointer.

use std::ptr;

use nix::errno::Errno;
use nix::libc;

// ANCHOR: main
/// Asks for private anonymous memory, or for what the caller makes of it.
fn ask(at: *mut libc::c_void, len: usize, flags: i32) -> (*mut libc::c_void, Result<(), Errno>) {
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: with MAP_FIXED it is only asked for an address inside a page, which
    // the kernel refuses.
    let start = unsafe { libc::mmap(at, len, rights, flags, -1, 0) };
    let result = match start {
        libc::MAP_FAILED => Err(Errno::last()),
        _ => Ok(()),
    };
    (start, result)
}

fn main() {
    let nowhere = ptr::null_mut();
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let inside = lab::map_private(1).as_ptr().wrapping_add(1).cast();
    let (start, no_length) = ask(nowhere, 0, flags);
    let (_, no_kind) = ask(nowhere, 1, libc::MAP_ANONYMOUS);
    let (_, inside_a_page) = ask(inside, 1, flags | libc::MAP_FIXED);
    let (_, forgotten) = ask(nowhere, 1, libc::MAP_PRIVATE);
    let (_, too_long) = ask(nowhere, usize::MAX, flags);
    // ANCHOR_END: main
    println!("length 0:                    {no_length:?}");
    println!("neither private nor shared:  {no_kind:?}");
    println!("MAP_FIXED inside a page:     {inside_a_page:?}");
    println!("MAP_ANONYMOUS left out:      {forgotten:?}");
    println!("more than all addresses:     {too_long:?}");
    let (null, failed) = (start.is_null(), start == libc::MAP_FAILED);
    println!("a refusal is a null pointer: {null}, and MAP_FAILED: {failed}");
    assert_eq!(no_length, Err(Errno::EINVAL));
    assert_eq!(no_kind, Err(Errno::EINVAL));
    assert_eq!(inside_a_page, Err(Errno::EINVAL));
    assert_eq!(forgotten, Err(Errno::EBADF));
    assert_eq!(too_long, Err(Errno::ENOMEM));
    assert!(failed && !null);
}
