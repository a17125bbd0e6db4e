use private_alloc::Region;

fn main() {
    let mut region = Region::new(1).unwrap();
    let first = region.as_mut_slice();
    first[0] = 1;
    let second = region.as_mut_slice();
    second[0] = 2;
}
