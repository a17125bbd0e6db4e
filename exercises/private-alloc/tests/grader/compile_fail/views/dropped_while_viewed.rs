//! A region is dropped while a view of it is still in use.
#![allow(unused_mut)] // no warning if the answer's `as_mut_slice` takes `&self`
use private_alloc::Region;

fn main() {
    let mut region = Region::new(1).unwrap();
    let view = region.as_mut_slice();
    drop(region);
    view[0] = 1;
}
