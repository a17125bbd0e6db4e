//! The three low bits of glibc's size word: previous chunk in use, separate mapping, another thread's arena.

#[cfg(all(target_env = "gnu", target_pointer_width = "64"))]
fn main() {
    use std::thread;

    use lab::glibc::malloc;

    // ANCHOR: main
    /// Allocates a block, and returns the word before it.
    fn size_word(len: usize) -> usize {
        let word = malloc(len).as_ptr().cast::<usize>().wrapping_sub(1);
        // SAFETY: the word before a block is glibc's header.
        unsafe { word.read() }
    }

    size_word(1); // The first call sets up the heap.
    let small = size_word(24);
    let mapped = size_word(4 << 20);
    let other = thread::spawn(|| {
        size_word(1);
        size_word(24)
    });
    let other = other.join().expect("the thread does not panic");
    // ANCHOR_END: main
    for (what, word) in [
        ("24 bytes", small),
        ("4 MiB", mapped),
        ("24 bytes, second thread", other),
    ] {
        println!("{what}: flags {}", word % 8);
    }
    assert_eq!([small, other], [32 + 1, 32 + 1 + 4]);
    assert_eq!(mapped % 8, 2);
}

#[cfg(not(all(target_env = "gnu", target_pointer_width = "64")))]
fn main() {
    println!("this program looks at the headers of glibc's malloc on 64-bit systems");
    std::process::exit(77);
}
