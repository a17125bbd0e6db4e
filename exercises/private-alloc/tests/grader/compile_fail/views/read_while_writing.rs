//! A region is written while a shared view of it is still in use.
#![allow(unused_mut)] // no warning if the answer's `as_mut_slice` takes `&self`
use private_alloc::Region;

fn main() {
    let mut region = Region::new(1).unwrap();
    let view = region.as_slice();
    region.as_mut_slice()[0] = 1;
    println!("{}", view[0]);
}
