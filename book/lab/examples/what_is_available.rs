//! MemAvailable is an estimate: free memory, and most of what can be reclaimed without swapping.

use std::fs;
use std::process;

fn main() {
    // lxcfs replaces /proc/meminfo in a container by one with the container's limit.
    let mounts = fs::read_to_string("/proc/self/mounts").expect("/proc/self/mounts");
    if mounts.contains(" /proc/meminfo ") {
        println!("this container has a /proc/meminfo that is not the kernel's");
        process::exit(77);
    }
    // ANCHOR: main
    let meminfo = fs::read_to_string("/proc/meminfo").expect("/proc/meminfo");
    let kib = |name: &str| -> u64 {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|line| line.trim().strip_suffix(" kB"));
        number.and_then(|kib| kib.parse().ok()).expect("a size")
    };
    let free = kib("MemFree:");
    let files = kib("Active(file):") + kib("Inactive(file):");
    let kernel = kib("KReclaimable:");
    let available = kib("MemAvailable:");
    // ANCHOR_END: main
    eprintln!("free {free} kB, pages of files {files} kB, reclaimable kernel memory {kernel} kB");
    eprintln!("available {available} kB");
    if let Ok(pressure) = fs::read_to_string("/proc/pressure/memory") {
        eprint!("{pressure}");
    }
    let less = available < free + files + kernel;
    println!("MemAvailable < MemFree + pages of files + reclaimable kernel memory: {less}");
    assert!(less);
}
