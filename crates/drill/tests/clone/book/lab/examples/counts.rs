//! Shows what it claims.

fn main() {
    // ANCHOR: main
    let pages = 256;
    println!("faults:  {pages}");
    println!("bytes:   {}", 0);
    // ANCHOR_END: main
    println!("the end");
}
