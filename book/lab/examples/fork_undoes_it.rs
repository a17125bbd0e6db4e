//! After fork, the parent's writes to private pages fault again, unless they are marked MADV_DONTFORK or shared.
//!
//! Claims: 17.

use std::ptr::NonNull;
use std::thread::sleep;
use std::time::Duration;

use lab::{disable_huge_pages, faults, page};
use nix::sys::mman::{MmapAdvise, madvise};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, fork, pause};

const PAGES: usize = 256;

/// Writes each page, and returns for how many of them a page fault occurred. A page counts only once, because unrelated
/// faults can occur at the same time: when the kernel migrates the thread to another CPU, it writes to the C library's
/// rseq area, and after a fork that write copies a page.
fn faulting(start: NonNull<u8>) -> usize {
    let faults_at = |number: &usize| {
        let before = faults();
        // SAFETY: `start` is a writable mapping of `PAGES` pages, and nothing else accesses it.
        unsafe { lab::write(page(start, *number), 1) };
        faults() > before
    };
    (0..PAGES).filter(faults_at).count()
}

fn main() {
    disable_huge_pages();
    let warm = lab::map_private(PAGES);
    // ANCHOR: main
    let private = lab::map_private(PAGES);
    let dont_fork = lab::map_private(PAGES);
    let shared = lab::map_shared(PAGES);
    let all = PAGES * lab::page_size();
    // SAFETY: a child does not get these pages, and the child below does not access
    // them.
    unsafe { madvise(dont_fork.cast(), all, MmapAdvise::MADV_DONTFORK) }.expect("madvise");
    let mappings = [warm, private, dont_fork, shared];
    let _ = mappings.map(faulting);

    // SAFETY: this process has one thread, so the child inherits no held lock.
    let child = match unsafe { fork() }.expect("fork") {
        ForkResult::Child => {
            set_pdeathsig(Signal::SIGKILL).expect("PR_SET_PDEATHSIG");
            loop {
                pause();
            }
        }
        ForkResult::Parent { child } => child,
    };
    sleep(Duration::from_millis(1)); // by now the kernel has written to the rseq area
    // Ignore the first count: it includes faults in the parent's own stack and data.
    let [_, counts @ ..] = mappings.map(faulting);
    // ANCHOR_END: main
    kill(child, Signal::SIGKILL).expect("the child is there");
    waitpid(child, None).expect("waitpid");
    println!("private:                {:>3} pages fault", counts[0]);
    println!("private, MADV_DONTFORK: {:>3} pages fault", counts[1]);
    println!("shared:                 {:>3} pages fault", counts[2]);
    assert_eq!(counts, [PAGES, 0, 0]);
}
