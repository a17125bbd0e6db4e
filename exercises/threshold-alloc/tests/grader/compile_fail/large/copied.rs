//! An allocator is copied, so that two of them manage the same heap. Do not implement Copy.

use threshold_alloc::{Config, ThresholdAlloc};

fn main() {
    let one = ThresholdAlloc::new(Config::new());
    let other = one;
    let layout = std::alloc::Layout::new::<[u8; 1 << 20]>();
    // SAFETY: the size is not zero.
    assert!(!unsafe { one.alloc(layout) }.is_null());
    // SAFETY: as above.
    assert!(!unsafe { other.alloc(layout) }.is_null());
}
