use private_alloc::Region;

fn main() {
    let region = Region::new(1).unwrap();
    let view = region.as_slice();
    println!("{}", view[0]);
}
