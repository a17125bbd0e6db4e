//! Padding: each member of a struct begins at a multiple of its alignment, and so does the next struct in an array.

use std::process;

// ANCHOR: main
#[repr(C)]
struct Mixed {
    first: u8,
    number: f64,
    last: u8,
}

#[repr(C)]
struct Sorted {
    number: f64,
    first: u8,
    last: u8,
}
// ANCHOR_END: main

fn main() {
    if align_of::<f64>() != 8 {
        println!("a double is not aligned to 8 bytes on this processor");
        process::exit(77);
    }
    let (mixed, sorted) = (size_of::<Mixed>(), size_of::<Sorted>());
    println!("char, double, char: {mixed} bytes");
    println!("double, char, char: {sorted} bytes");
    assert_eq!((mixed, sorted), (24, 16));
}
