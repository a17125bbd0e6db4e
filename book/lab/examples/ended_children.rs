//! What remains of a child that has ended, who becomes the parent of an orphan, and how many processes three forks
//! make.

use std::fs;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use lab::sharing::{Child, Memory};
use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::kill;
use nix::unistd::{Pid, fork, getpid, getppid};

/// Returns the letter of a process's state in /proc/PID/stat, after the name in parentheses.
fn state(pid: Pid) -> char {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("/proc/PID/stat");
    let (_, state) = stat.rsplit_once(") ").expect("a name in parentheses");
    state.chars().next().expect("a state")
}

/// Returns the number of processes that run the code after three forks.
fn after_three_forks() -> u32 {
    let [processes] = Memory::Shared.atomics();
    let first = Child::start(|| {
        for _ in 0..3 {
            // SAFETY: this process has one thread.
            unsafe { fork() }.expect("fork");
        }
        processes.fetch_add(1, Relaxed);
        // Each process waits for its own children, so that none runs on after the first has ended.
        while nix::sys::wait::wait().is_ok() {}
        0
    });
    assert_eq!(first.exit_code(), 0);
    processes.load(Relaxed)
}

/// Returns whether the parent of an orphan is another process than the one that forked it.
fn orphan_has_another_parent() -> bool {
    const NOT_YET: u32 = 0;
    let [answer] = Memory::Shared.atomics();
    let parent = Child::start(|| {
        let me = getpid();
        // SAFETY: this process has one thread.
        if unsafe { fork() }.expect("fork").is_child() {
            while getppid() == me {
                std::thread::yield_now();
            }
            answer.store(1 + u32::from(getppid() != me), Release);
            // SAFETY: _exit only ends this process.
            unsafe { libc::_exit(0) }
        }
        0
    });
    assert_eq!(parent.exit_code(), 0);
    while answer.load(Acquire) == NOT_YET {
        std::thread::yield_now();
    }
    answer.load(Acquire) == 2
}

fn main() {
    // ANCHOR: main
    let child = Child::start(|| 0);
    while child.is_running() {
        std::thread::yield_now(); // looks at the child without waiting for it
    }
    let pid = child.pid();
    let (zombie, signal) = (state(pid), kill(pid, None));
    child.wait();
    let reaped = kill(pid, None);
    // ANCHOR_END: main
    println!("a child that has ended: state {zombie}, and kill(pid, 0) is {signal:?}");
    println!("after waitpid: {:?}", reaped.unwrap_err());
    assert_eq!((zombie, signal, reaped), ('Z', Ok(()), Err(Errno::ESRCH)));
    let processes = after_three_forks();
    println!("three forks: {processes} processes");
    assert_eq!(processes, 8);
    let another = orphan_has_another_parent();
    println!("an orphan's parent is another process: {another}");
    assert!(another);
}
