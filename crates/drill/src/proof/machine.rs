//! Describes the machine that a proof ran on: `6.18, 4 KiB pages, THP madvise`.

use std::fs;

use nix::unistd::{SysconfVar, sysconf};

/// Returns the kernel's version, the page size and the setting for transparent huge pages.
pub fn describe() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let version: Vec<_> = release.trim().splitn(3, ['.', '-']).take(2).collect();
    let kernel = match version.as_slice() {
        [major, minor] => format!("{major}.{minor}"),
        _ => std::env::consts::OS.to_owned(),
    };
    let size = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
    let pages = size.map_or("pages of unknown size".to_owned(), |size| {
        format!("{} KiB pages", size / 1024)
    });
    let setting = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    let setting = setting.unwrap_or_default();
    // The active setting is in brackets.
    let active = setting.split(['[', ']']).nth(1).unwrap_or("missing");
    format!("{kernel}, {pages}, THP {active}")
}
