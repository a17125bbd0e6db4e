//! mmap refuses a promise that all memory and swap could not keep, and adds no promises up: vm.overcommit_memory = 0.
//!
//! Claims: 15, 43.

use std::ffi::c_void;
use std::num::NonZero;
use std::ptr::NonNull;

use lab::kernel::RW;
use lab::page_size;
use nix::Result;
use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, mprotect, munmap};
use nix::sys::sysinfo::sysinfo;

const NONE: ProtFlags = ProtFlags::PROT_NONE;
const READ: ProtFlags = ProtFlags::PROT_READ;
const PRIVATE: MapFlags = MapFlags::MAP_PRIVATE;
const SHARED: MapFlags = MapFlags::MAP_SHARED;
const NORESERVE: MapFlags = MapFlags::MAP_NORESERVE;
const REFUSED: Result<()> = Err(Errno::ENOMEM);

type Len = NonZero<usize>;

fn map(len: Len, rights: ProtFlags, flags: MapFlags) -> Result<NonNull<c_void>> {
    // SAFETY: without MAP_FIXED the kernel takes addresses where nothing is mapped.
    unsafe { mmap_anonymous(None, len, rights, flags) }
}

fn unmap(start: NonNull<c_void>, len: Len) {
    // SAFETY: the mapping is this program's own, and nothing uses it.
    unsafe { munmap(start, len.get()) }.expect("munmap");
}

/// Maps and unmaps.
fn once(len: Len, rights: ProtFlags, flags: MapFlags) -> Result<()> {
    map(len, rights, flags).map(|start| unmap(start, len))
}

/// Maps three times before anything is unmapped.
fn thrice(len: Len) -> Result<()> {
    let mappings = [0; 3].map(|_| map(len, RW, PRIVATE));
    for start in mappings.into_iter().flatten() {
        unmap(start, len);
    }
    mappings
        .into_iter()
        .try_for_each(|mapping| mapping.map(drop))
}

/// Maps without access, and asks for it afterwards.
fn widened(len: Len) -> Result<()> {
    let start = map(len, NONE, PRIVATE)?;
    // SAFETY: nothing uses the addresses.
    let result = unsafe { mprotect(start, len.get(), RW) };
    unmap(start, len);
    result
}

/// Nothing can be shown but in mode 0: elsewhere this says so, and prints what mode 0 does.
fn show(what: &str, attempt: impl FnOnce() -> Result<()>, expected: Result<()>) {
    let mode = std::fs::read_to_string("/proc/sys/vm/overcommit_memory").expect("/proc/sys");
    let result = if mode.trim() == "0" {
        attempt()
    } else {
        eprintln!("vm.overcommit_memory = {}: not tried", mode.trim());
        expected
    };
    println!("{what:<28} {result:?}");
    assert_eq!(result, expected);
}

fn main() {
    // ANCHOR: main
    let known = sysinfo().expect("sysinfo");
    let all = (known.ram_total() + known.swap_total()) as usize;
    let whole_pages = |bytes| Len::new(bytes / page_size() * page_size()).expect("memory");
    let more = whole_pages(all + all / 16);
    let less = whole_pages(all - all / 16);

    println!("a sixteenth more than all memory and swap:");
    show("private, to write", || once(more, RW, PRIVATE), REFUSED);
    show("private, to read", || once(more, READ, PRIVATE), Ok(()));
    show("private, no access", || once(more, NONE, PRIVATE), Ok(()));
    show("no access, then mprotect", || widened(more), REFUSED);
    show("shared, to write", || once(more, RW, SHARED), REFUSED);
    show("shared, no access", || once(more, NONE, SHARED), REFUSED);
    let flags = PRIVATE | NORESERVE;
    show("private, MAP_NORESERVE", || once(more, RW, flags), Ok(()));
    let flags = SHARED | NORESERVE;
    show("shared, MAP_NORESERVE", || once(more, RW, flags), Ok(()));

    println!("a sixteenth less:");
    show("private, to write", || once(less, RW, PRIVATE), Ok(()));
    show("three at a time", || thrice(less), Ok(()));
    // ANCHOR_END: main
}
