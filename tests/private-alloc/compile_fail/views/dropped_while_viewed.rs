//! A region is dropped while a view of it is still in use.

use private_alloc::Region;

fn main() {
    let mut region = Region::new(1).unwrap();
    let view = region.as_mut_slice();
    drop(region);
    view[0] = 1;
}
