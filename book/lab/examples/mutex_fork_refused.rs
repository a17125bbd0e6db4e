//! If fork fails and the program ignores the error, the only process does half of the work and reports success.
//!
//! Claims: 26.

use std::sync::atomic::Ordering::Relaxed;

use lab::sharing::Memory;
use nix::libc;
use nix::sys::prctl;

/// Installs a seccomp(2) filter with which every fork of this process fails with EAGAIN. This needs no privilege.
fn make_fork_fail() {
    let statement = |code: u32, k: u32| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    };
    // The first field of the filter's input is the system call number. A match skips to the EAGAIN statement.
    let matches = |number: libc::c_long, skip: u8| libc::sock_filter {
        jt: skip,
        ..statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, number as u32)
    };
    let fail_with_eagain = libc::SECCOMP_RET_ERRNO | libc::EAGAIN as u32;
    // aarch64 has no fork system call: glibc uses clone there.
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
        statement(libc::BPF_RET | libc::BPF_K, fail_with_eagain),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    prctl::set_no_new_privs().expect("PR_SET_NO_NEW_PRIVS");
    // SAFETY: `program` holds the right length, and lives until the call has copied it.
    let set = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) };
    assert_eq!(set, 0, "PR_SET_SECCOMP");
}

fn main() {
    make_fork_fail();
    // The results of fork and waitpid are not checked on purpose, as in the chapter.
    // ANCHOR: main
    let [counter] = Memory::Shared.atomics();
    // SAFETY: this process has one thread, so the child inherits no held lock.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        counter.fetch_add(1000, Relaxed);
        std::process::exit(0);
    } else {
        counter.fetch_add(1000, Relaxed);
        // SAFETY: with a null pointer, waitpid stores no status.
        unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
        println!("final counter: {} (expect 2000)", counter.load(Relaxed));
    }
    // ANCHOR_END: main
    assert_eq!((pid, counter.load(Relaxed)), (-1, 1000));
}
