//! An answer may define the allocator of the program, which then also serves the judge's code in the case.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, Ordering};

use judge::{Limits, observe};
use nix::libc;

/// Takes 16 hexadecimal digits at the beginning of a block that is given back for the judge's secret, and reports the end of
/// the case.
struct Reads;

/// Whether the body has begun. The judge, which is this program, too, uses this allocator as well.
static IN_BODY: AtomicBool = AtomicBool::new(false);

// SAFETY: passes on to the system's allocator.
unsafe impl GlobalAlloc for Reads {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block has `layout.size()` bytes. Some may not have been written, but the system's allocator has mapped
        // them.
        let bytes = unsafe { std::slice::from_raw_parts(block, layout.size()) };
        if let Some((secret, _)) = bytes.split_first_chunk::<16>()
            && IN_BODY.load(Ordering::Relaxed)
            && secret.iter().all(u8::is_ascii_hexdigit)
        {
            report_the_end(secret);
        }
        // SAFETY: the caller's contract is the same.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let layout_of_new = Layout::from_size_align(size, layout.align()).expect("a layout");
        // SAFETY: the caller's contract is that of all three functions.
        let new = unsafe { self.alloc(layout_of_new) };
        // SAFETY: both blocks are at least this long, and the new one is none that is used.
        unsafe { new.copy_from_nonoverlapping(block, size.min(layout.size())) };
        // SAFETY: as above.
        unsafe { self.dealloc(block, layout) };
        new
    }
}

#[global_allocator]
static READS: Reads = Reads;

fn report_the_end(secret: &[u8; 16]) {
    let end = b"{\"Ended\":{\"Here\":{\"panicked\":null,\"zombies\":0,\"running\":false}}}\n";
    let mut line = [0; 100];
    let (begin, rest) = line.split_at_mut(secret.len());
    begin.copy_from_slice(secret);
    rest[..end.len()].copy_from_slice(end);
    let len = secret.len() + end.len();
    for place in 3..1000 {
        // SAFETY: the pointer and the length describe the first bytes of `line`.
        unsafe { libc::write(place, line.as_ptr().cast(), len) };
    }
    // SAFETY: `_exit` takes any status.
    unsafe { libc::_exit(0) };
}

#[test]
fn an_allocator_does_not_see_the_secret() {
    let outcome = observe(Limits::default(), || {
        IN_BODY.store(true, Ordering::Relaxed);
        panic!("It reports this.");
    });
    let sentence = outcome.sentence().unwrap_or_default();
    assert!(sentence.contains("It reports this."), "{sentence}");
}
