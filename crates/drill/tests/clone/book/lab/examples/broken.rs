//! Does not compile.

fn main() {
    nothing();
}
