//! Reads /proc. A process may end at any moment: then the answer is `None`, 0 or empty.

use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::libc;
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use nix::unistd::{SysconfVar, sysconf};

/// Whether the tasks `tid` and `other` are threads of the same process.
pub fn are_threads_of_one_process(tid: i32, other: i32) -> bool {
    fs::exists(format!("/proc/{tid}/task/{other}")).unwrap_or(false)
}

/// The process that task `tid` is a thread of.
pub fn process_of(tid: i32) -> Option<i32> {
    status_field(tid, "Tgid:")?.parse().ok()
}

/// Whether `pid` is `ancestor` or a descendant of it. Orphans are descendants of the process that adopted them.
pub fn descends_from(mut pid: i32, ancestor: i32) -> bool {
    while pid != ancestor {
        match parent_of(pid) {
            Some(parent @ 1..) => pid = parent,
            _ => return false,
        }
    }
    true
}

/// The parent of `pid`.
pub fn parent_of(pid: i32) -> Option<i32> {
    status_field(pid, "PPid:")?.parse().ok()
}

/// Whether there is no process or thread `tid`, or only a zombie, on which signals have no effect.
pub fn has_ended(tid: i32) -> bool {
    match status_field(tid, "State:") {
        None => true,
        // The first thread of a process may have ended before the others.
        Some(state) => state.starts_with(['Z', 'X']) && threads(tid).len() <= 1,
    }
}

/// The task that traces `tid`.
pub fn traced_by(tid: i32) -> Option<i32> {
    status_field(tid, "TracerPid:")?.parse().ok()
}

/// The effective user of `tid`.
pub fn user_of(tid: i32) -> Option<u32> {
    let users = status_field(tid, "Uid:")?;
    users.split_whitespace().nth(1)?.parse().ok()
}

/// The process group of `pid`.
pub fn group_of(pid: i32) -> Option<i32> {
    let stat = read(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may contain spaces and parentheses.
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(2)?.parse().ok()
}

/// The number of seccomp filters of `pid` (kernels from 5.9).
pub fn filters(pid: i32) -> Option<usize> {
    status_field(pid, "Seccomp_filters:")?.parse().ok()
}

/// How long a task has been ready to run while others ran; zero if the kernel does not count it.
pub fn waited_for_a_cpu(tid: i32) -> Duration {
    scheduled(tid, 1)
}

/// How long a task has run; zero if the kernel does not count it.
pub fn ran(tid: i32) -> Duration {
    scheduled(tid, 0)
}

/// A field of /proc/PID/schedstat (Documentation/scheduler/sched-stats.rst).
fn scheduled(tid: i32, field: usize) -> Duration {
    let text = read(format!("/proc/{tid}/schedstat")).unwrap_or_default();
    let nanoseconds = text.split_whitespace().nth(field);
    Duration::from_nanos(nanoseconds.and_then(|ns| ns.parse().ok()).unwrap_or(0))
}

/// How many processes the kernel has killed because memory ran out, on the machine or in a control group.
static KILLED_FOR_MEMORY: OnceLock<AtomicU64> = OnceLock::new();

/// Begins to count the processes that the kernel kills because memory has run out.
pub fn watch_for_kills_for_memory() {
    KILLED_FOR_MEMORY.get_or_init(|| killed_for_memory().into());
}

/// Whether the kernel has killed a process because memory ran out, since the last call that returned true.
pub fn has_killed_for_memory() -> bool {
    let now = killed_for_memory();
    let before = KILLED_FOR_MEMORY.get();
    before.is_some_and(|before| before.swap(now, Ordering::Relaxed) < now)
}

fn killed_for_memory() -> u64 {
    let text = read("/proc/vmstat").unwrap_or_default();
    let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    count.and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// A thread of `pid` that still has the memory of the process. The first thread may have ended before the others.
pub fn thread_with_memory(pid: i32) -> i32 {
    let has_memory = |tid: &i32| resident_bytes(*tid) > 0;
    let mut tasks = std::iter::once(pid).chain(threads(pid));
    tasks.find(has_memory).unwrap_or(pid)
}

/// Bytes resident in the process of the thread `tid`.
pub fn resident_bytes(tid: i32) -> u64 {
    let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten().unwrap_or(0) as u64;
    let pages = read(format!("/proc/{tid}/statm"))
        .ok()
        .and_then(|statm| statm.split(' ').nth(1)?.parse::<u64>().ok());
    pages.unwrap_or(0) * page
}

/// Bytes of shared memory, such as memfds, among the resident ones.
pub fn resident_shared_bytes(tid: i32) -> u64 {
    bytes_in_status(tid, "RssShmem:")
}

/// Bytes of the page tables, which are not among the resident ones.
pub fn page_table_bytes(tid: i32) -> u64 {
    bytes_in_status(tid, "VmPTE:")
}

fn bytes_in_status(tid: i32, key: &str) -> u64 {
    let kib = status_field(tid, key).and_then(|text| {
        let (number, _) = text.split_once(' ')?;
        number.parse::<u64>().ok()
    });
    kib.unwrap_or(0) << 10
}

/// A file's device and inode.
pub type FileId = (u64, u64);

/// The allocated bytes of each file in memory (tmpfs) that `tid` has open.
pub fn open_files_in_memory(tid: i32) -> Vec<(FileId, u64)> {
    let descriptors = fs::read_dir(format!("/proc/{tid}/fd"));
    let files = descriptors
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let path = entry.path();
            let about = fs::metadata(&path).ok()?;
            if !about.is_file() || about.blocks() == 0 {
                return None;
            }
            let in_memory = statfs(&path).ok()?.filesystem_type() == TMPFS_MAGIC;
            in_memory.then(|| ((about.dev(), about.ino()), about.blocks() * 512))
        });
    files.collect()
}

