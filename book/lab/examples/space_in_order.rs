//! The parts of a process in the order of their addresses.

use std::cell::Cell;
use std::process;
use std::sync::atomic::AtomicU32;

use nix::libc;

static DATA: AtomicU32 = AtomicU32::new(1);
static ZEROED: AtomicU32 = AtomicU32::new(0);

fn main() {
    // SAFETY: an increment of 0 does not move the break.
    let heap = unsafe { libc::sbrk(0) };
    // ANCHOR: main
    let local = Cell::new(0);
    let mut parts = [
        ("stack", local.as_ptr().addr()),
        ("mapping", lab::map_private(1).addr().get()),
        ("heap", heap.addr()),
        ("zeroed data", ZEROED.as_ptr().addr()),
        ("data", DATA.as_ptr().addr()),
        ("code", main as fn() as usize),
    ];
    parts.sort_by_key(|(_, address)| *address);
    // ANCHOR_END: main
    let names = parts.map(|(name, _)| name).join(", ");
    println!("from low to high: {names}");
    if names.starts_with("mapping") {
        println!("this process has the legacy layout, as with an unlimited stack");
        process::exit(77);
    }
    assert_eq!(names, "code, data, zeroed data, heap, mapping, stack");
}
