//! Put into the stub's `map_by_hand`: leaves as many descriptors in the queues of sockets as the kernel permits to all
//! processes of a user together.
{
    use nix::libc;
    const MANY: usize = 250;
    let mut sockets = Vec::new();
    loop {
        let mut pair = [-1; 2];
        let kind = libc::SOCK_DGRAM | libc::SOCK_NONBLOCK;
        // SAFETY: the call writes two descriptors to `pair`.
        if unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, pair.as_mut_ptr()) } != 0 {
            break;
        }
        sockets.push(pair);
        let mut byte = 0_u8;
        let mut part = libc::iovec {
            iov_base: (&raw mut byte).cast(),
            iov_len: 1,
        };
        let mut control = [0_u64; 200];
        // SAFETY: the structure consists of numbers and pointers.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_iov = &raw mut part;
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        let bytes = (MANY * size_of::<i32>()) as u32;
        // SAFETY: the function only computes.
        header.msg_controllen = unsafe { libc::CMSG_SPACE(bytes) } as _;
        // All are copies of descriptor 0.
        let place = control.as_mut_ptr().cast::<libc::cmsghdr>();
        // SAFETY: the array has room for the header and the descriptors, which are numbers.
        unsafe {
            (*place).cmsg_level = libc::SOL_SOCKET;
            (*place).cmsg_type = libc::SCM_RIGHTS;
            (*place).cmsg_len = libc::CMSG_LEN(bytes) as _;
        }
        // SAFETY: the header points to locals that outlive the call.
        if unsafe { libc::sendmsg(pair[0], &raw const header, libc::MSG_NOSIGNAL) } < 0 {
            break;
        }
    }
    std::thread::sleep(std::time::Duration::from_secs(9));
    panic!("{} messages", sockets.len());
}