/// The signals for which `tid` has handlers, as a bit mask (bit n-1 for signal n).
pub fn caught_signals(tid: i32) -> Option<u64> {
    u64::from_str_radix(&status_field(tid, "SigCgt:")?, 16).ok()
}

/// How often `tid` has left a processor.
pub fn context_switches(tid: i32) -> Option<u64> {
    let count = |key| status_field(tid, key)?.parse::<u64>().ok();
    Some(count("voluntary_ctxt_switches:")? + count("nonvoluntary_ctxt_switches:")?)
}

/// Whether `tid` is stopped by a signal, and not only for its tracer.
pub fn is_stopped(tid: i32) -> bool {
    status_field(tid, "State:").is_some_and(|state| state.starts_with('T'))
}

/// The CPU time of the process `pid`, of all its threads and of the children that it has waited for.
pub fn cpu_time(pid: i32) -> Duration {
    let stat = read(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The second field is the program's name in parentheses, which may contain anything.
    let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
    let ticks: u64 = fields
        .split(' ')
        .skip(11)
        .take(4)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    let per_second = sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100) as u64;
    Duration::from_millis(ticks * 1000 / per_second)
}

/// Whether `tid` sleeps interruptibly: it neither runs nor is stopped.
pub fn sleeps(tid: i32) -> Option<bool> {
    Some(status_field(tid, "State:")?.starts_with('S'))
}

/// Whether `tid` sleeps, is stopped by a signal or has ended. A task that waits for a processor or its tracer is not idle.
pub fn is_idle(tid: i32) -> bool {
    status_field(tid, "State:").is_none_or(|state| state.starts_with(['S', 'T', 'Z', 'X']))
}

/// The number and arguments of the call in which `tid` is blocked; `None` while it runs, or if access is denied.
pub fn blocked_in(tid: i32) -> Option<(i64, Vec<u64>)> {
    let line = read(format!("/proc/{tid}/syscall")).ok()?;
    let mut fields = line.split_whitespace();
    let number = fields.next()?.parse().ok()?;
    let arguments = fields
        .filter_map(|field| u64::from_str_radix(field.trim_start_matches("0x"), 16).ok())
        .collect();
    Some((number, arguments))
}

/// Whether a task that is blocked in this call waits, without a time limit, for another task.
pub fn is_untimed_wait(call: i64, arguments: &[u64]) -> bool {
    let argument = |index: usize| arguments.get(index).copied();
    match call {
        libc::SYS_futex => {
            let waits = [
                libc::FUTEX_WAIT,
                libc::FUTEX_WAIT_BITSET,
                libc::FUTEX_LOCK_PI,
            ];
            let operation = argument(1).map(|operation| operation as i32 & libc::FUTEX_CMD_MASK);
            operation.is_some_and(|operation| waits.contains(&operation)) && argument(3) == Some(0)
        }
        libc::SYS_wait4 => argument(2).is_some_and(|options| options as i32 & libc::WNOHANG == 0),
        libc::SYS_waitid => argument(3).is_some_and(|options| options as i32 & libc::WNOHANG == 0),
        libc::SYS_rt_sigsuspend => true,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_pause => true,
        _ => false,
    }
}

/// Whether `tid` waits for a lock or a child, without a time limit.
pub fn waits_for_another(tid: i32) -> bool {
    let waits = |(call, arguments): (i64, Vec<u64>)| {
        matches!(call, libc::SYS_flock | libc::SYS_fcntl) || is_untimed_wait(call, &arguments)
    };
    sleeps(tid) == Some(true) && blocked_in(tid).is_some_and(waits)
}

