//! Two mutable views of one region live at once.
#![allow(unused_mut)] // a writer that takes &self is wrong for another reason
use private_alloc::Region;

fn main() {
    let mut region = Region::new(1).unwrap();
    let first = region.as_mut_slice();
    let second = region.as_mut_slice();
    first[0] = 1;
    second[0] = 2;
}
