//! Sends messages with open descriptors between processes. Makes only system calls.

use std::mem::{size_of, zeroed};
use std::os::fd::RawFd;
use std::ptr;

use nix::errno::Errno;
use nix::libc;

/// A control message with `N` descriptors. Where their size is no multiple of the header's alignment, the kernel accepts
/// and expects padding, which `repr(C)` adds.
#[repr(C)]
struct Control<const N: usize> {
    header: libc::cmsghdr,
    descriptors: [RawFd; N],
}

/// Calls `f` with a message header for the `len` bytes at `bytes` and for `N` descriptors.
fn with_header<const N: usize, R>(
    bytes: *mut libc::c_void,
    len: usize,
    descriptors: [RawFd; N],
    f: impl FnOnce(*mut libc::msghdr) -> R,
) -> (R, Control<N>) {
    let mut part = libc::iovec {
        iov_base: bytes,
        iov_len: len,
    };
    let mut control = Control {
        // SAFETY: a `cmsghdr` consists of numbers.
        header: unsafe { zeroed() },
        descriptors,
    };
    // SAFETY: the function only computes.
    control.header.cmsg_len = unsafe { libc::CMSG_LEN(size_of::<[RawFd; N]>() as u32) } as _;
    control.header.cmsg_level = libc::SOL_SOCKET;
    control.header.cmsg_type = libc::SCM_RIGHTS;
    // SAFETY: a `msghdr` consists of numbers and pointers, which may be null.
    let mut header: libc::msghdr = unsafe { zeroed() };
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = (&raw mut control).cast();
    header.msg_controllen = size_of::<Control<N>>() as _;
    let result = f(&raw mut header);
    // A message without descriptors has no control message either.
    if header.msg_controllen as usize != size_of::<Control<N>>() {
        control.header.cmsg_type = 0;
    }
    (result, control)
}

/// Sends the bytes of `message`, with copies of `descriptors`, through `socket`.
pub fn send<T: Copy, const N: usize>(
    socket: RawFd,
    message: &T,
    descriptors: [RawFd; N],
) -> Result<(), Errno> {
    let bytes = ptr::from_ref(message).cast_mut().cast();
    let (sent, _) = with_header(bytes, size_of::<T>(), descriptors, |header| {
        // SAFETY: the header points to `message`, which the call only reads, and to locals of `with_header`.
        unsafe { libc::sendmsg(socket, header, libc::MSG_NOSIGNAL) }
    });
    Errno::result(sent).map(drop)
}

/// Receives a message that `send` has sent from `socket`, and its descriptors, which exec closes. Returns `None` if the
/// other end is closed, or if the message is another one.
///
/// # Safety
/// All bytes must be valid for `T`.
pub unsafe fn receive<T: Copy, const N: usize>(
    socket: RawFd,
    message: &mut T,
    flags: libc::c_int,
) -> Result<Option<[RawFd; N]>, Errno> {
    let bytes = ptr::from_mut(message).cast();
    let (received, control) = with_header(bytes, size_of::<T>(), [-1; N], |header| {
        let flags = flags | libc::MSG_CMSG_CLOEXEC;
        // SAFETY: the header points to `message`, for which the caller permits all bytes, and to locals of `with_header`.
        unsafe { libc::recvmsg(socket, header, flags) }
    });
    let received = Errno::result(received)?;
    let is_whole =
        received as usize == size_of::<T>() && control.header.cmsg_type == libc::SCM_RIGHTS;
    Ok(is_whole.then_some(control.descriptors))
}