/// The number of open descriptors of `pid`.
pub fn descriptors(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// The addresses of the code of `pid`'s own program, without its libraries.
pub fn program_code(pid: i32) -> Vec<Range<u64>> {
    let (Ok(program), Ok(maps)) = (
        fs::read_link(format!("/proc/{pid}/exe")),
        read(format!("/proc/{pid}/maps")),
    ) else {
        return Vec::new();
    };
    maps.lines()
        .filter(|line| line.ends_with(&*program.to_string_lossy()))
        .filter_map(MapsLine::parse)
        .filter(|line| line.permissions.contains('x'))
        .map(|line| line.range)
        .collect()
}

/// The mappings that the process `pid` can write to, and that are shared with other processes or hold the statics of its
/// program.
pub fn shared_memory_and_statics(pid: i32) -> Vec<Range<u64>> {
    let maps = read(format!("/proc/{pid}/maps")).unwrap_or_default();
    let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    let is_program = |line: &str| line.ends_with(&*program.to_string_lossy());
    let mut end_of_program = 0;
    maps.lines()
        .filter_map(|line| Some((MapsLine::parse(line)?, is_program(line))))
        .filter(|(line, is_program)| {
            // Statics without an initial value (.bss) that do not fit into the last page of the file are in an anonymous
            // mapping behind it.
            let is_bss = line.range.start == end_of_program && line.name.is_empty();
            if *is_program || is_bss {
                end_of_program = line.range.end;
            }
            let writable = line.permissions.contains('w');
            writable && (line.permissions.ends_with('s') || *is_program || is_bss)
        })
        .map(|(line, _)| line.range)
        .collect()
}

/// Whether `pid` is still in the process table: running, or a zombie.
pub fn exists(pid: i32) -> bool {
    fs::exists(format!("/proc/{pid}")).unwrap_or(false)
}

pub fn processes() -> Vec<i32> {
    numbers_in("/proc")
}

pub fn threads(pid: i32) -> Vec<i32> {
    numbers_in(&format!("/proc/{pid}/task"))
}

/// The children that the task `tid` of `pid` has forked (kernels with CONFIG_PROC_CHILDREN).
pub fn children(pid: i32, tid: i32) -> Vec<i32> {
    read(format!("/proc/{pid}/task/{tid}/children"))
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

/// Whether the environment with which `pid` was started contains `needle`.
pub fn has_in_environment(pid: i32, needle: &[u8]) -> bool {
    fs::read(format!("/proc/{pid}/environ"))
        .is_ok_and(|text| text.windows(needle.len()).any(|window| window == needle))
}

/// The number of processes and threads of the user `uid`.
pub fn tasks_of_user(uid: u32) -> u64 {
    processes()
        .into_iter()
        .filter(|pid| fs::metadata(format!("/proc/{pid}")).is_ok_and(|entry| entry.uid() == uid))
        .map(|pid| threads(pid).len() as u64)
        .sum()
}

/// A line of /proc/PID/maps.
pub struct MapsLine<'a> {
    pub range: Range<u64>,
    /// `rwxp`.
    pub permissions: &'a str,
    /// The offset in the object behind the mapping.
    pub offset: u64,
    /// The inode of that object, or 0.
    pub inode: u64,
    /// Empty for an anonymous mapping, or if the line was cut before it.
    pub name: &'a str,
    /// Whether the object has no name any more, or never had one that a process could open.
    pub deleted: bool,
}

impl MapsLine<'_> {
    /// Parses a line without allocating. What follows the permissions may be missing.
    pub fn parse(line: &str) -> Option<MapsLine<'_>> {
        let mut fields = line.split_ascii_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let range = u64::from_str_radix(start, 16).ok()?..u64::from_str_radix(end, 16).ok()?;
        let permissions = fields.next()?;
        let offset = fields
            .next()
            .and_then(|hex| u64::from_str_radix(hex, 16).ok());
        let inode = fields.nth(1).and_then(|inode| inode.parse().ok());
        Some(MapsLine {
            range,
            permissions,
            offset: offset.unwrap_or(0),
            inode: inode.unwrap_or(0),
            name: fields.next().unwrap_or_default(),
            deleted: fields.next_back() == Some("(deleted)"),
        })
    }
}

/// The contents of a file of /proc. `fs::read_to_string` would ask for its size, which is 0, and then read it in many
/// small pieces, for each of which the kernel formats the whole file.
pub fn read(path: impl AsRef<Path>) -> io::Result<String> {
    let mut text = String::with_capacity(8 << 10);
    File::open(path)?.take(u64::MAX).read_to_string(&mut text)?;
    Ok(text)
}

fn status_field(tid: i32, key: &str) -> Option<String> {
    let status = read(format!("/proc/{tid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    Some(line.trim().to_owned())
}

fn numbers_in(directory: &str) -> Vec<i32> {
    fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_maps_may_be_cut_after_the_permissions() {
        let line = "7f00-8f00 r-xp 00000000 08:01 1234    /usr/lib/libc.so.6";
        let parsed = MapsLine::parse(line).unwrap();
        assert_eq!(parsed.range, 0x7f00..0x8f00);
        assert_eq!(parsed.permissions, "r-xp");
        assert_eq!(parsed.name, "/usr/lib/libc.so.6");
        assert_eq!(MapsLine::parse(&line[..14]).unwrap().name, "");
        assert!(MapsLine::parse("7f00-8f00").is_none());
    }

    #[test]
    fn descent_ends_at_the_ancestor_and_at_init() {
        let me = std::process::id() as i32;
        assert!(descends_from(me, me));
        assert!(descends_from(
            me,
            std::os::unix::process::parent_id() as i32
        ));
        assert!(!descends_from(
            std::os::unix::process::parent_id() as i32,
            me
        ));
    }
}
