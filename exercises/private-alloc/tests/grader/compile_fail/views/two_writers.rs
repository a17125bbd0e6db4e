//! Two mutable views of one region are in use at the same time.
#![allow(unused_mut)] // no warning if the answer's `as_mut_slice` takes `&self`
use private_alloc::Region;

fn main() {
    let mut region = Region::new(1).unwrap();
    let first = region.as_mut_slice();
    let second = region.as_mut_slice();
    first[0] = 1;
    second[0] = 2;
}
