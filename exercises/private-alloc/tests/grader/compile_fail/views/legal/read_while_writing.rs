use private_alloc::Region;

fn main() {
    let mut region = Region::new(1).unwrap();
    region.as_mut_slice()[0] = 1;
    let view = region.as_slice();
    println!("{}", view[0]);
}
