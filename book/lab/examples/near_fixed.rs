//! An address that is taken: as a hint it is passed over, with MAP_FIXED_NOREPLACE refused, with MAP_FIXED replaced.

use std::ptr;

use nix::errno::Errno;
use nix::libc;

// ANCHOR: main
/// Maps over a page that holds 7. Returns where the new mapping lies, and what the page
/// reads then.
fn map_over(extra: libc::c_int) -> (Result<bool, Errno>, u8) {
    let taken = lab::map_private(1).as_ptr();
    // SAFETY: the page is mapped to be written, and nothing else uses it.
    unsafe { lab::write(taken, 7) };
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | extra;
    // SAFETY: at most the page above is replaced, which holds only this function's
    // byte.
    let start = unsafe { libc::mmap(taken.cast(), lab::page_size(), rights, flags, -1, 0) };
    let there = match start {
        libc::MAP_FAILED => Err(Errno::last()),
        start => Ok(ptr::eq(start.cast(), taken)),
    };
    // SAFETY: the page is mapped, be it the old or the new one.
    (there, unsafe { lab::read(taken) })
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
