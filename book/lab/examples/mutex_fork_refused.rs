//! Where fork fails and nobody looks, the one process that there is does half of the work, and reports success.
//! Claims: 26.

use std::sync::atomic::Ordering::Relaxed;

use lab::sharing::Memory;
use nix::libc;
use nix::sys::prctl;

/// From here on the kernel refuses this process every fork, with EAGAIN: a seccomp(2) filter, which needs no privilege.
fn refuse_forks() {
    let statement = |code: u32, k: u32| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    };
    // The number of the call is the first field of what the filter is shown. A match skips to the refusal.
    let matches = |number: libc::c_long, skip: u8| libc::sock_filter {
        jt: skip,
        ..statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, number as u32)
    };
    let refuse = libc::SECCOMP_RET_ERRNO | libc::EAGAIN as u32;
    // aarch64 has no fork(2): there glibc always takes clone(2).
    #[cfg(target_arch = "x86_64")]
    let fork = libc::SYS_fork;
    #[cfg(not(target_arch = "x86_64"))]
    let fork = libc::SYS_clone;
    let mut filter = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        matches(libc::SYS_clone, 3),
        matches(libc::SYS_clone3, 2),
        matches(fork, 1),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
        statement(libc::BPF_RET | libc::BPF_K, refuse),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    prctl::set_no_new_privs().expect("PR_SET_NO_NEW_PRIVS");
    // SAFETY: the program is as long as it says, and outlives the call, which copies it.
    let set = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) };
    assert_eq!(set, 0, "PR_SET_SECCOMP");
}

fn main() {
    refuse_forks();
    // The calls go unchecked on purpose, as in the chapter.
    // ANCHOR: main
    let [counter] = Memory::Shared.numbers();
    // SAFETY: this process has one thread, so a child would find no lock held.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        counter.fetch_add(1000, Relaxed);
        std::process::exit(0);
    } else {
        counter.fetch_add(1000, Relaxed);
        // SAFETY: a null pointer asks for no status.
        unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
        println!("final counter: {} (expect 2000)", counter.load(Relaxed));
    }
    // ANCHOR_END: main
    assert_eq!((pid, counter.load(Relaxed)), (-1, 1000));
}
