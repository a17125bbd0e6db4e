//! A region is written while a shared view of it is still in use.

use private_alloc::Region;

fn main() {
    let mut region = Region::new(1).unwrap();
    let view = region.as_slice();
    region.as_mut_slice()[0] = 1;
    println!("{}", view[0]);
}
