//! Ends a run of `cargo test` in the workbook's root by saying how the reader's own answers are graded.
//!
//! Cargo runs a package's tests in the order of their names, and the packages too: this is the last.

fn main() {
    println!("\nThe workbook is in order. These were its own tests; to have your answers graded:");
    println!("  cargo run                      all exercises, with hints");
    println!("  cargo test -p private-alloc    one exercise, as plain tests\n");
}
