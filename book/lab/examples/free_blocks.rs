//! /proc/buddyinfo counts the free blocks of each order. Together they are all free pages.

use std::fs;

use lab::page_size;

const KIB: usize = 1024;

// ANCHOR: main
/// Returns how many free blocks of each order the machine has.
fn free_blocks() -> Vec<usize> {
    let zones = fs::read_to_string("/proc/buddyinfo").expect("/proc/buddyinfo");
    let mut blocks = Vec::new();
    for zone in zones.lines() {
        // Node 0, zone   Normal    732    500    321 …
        for (order, count) in zone.split_whitespace().skip(4).enumerate() {
            blocks.resize(blocks.len().max(order + 1), 0);
            blocks[order] += count.parse::<usize>().expect("a number");
        }
    }
    blocks
}
// ANCHOR_END: main

/// Returns the kernel's count of free pages. MemFree can also have memory that the kernel has not initialised yet.
fn free_pages() -> usize {
    let vmstat = fs::read_to_string("/proc/vmstat").expect("/proc/vmstat");
    let mut lines = vmstat.lines();
    let number = lines.find_map(|line| line.strip_prefix("nr_free_pages "));
    number
        .and_then(|pages| pages.parse().ok())
        .expect("a number")
}

fn main() {
    // Other processes allocate and free between the two files. So try again, and allow for 2 %.
    let is_sum = |_| {
        let before = free_pages();
        let blocks = free_blocks().into_iter().enumerate();
        let sum: usize = blocks.map(|(order, count)| count << order).sum();
        sum.abs_diff(before) <= before / 50
    };
    let equal = (0..100).any(is_sum);
    for (order, count) in free_blocks().into_iter().enumerate() {
        let kib = (page_size() << order) / KIB;
        eprintln!("order {order:>2}: {count:>6} free blocks of {kib} KiB");
    }
    println!("the free blocks of all orders add up to nr_free_pages: {equal}");
    assert!(equal);
}
