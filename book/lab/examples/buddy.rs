//! A model of the buddy allocator: blocks are split in halves, and free halves are joined again.

use std::collections::BTreeSet;

/// The largest block has 2³ pages.
const LARGEST: usize = 3;

// ANCHOR: main
/// For each order, the free blocks of 2^order pages, by their first page.
#[derive(Default)]
struct Buddy {
    free: [BTreeSet<usize>; LARGEST + 1],
}

impl Buddy {
    fn allocate(&mut self, order: usize) -> Option<usize> {
        let found = (order..=LARGEST).find(|&order| !self.free[order].is_empty())?;
        let block = self.free[found].pop_first()?;
        for half in (order..found).rev() {
            self.free[half].insert(block + (1 << half)); // the upper half stays free
        }
        Some(block)
    }

    fn free(&mut self, mut block: usize, mut order: usize) {
        // The buddy's number differs in one bit. If the buddy is free, join the two.
        while order < LARGEST && self.free[order].remove(&(block ^ (1 << order))) {
            block &= !(1 << order);
            order += 1;
        }
        self.free[order].insert(block);
    }
}
// ANCHOR_END: main

fn main() {
    let mut memory = Buddy::default();
    memory.free(0, LARGEST);
    println!("free blocks of               1  2  4  8 pages");
    let show = |name: &str, memory: &Buddy| {
        let counts = memory.free.each_ref().map(BTreeSet::len);
        let [one, two, four, eight] = counts;
        println!("{name:<28} {one}  {two}  {four}  {eight}");
        counts
    };
    assert_eq!(show("at first", &memory), [0, 0, 0, 1]);
    // ANCHOR: steps
    let page = memory.allocate(0).expect("a page");
    let split = show("one page allocated", &memory);
    memory.free(page, 0);
    let joined = show("the page freed", &memory);
    let pages = [(); 8].map(|()| memory.allocate(0).expect("a page"));
    for page in pages.into_iter().step_by(2) {
        memory.free(page, 0);
    }
    let scattered = show("every second page in use", &memory);
    let two_pages = memory.allocate(1);
    // ANCHOR_END: steps
    println!("two pages allocated:         {two_pages:?}");
    assert_eq!((split, joined), ([1, 1, 1, 0], [0, 0, 0, 1]));
    assert_eq!((scattered, two_pages), ([4, 0, 0, 0], None));
}
