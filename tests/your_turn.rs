//! Prints at the end of `cargo test` how to grade the learner's own answers.
//!
//! Cargo runs packages, and the tests of a package, in the order of their names: this one is the last.

fn main() {
    println!("\nThese were the tests of the workbook itself. To grade your answers:");
    println!("  cargo run                      every exercise, as you save it");
    println!("  cargo test -p private-alloc    one exercise, as plain tests\n");
}
