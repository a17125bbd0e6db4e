//! glibc's malloc stores the size of a block in front of it, rounds it up, and gives a freed block out again.

#[cfg(all(target_env = "gnu", target_pointer_width = "64"))]
fn main() {
    use lab::glibc::{free, malloc};
    use nix::libc;

    // The first call sets up the heap.
    malloc(1);
    let usable = |len| {
        let block = malloc(len);
        // SAFETY: the block comes from malloc and was not freed.
        unsafe { libc::malloc_usable_size(block.as_ptr().cast()) }
    };
    // ANCHOR: main
    let usable = [usable(1), usable(24), usable(25)];
    let block = malloc(24);
    let before = block.as_ptr().cast::<usize>().wrapping_sub(1);
    // SAFETY: the word before the block is glibc's header.
    let header = unsafe { before.read() };
    // SAFETY: the block was not freed before, and is not used afterwards.
    unsafe { free(block) };
    let next = malloc(24);
    // ANCHOR_END: main
    let [one, full, more] = usable;
    println!("usable bytes of malloc(1), malloc(24), malloc(25): {one}, {full}, {more}");
    println!("the word before malloc(24): {header}");
    let same = if next == block { "the same" } else { "another" };
    println!("freed, then asked for again: {same} address");
    assert_eq!((usable, header, same), ([24, 24, 40], 32 + 1, "the same"));
}

#[cfg(not(all(target_env = "gnu", target_pointer_width = "64")))]
fn main() {
    println!("this program looks at the headers of glibc's malloc on 64-bit systems");
    std::process::exit(77);
}
