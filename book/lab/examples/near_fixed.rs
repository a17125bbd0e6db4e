//! mmap at an occupied address: a hint is ignored, MAP_FIXED_NOREPLACE fails, MAP_FIXED replaces the mapping.

use std::ptr;

use nix::errno::Errno;
use nix::libc;

// ANCHOR: main
/// Calls mmap with the address of a page that holds 7. Returns whether the new mapping is
/// at that address, and the value that the page holds afterwards.
fn map_over(extra: libc::c_int) -> (Result<bool, Errno>, u8) {
    let occupied = lab::map_private(1).as_ptr();
    // SAFETY: the page is mapped writable, and nothing else accesses it.
    unsafe { lab::write(occupied, 7) };
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | extra;
    // SAFETY: mmap replaces at most the page above, which only this function uses.
    let start = unsafe { libc::mmap(occupied.cast(), lab::page_size(), prot, flags, -1, 0) };
    let there = match start {
        libc::MAP_FAILED => Err(Errno::last()),
        start => Ok(ptr::eq(start.cast(), occupied)),
    };
    // SAFETY: either the old or the new mapping is at this address.
    (there, unsafe { lab::read(occupied) })
}
// ANCHOR_END: main

fn main() {
    let rows = [
        ("only a hint:", 0, (Ok(false), 7)),
        (
            "MAP_FIXED_NOREPLACE:",
            libc::MAP_FIXED_NOREPLACE,
            (Err(Errno::EEXIST), 7),
        ),
        ("MAP_FIXED:", libc::MAP_FIXED, (Ok(true), 0)),
    ];
    for (name, extra, expected) in rows {
        let found = map_over(extra);
        let place = match found.0 {
            Ok(true) => "mapped there".to_owned(),
            Ok(false) => "mapped elsewhere".to_owned(),
            Err(error) => format!("{error:?}"),
        };
        println!("{name:<21}{place:<17} the page reads {}", found.1);
        assert_eq!(found, expected);
    }
}
