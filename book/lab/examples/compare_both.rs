//! The comparison of private and shared anonymous memory, measured: what is the same, and what is not.
//! Claims: 34, 35, 36, 41.

use std::fs;
use std::ptr::NonNull;

use lab::sharing::{Child, Memory};
use nix::errno::Errno;
use nix::libc;

/// Maps one page between two without access, so that its line in the maps is its own. The descriptor is not open.
fn map_alone(memory: Memory) -> Result<NonNull<u8>, Errno> {
    let page = lab::page_size();
    let nowhere = std::ptr::null_mut();
    let reserve = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: without MAP_FIXED the kernel takes addresses where nothing is mapped.
    let room = unsafe { libc::mmap(nowhere, 3 * page, libc::PROT_NONE, reserve, -1, 0) };
    assert_ne!(room, libc::MAP_FAILED, "three pages of addresses");
    let place = room.wrapping_byte_add(page);
    let kind = match memory {
        Memory::Private => libc::MAP_PRIVATE,
        Memory::Shared => libc::MAP_SHARED,
    };
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    let flags = kind | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    // SAFETY: MAP_FIXED replaces a page of the reservation, which nothing uses.
    let start = unsafe { libc::mmap(place, page, rights, flags, NO_DESCRIPTOR, 0) };
    match start {
        libc::MAP_FAILED => Err(Errno::last()),
        start => Ok(NonNull::new(start.cast()).expect("an address")),
    }
}

const NO_DESCRIPTOR: i32 = 12345;

/// The lines of /proc/self/smaps from the mapping on that begins there: its line in the maps, then its values.
fn smaps(start: NonNull<u8>) -> Vec<String> {
    let smaps = fs::read_to_string("/proc/self/smaps").expect("/proc/self/smaps");
    let begins_here = |line: &str| {
        let (begin, _) = line.split_once('-')?;
        Some(usize::from_str_radix(begin, 16).ok()? == start.addr().get())
    };
    let lines = smaps.lines().map(str::to_owned);
    lines
        .skip_while(|line| begins_here(line) != Some(true))
        .collect()
}

/// One of the values, in pages.
fn pages(start: NonNull<u8>, field: &str) -> usize {
    let found = smaps(start).iter().find_map(|line| {
        let value = line.strip_prefix(field)?.strip_prefix(':')?;
        value.trim().strip_suffix(" kB")?.parse::<usize>().ok()
    });
    found.expect("the mapping has that value") * 1024 / lab::page_size()
}

/// Whether the mapping has a file behind it: an inode in its line.
fn has_inode(start: NonNull<u8>) -> bool {
    let smaps = smaps(start);
    let line = smaps.first().expect("the mapping has a line");
    line.split_whitespace().nth(4).expect("an inode") != "0"
}

/// What is found of one kind, row by row.
fn look(memory: Memory) -> [String; 8] {
    // ANCHOR: main
    let start = map_alone(memory).expect("Linux does not look at the descriptor");
    let byte = start.as_ptr();
    let line = lab::maps_line(byte);
    let backed = if has_inode(start) { "yes" } else { "no" };
    // SAFETY: the page is mapped, and nothing else uses it, here and below.
    let first = unsafe { lab::read(byte) };
    let after_read = pages(start, "Rss");
    // SAFETY: as above.
    unsafe { lab::write(byte, 1) };
    let anonymous = pages(start, "Anonymous");
    let child = Child::start(|| {
        // SAFETY: as above; the parent waits.
        unsafe { lab::write(byte, 2) };
        0
    });
    assert_eq!(child.status(), 0);
    // SAFETY: as above.
    let after_child = unsafe { lab::read(byte) };
    // ANCHOR_END: main
    [
        first.to_string(),
        line.rights,
        format!("{:?}", line.path),
        backed.to_owned(),
        after_read.to_string(),
        pages(start, "Rss").to_string(),
        anonymous.to_string(),
        after_child.to_string(),
    ]
}

fn main() {
    lab::small_pages_only();
    let names = [
        "first byte",
        "rights in the maps",
        "path in the maps",
        "a file's inode in the maps",
        "Rss after a read, pages",
        "Rss after a write, pages",
        "Anonymous in smaps, pages",
        "after the child wrote 2",
    ];
    let [private, shared] = [Memory::Private, Memory::Shared].map(look);
    println!("{:<28}{:<9}shared", "", "private");
    for ((name, private), shared) in names.iter().zip(&private).zip(&shared) {
        println!("{name:<28}{private:<9}{shared}");
    }
    assert_eq!(private, ["0", "rw-p", "\"\"", "no", "0", "1", "1", "1"]);
    let hidden = "\"/dev/zero (deleted)\"";
    assert_eq!(shared, ["0", "rw-s", hidden, "yes", "1", "1", "0", "2"]);
}
