//! What the kernel reports about a mapping (smaps, pagemap, mincore), and a child process that runs steps on request.

use std::fs::{self, File};
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::num::NonZero;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::ptr::NonNull;

use nix::libc;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, mmap_anonymous};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, mkstemp, unlink};

use crate::page_size;

/// Readable and writable.
pub const RW: ProtFlags = ProtFlags::PROT_READ.union(ProtFlags::PROT_WRITE);

/// Maps anonymous memory between two inaccessible pages, so that the kernel cannot merge it with another mapping.
pub fn map_isolated(pages: usize, prot: ProtFlags, flags: MapFlags) -> NonNull<u8> {
    let page = page_size();
    let len = NonZero::new(pages * page).expect("at least one page");
    let all = len
        .checked_add(2 * page)
        .expect("the length does not overflow");
    let reserve = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
    // SAFETY: without MAP_FIXED, mmap does not replace an existing mapping.
    let reserved = unsafe { mmap_anonymous(None, all, ProtFlags::PROT_NONE, reserve) };
    let inside = reserved.expect("mmap").addr().checked_add(page);
    // SAFETY: MAP_FIXED replaces pages of the reservation, which nothing else uses.
    let start = unsafe { mmap_anonymous(inside, len, prot, flags | MapFlags::MAP_FIXED) };
    start.expect("mmap").cast()
}

/// Creates a file of `pages` pages of zeros in `folder`. It has no name, and is freed when it is no longer used.
///
/// # Errors
/// Those of mkstemp(3).
pub fn temporary_file(folder: &Path, pages: usize) -> nix::Result<File> {
    let (file, path) = mkstemp(&folder.join("lab.XXXXXX"))?;
    unlink(&path).expect("unlink");
    let file = File::from(file);
    let zeros = vec![0; pages * page_size()];
    file.write_all_at(&zeros, 0).expect("write");
    Ok(file)
}

/// Maps the first `pages` pages of a file, readable and writable. The mapping is never unmapped.
pub fn map_file(file: &File, pages: usize, flags: MapFlags) -> NonNull<u8> {
    let len = NonZero::new(pages * page_size()).expect("at least one page");
    // SAFETY: without MAP_FIXED, mmap does not replace an existing mapping.
    let start = unsafe { mmap(None, len, RW, flags, file, 0) };
    start.expect("mmap").cast()
}

/// The fields that /proc/self/smaps has for one mapping, by name.
#[derive(Debug)]
pub struct Smaps(Vec<(String, String)>);

impl Smaps {
    /// Returns a field, which smaps has in kB, as a number of pages.
    ///
    /// # Panics
    /// If the kernel does not report the field, or its value is not a whole number of pages.
    pub fn pages(&self, name: &str) -> usize {
        let value = self.field(name).strip_suffix(" kB").expect("a value in kB");
        let bytes = value.parse::<usize>().expect("a number") * 1024;
        assert!(bytes.is_multiple_of(page_size()), "{name}: {value} kB");
        bytes / page_size()
    }

    /// Returns whether VmFlags contains the flag with these two letters (proc_pid_smaps(5)).
    pub fn flag(&self, letters: &str) -> bool {
        let mut flags = self.field("VmFlags").split_whitespace();
        flags.any(|flag| flag == letters)
    }

    fn field(&self, name: &str) -> &str {
        let field = self.0.iter().find(|(known, _)| known == name);
        let (_, value) = field.unwrap_or_else(|| panic!("smaps has no {name}"));
        value
    }
}

/// Returns the /proc/self/smaps entry that contains `address`. Mappings that the kernel has merged share an entry.
///
/// # Panics
/// If the address is not mapped.
pub fn smaps(address: *const u8) -> Smaps {
    let mut fields = Vec::new();
    let mut inside = false;
    let smaps = fs::read_to_string("/proc/self/smaps").expect("/proc/self/smaps");
    for line in smaps.lines() {
        let (first, rest) = line.split_once(' ').unwrap_or((line, ""));
        if let Some(name) = first.strip_suffix(':') {
            if inside {
                fields.push((name.to_owned(), rest.trim().to_owned()));
            }
        } else {
            let (start, end) = first.split_once('-').expect("a range of addresses");
            let number = |hex| usize::from_str_radix(hex, 16).expect("an address");
            inside = (number(start)..number(end)).contains(&address.addr());
        }
    }
    assert!(!fields.is_empty(), "the address is not mapped");
    Smaps(fields)
}

