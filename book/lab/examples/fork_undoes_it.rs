//! After a fork the parent's private pages fault again when written; MADV_DONTFORK spares them, and MAP_SHARED does.
//! Claims: 17.

use std::ptr::NonNull;
use std::thread::sleep;
use std::time::Duration;

use lab::{faults, page, small_pages_only};
use nix::sys::mman::{MmapAdvise, madvise};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, fork, pause};

const PAGES: usize = 256;

/// How many of the pages fault when each is written. A page counts once, whatever else faults meanwhile: the kernel
/// notes for the C library (rseq) when it moves the thread to another processor, and after a fork that copies a page.
fn faulting(start: NonNull<u8>) -> usize {
    let faults_at = |number: &usize| {
        let before = faults();
        // SAFETY: `start` is a mapping of that many pages, and nothing else uses it.
        unsafe { lab::write(page(start, *number), 1) };
        faults() > before
    };
    (0..PAGES).filter(faults_at).count()
}

fn main() {
    small_pages_only();
    let warm = lab::map_private(PAGES);
    // ANCHOR: main
    let private = lab::map_private(PAGES);
    let kept_back = lab::map_private(PAGES);
    let shared = lab::map_shared(PAGES);
    let all = PAGES * lab::page_size();
    // SAFETY: it keeps the pages out of a child, and the child below does not touch
    // them.
    unsafe { madvise(kept_back.cast(), all, MmapAdvise::MADV_DONTFORK) }.expect("madvise");
    let mappings = [warm, private, kept_back, shared];
    let _ = mappings.map(faulting);

    // SAFETY: this process has one thread, so the child finds no lock held.
    let child = match unsafe { fork() }.expect("fork") {
        ForkResult::Child => {
            set_pdeathsig(Signal::SIGKILL).expect("PR_SET_PDEATHSIG");
            loop {
                pause();
            }
        }
        ForkResult::Parent { child } => child,
    };
    sleep(Duration::from_millis(1)); // the kernel's own notes are copied now
    // The first counts for nothing: with it come the parent's own stack and data.
    let [_, counts @ ..] = mappings.map(faulting);
    // ANCHOR_END: main
    kill(child, Signal::SIGKILL).expect("the child is there");
    waitpid(child, None).expect("waitpid");
    println!("private:                {:>3} pages fault", counts[0]);
    println!("private, MADV_DONTFORK: {:>3} pages fault", counts[1]);
    println!("shared:                 {:>3} pages fault", counts[2]);
    assert_eq!(counts, [PAGES, 0, 0]);
}
