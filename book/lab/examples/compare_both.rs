//! Measures what private and shared anonymous memory have in common, and how they differ.
//!
//! Claims: 34, 35, 36, 41.

use std::fs;
use std::ptr::NonNull;

use lab::sharing::{Child, Memory};
use nix::errno::Errno;
use nix::libc;

/// Maps one page between two inaccessible pages, so that it has its own line in the maps. The descriptor is not open.
fn map_isolated(memory: Memory) -> Result<NonNull<u8>, Errno> {
    let page = lab::page_size();
    let any_address = std::ptr::null_mut();
    let reserve = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: without MAP_FIXED, mmap does not replace an existing mapping.
    let reserved = unsafe { libc::mmap(any_address, 3 * page, libc::PROT_NONE, reserve, -1, 0) };
    assert_ne!(reserved, libc::MAP_FAILED, "mmap");
    let address = reserved.wrapping_byte_add(page);
    let kind = match memory {
        Memory::Private => libc::MAP_PRIVATE,
        Memory::Shared => libc::MAP_SHARED,
    };
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    let flags = kind | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    // SAFETY: MAP_FIXED replaces a page of the reservation, which nothing else uses.
    let start = unsafe { libc::mmap(address, page, prot, flags, UNUSED_DESCRIPTOR, 0) };
    match start {
        libc::MAP_FAILED => Err(Errno::last()),
        start => Ok(NonNull::new(start.cast()).expect("an address")),
    }
}

const UNUSED_DESCRIPTOR: i32 = 12345;

/// Returns the lines of /proc/self/smaps from the mapping at `start` on: its line as in the maps, then its fields.
fn smaps(start: NonNull<u8>) -> Vec<String> {
    let smaps = fs::read_to_string("/proc/self/smaps").expect("/proc/self/smaps");
    let starts_here = |line: &str| {
        let (first, _) = line.split_once('-')?;
        Some(usize::from_str_radix(first, 16).ok()? == start.addr().get())
    };
    let lines = smaps.lines().map(str::to_owned);
    lines
        .skip_while(|line| starts_here(line) != Some(true))
        .collect()
}

/// Returns a field of smaps, which is in kB, as a number of pages.
fn pages(start: NonNull<u8>, field: &str) -> usize {
    let found = smaps(start).iter().find_map(|line| {
        let value = line.strip_prefix(field)?.strip_prefix(':')?;
        value.trim().strip_suffix(" kB")?.parse::<usize>().ok()
    });
    found.expect("smaps has the field") * 1024 / lab::page_size()
}

/// Returns whether the line of the mapping has an inode, that is, whether a file backs it.
fn has_inode(start: NonNull<u8>) -> bool {
    let smaps = smaps(start);
    let line = smaps.first().expect("smaps has the mapping");
    line.split_whitespace().nth(4).expect("an inode") != "0"
}

/// Measures one kind of memory. Returns the values of the rows.
fn measure(memory: Memory) -> [String; 8] {
    // ANCHOR: main
    let start = map_isolated(memory).expect("Linux ignores the descriptor");
    let byte = start.as_ptr();
    let line = lab::maps_line(byte);
    let backed = if has_inode(start) { "yes" } else { "no" };
    // SAFETY: the page is mapped readable and writable, and nothing else accesses it.
    let first = unsafe { lab::read(byte) };
    let after_read = pages(start, "Rss");
    // SAFETY: as above.
    unsafe { lab::write(byte, 1) };
    let anonymous = pages(start, "Anonymous");
    let child = Child::start(|| {
        // SAFETY: as above; the parent does not access the page meanwhile.
        unsafe { lab::write(byte, 2) };
        0
    });
    assert_eq!(child.exit_code(), 0);
    // SAFETY: as above.
    let after_child = unsafe { lab::read(byte) };
    // ANCHOR_END: main
    [
        first.to_string(),
        line.permissions,
        format!("{:?}", line.path),
        backed.to_owned(),
        after_read.to_string(),
        pages(start, "Rss").to_string(),
        anonymous.to_string(),
        after_child.to_string(),
    ]
}

fn main() {
    lab::disable_huge_pages();
    let names = [
        "first byte",
        "permissions in maps",
        "path in maps",
        "a file's inode in maps",
        "Rss after a read, pages",
        "Rss after a write, pages",
        "Anonymous in smaps, pages",
        "after the child wrote 2",
    ];
    let [private, shared] = [Memory::Private, Memory::Shared].map(measure);
    println!("{:<28}{:<9}shared", "", "private");
    for ((name, private), shared) in names.iter().zip(&private).zip(&shared) {
        println!("{name:<28}{private:<9}{shared}");
    }
    assert_eq!(private, ["0", "rw-p", "\"\"", "no", "0", "1", "1", "1"]);
    let hidden = "\"/dev/zero (deleted)\"";
    assert_eq!(shared, ["0", "rw-s", hidden, "yes", "1", "1", "0", "2"]);
}
