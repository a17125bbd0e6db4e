//! Its claim does not hold here.

fn main() {
    println!("faults: 256");
    assert_eq!(1, 2, "one is not two");
}
