//! With vm.overcommit_memory = 0, mmap rejects one request larger than memory and swap, but does not add requests up.
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

fn map(len: Len, prot: ProtFlags, flags: MapFlags) -> Result<NonNull<c_void>> {
    // SAFETY: without MAP_FIXED, mmap does not replace an existing mapping.
    unsafe { mmap_anonymous(None, len, prot, flags) }
}

fn unmap(start: NonNull<c_void>, len: Len) {
    // SAFETY: this program made the mapping, and nothing accesses it.
    unsafe { munmap(start, len.get()) }.expect("munmap");
}

fn once(len: Len, prot: ProtFlags, flags: MapFlags) -> Result<()> {
    map(len, prot, flags).map(|start| unmap(start, len))
}

/// Makes three mappings that exist at the same time.
fn thrice(len: Len) -> Result<()> {
    let mappings = [0; 3].map(|_| map(len, RW, PRIVATE));
    for start in mappings.into_iter().flatten() {
        unmap(start, len);
    }
    mappings
        .into_iter()
        .try_for_each(|mapping| mapping.map(drop))
}

/// Maps inaccessible memory, and makes it writable with mprotect.
fn then_mprotect(len: Len) -> Result<()> {
    let start = map(len, NONE, PRIVATE)?;
    // SAFETY: this function made the mapping, and nothing accesses it.
    let result = unsafe { mprotect(start, len.get(), RW) };
    unmap(start, len);
    result
}

/// Prints and checks the result of `attempt` in mode 0. In another mode, prints the expected result of mode 0 instead.
fn show(what: &str, attempt: impl FnOnce() -> Result<()>, expected: Result<()>) {
    let mode = std::fs::read_to_string("/proc/sys/vm/overcommit_memory").expect("/proc/sys");
    let result = if mode.trim() == "0" {
        attempt()
    } else {
        eprintln!(
            "vm.overcommit_memory = {}: printing the result of mode 0",
            mode.trim()
        );
        expected
    };
    println!("{what:<28} {result:?}");
    assert_eq!(result, expected);
}

fn main() {
    // ANCHOR: main
    let info = sysinfo().expect("sysinfo");
    let all = (info.ram_total() + info.swap_total()) as usize;
    let round_down = |bytes| Len::new(bytes / page_size() * page_size()).expect("there is memory");
    let more = round_down(all + all / 16);
    let less = round_down(all - all / 16);

    println!("a sixteenth more than all memory and swap:");
    show("private, to write", || once(more, RW, PRIVATE), REFUSED);
    show("private, to read", || once(more, READ, PRIVATE), Ok(()));
    show("private, no access", || once(more, NONE, PRIVATE), Ok(()));
    show("no access, then mprotect", || then_mprotect(more), REFUSED);
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
