//! A view outlives its region, whose memory is unmapped by then.

use private_alloc::Region;

fn main() {
    let view = {
        let region = Region::new(1).unwrap();
        region.as_slice()
    };
    println!("{}", view[0]);
}
