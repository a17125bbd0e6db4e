//! glibc's malloc reuses cached blocks in reverse order, joins free neighbours, and cannot join what is not adjacent.

#[cfg(target_env = "gnu")]
fn main() {
    use lab::glibc::{free, malloc};

    const KIB: usize = 1024;
    // The first call sets up the heap.
    malloc(1);
    // ANCHOR: main
    let small = [(); 3].map(|()| malloc(100));
    for block in small {
        // SAFETY: each block is freed once, and not used afterwards. So are those below.
        unsafe { free(block) };
    }
    let again = [(); 3].map(|()| malloc(100));

    let large = [(); 8].map(|()| malloc(20 * KIB));
    for hole in [0, 2, 4, 6] {
        // SAFETY: as above.
        unsafe { free(large[hole]) };
    }
    let split = malloc(40 * KIB);
    // SAFETY: as above.
    unsafe { free(large[3]) };
    let joined = malloc(60 * KIB);
    // ANCHOR_END: main
    let order = again.map(|block| {
        small
            .iter()
            .position(|old| *old == block)
            .map_or(0, |at| at + 1)
    });
    let place = |block| {
        if block > large[7] {
            "above all of them"
        } else {
            "in a hole"
        }
    };
    println!("freed: blocks 1, 2, 3; allocated again: blocks {order:?}");
    println!("40 KiB, with four holes of 20 KiB: {}", place(split));
    println!(
        "60 KiB, when the block between two holes is free: {}",
        place(joined)
    );
    assert_eq!(order, [3, 2, 1]);
    assert!(split > large[7]);
    assert_eq!(joined, large[2]);
}

#[cfg(not(target_env = "gnu"))]
fn main() {
    println!("this program needs glibc's malloc");
    std::process::exit(77);
}
