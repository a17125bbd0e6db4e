//! What /proc/self/maps calls anonymous memory: nothing where it is private, a deleted /dev/zero where it is shared.
//!
//! Claims: 1, 36.

fn main() {
    // ANCHOR: main
    let private = lab::maps_line(lab::map_private(1).as_ptr());
    let shared = lab::maps_line(lab::map_shared(1).as_ptr());
    println!("private: {} {:?}", private.rights, private.path);
    println!("shared:  {} {:?}", shared.rights, shared.path);
    // ANCHOR_END: main
    assert_eq!((&*private.rights, &*private.path), ("rw-p", ""));
    assert_eq!(
        (&*shared.rights, &*shared.path),
        ("rw-s", "/dev/zero (deleted)")
    );
}
