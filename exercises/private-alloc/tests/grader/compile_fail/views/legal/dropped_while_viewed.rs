use private_alloc::Region;

fn main() {
    let mut region = Region::new(1).unwrap();
    let view = region.as_mut_slice();
    view[0] = 1;
    drop(region);
}