/// The bits of a /proc/self/pagemap entry that a process may read without privilege.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Bit 63: the page is present in the page table.
    pub present: bool,
    /// Bit 61: the page belongs to a file or to shared anonymous memory.
    pub file: bool,
    /// Bit 56: no other page-table entry of any process maps the same frame. Never set for the zero page.
    pub exclusive: bool,
}

/// Returns the pagemap entries of the `pages` pages from `start`.
///
/// # Panics
/// If there is no pagemap, as in some sandboxes.
pub fn entries(start: NonNull<u8>, pages: usize) -> Vec<Entry> {
    let pagemap = File::open("/proc/self/pagemap").expect("/proc/self/pagemap");
    let first = start.addr().get() / page_size();
    let entry = |page: usize| {
        let mut bits = [0; 8];
        let offset = (first + page) * bits.len();
        let read = pagemap.read_exact_at(&mut bits, offset as u64);
        read.expect("an entry for each page");
        let bits = u64::from_ne_bytes(bits);
        Entry {
            present: bits & 1 << 63 != 0,
            file: bits & 1 << 61 != 0,
            exclusive: bits & 1 << 56 != 0,
        }
    };
    (0..pages).map(entry).collect()
}

/// Returns how many of the `pages` pages from `start` are resident according to mincore(2).
pub fn in_core(start: NonNull<u8>, pages: usize) -> usize {
    let mut found = vec![0; pages];
    let len = pages * page_size();
    // SAFETY: mincore writes one byte for each page of the range, and `found` has one for each.
    let result = unsafe { libc::mincore(start.as_ptr().cast(), len, found.as_mut_ptr()) };
    assert_eq!(result, 0, "mincore: {}", nix::errno::Errno::last());
    found.iter().filter(|page| **page & 1 == 1).count()
}

/// A forked child that runs a step on request. Dropping it makes the child exit.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    /// Dropping the pipe ends the child.
    requests: Option<PipeWriter>,
    replies: PipeReader,
}

impl Child {
    /// Forks. The child calls `step` with each number that is passed to [`Child::step`].
    ///
    /// # Panics
    /// If this process has more than one thread: another thread might hold a lock that the child needs.
    pub fn fork(mut step: impl FnMut(u8)) -> Self {
        let threads = fs::read_dir("/proc/self/task").expect("/proc/self/task");
        assert_eq!(threads.count(), 1, "fork copies only one thread");
        let (mut child_requests, requests) = pipe().expect("pipe");
        let (replies, mut child_replies) = pipe().expect("pipe");
        // SAFETY: this process has one thread, so the child inherits no held lock.
        match unsafe { fork() }.expect("fork") {
            ForkResult::Parent { child: pid } => {
                let requests = Some(requests);
                Self {
                    pid,
                    requests,
                    replies,
                }
            }
            ForkResult::Child => {
                drop((requests, replies));
                let mut number = [0];
                while child_requests.read_exact(&mut number).is_ok() {
                    step(number[0]);
                    child_replies
                        .write_all(&number)
                        .expect("the parent reads the reply");
                }
                // SAFETY: _exit only ends this process. It runs no exit handlers.
                unsafe { libc::_exit(0) }
            }
        }
    }

    /// Makes the child run step `number`, and waits until it is done.
    ///
    /// # Panics
    /// If the child has ended, for example by a panic.
    pub fn step(&mut self, number: u8) {
        let requests = self.requests.as_mut().expect("only drop takes the pipe");
        requests
            .write_all(&[number])
            .expect("the child reads requests");
        let reply = self.replies.read_exact(&mut [0]);
        reply.expect("the child finishes its step");
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        drop(self.requests.take());
        let status = waitpid(self.pid, None);
        if !std::thread::panicking() {
            assert_eq!(status, Ok(WaitStatus::Exited(self.pid, 0)));
        }
    }
}
