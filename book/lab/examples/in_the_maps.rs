//! Shows the path of anonymous memory in /proc/self/maps: none if it is private, a deleted /dev/zero if it is shared.
//!
//! Claims: 1, 36.

fn main() {
    // ANCHOR: main
    let private = lab::maps_line(lab::map_private(1).as_ptr());
    let shared = lab::maps_line(lab::map_shared(1).as_ptr());
    println!("private: {} {:?}", private.permissions, private.path);
    println!("shared:  {} {:?}", shared.permissions, shared.path);
    // ANCHOR_END: main
    assert_eq!((&*private.permissions, &*private.path), ("rw-p", ""));
    assert_eq!(
        (&*shared.permissions, &*shared.path),
        ("rw-s", "/dev/zero (deleted)")
    );
}
