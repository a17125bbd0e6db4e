//! Shows which mmap arguments fail with which error, and that mmap returns MAP_FAILED and not a null pointer.

use std::ptr;

use nix::errno::Errno;
use nix::libc;

// ANCHOR: main
/// Calls mmap, and returns the address and the result.
fn map(at: *mut libc::c_void, len: usize, flags: i32) -> (*mut libc::c_void, Result<(), Errno>) {
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: the only call with MAP_FIXED has an unaligned address, so it fails and
    // replaces nothing.
    let start = unsafe { libc::mmap(at, len, prot, flags, -1, 0) };
    let result = match start {
        libc::MAP_FAILED => Err(Errno::last()),
        _ => Ok(()),
    };
    (start, result)
}

fn main() {
    let any_address = ptr::null_mut();
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let unaligned = lab::map_private(1).as_ptr().wrapping_add(1).cast();
    let (start, no_length) = map(any_address, 0, flags);
    let (_, no_kind) = map(any_address, 1, libc::MAP_ANONYMOUS);
    let (_, fixed_unaligned) = map(unaligned, 1, flags | libc::MAP_FIXED);
    let (_, no_anonymous) = map(any_address, 1, libc::MAP_PRIVATE);
    let (_, too_long) = map(any_address, usize::MAX, flags);
    // ANCHOR_END: main
    println!("length 0:                    {no_length:?}");
    println!("neither private nor shared:  {no_kind:?}");
    println!("MAP_FIXED inside a page:     {fixed_unaligned:?}");
    println!("MAP_ANONYMOUS left out:      {no_anonymous:?}");
    println!("more than all addresses:     {too_long:?}");
    let (null, failed) = (start.is_null(), start == libc::MAP_FAILED);
    println!("the result is a null pointer: {null}, MAP_FAILED: {failed}");
    assert_eq!(no_length, Err(Errno::EINVAL));
    assert_eq!(no_kind, Err(Errno::EINVAL));
    assert_eq!(fixed_unaligned, Err(Errno::EINVAL));
    assert_eq!(no_anonymous, Err(Errno::EBADF));
    assert_eq!(too_long, Err(Errno::ENOMEM));
    assert!(failed && !null);
}
