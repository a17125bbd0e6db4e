//! /proc/buddyinfo counts the free blocks of each order. Together they are MemFree.

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

fn mem_free() -> usize {
    let meminfo = fs::read_to_string("/proc/meminfo").expect("/proc/meminfo");
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemFree:"));
    let number = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kib: usize = number.and_then(|kib| kib.parse().ok()).expect("a size");
    kib * KIB
}

fn main() {
    // Other processes allocate and free between the two files. So try again, and allow for 2 %.
    let is_sum = |_| {
        let before = mem_free();
        let blocks = free_blocks().into_iter().enumerate();
        let sum: usize = blocks
            .map(|(order, count)| (count << order) * page_size())
            .sum();
        sum.abs_diff(before) <= before / 50
    };
    let equal = (0..100).any(is_sum);
    for (order, count) in free_blocks().into_iter().enumerate() {
        let kib = (page_size() << order) / KIB;
        eprintln!("order {order:>2}: {count:>6} free blocks of {kib} KiB");
    }
    println!("the free blocks of all orders add up to MemFree: {equal}");
    assert!(equal);
}
