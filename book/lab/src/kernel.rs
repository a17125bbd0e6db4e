//! What the kernel tells of one mapping (smaps, pagemap, mincore), and a child that takes steps when it is asked to.

use std::fs::{self, File};
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::num::NonZero;
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;

use nix::libc;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

use crate::page_size;

/// To read and to write.
pub const RW: ProtFlags = ProtFlags::PROT_READ.union(ProtFlags::PROT_WRITE);

/// A fresh anonymous mapping that is joined with no other: what lies before and after it allows no access.
///
/// # Panics
/// If the kernel refuses.
pub fn map_alone(pages: usize, rights: ProtFlags, flags: MapFlags) -> NonNull<u8> {
    let page = page_size();
    let len = NonZero::new(pages * page).expect("at least one page");
    let all = len.checked_add(2 * page).expect("and one on either side");
    let reserve = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
    // SAFETY: without MAP_FIXED the kernel takes addresses where nothing is mapped.
    let reserved = unsafe { mmap_anonymous(None, all, ProtFlags::PROT_NONE, reserve) };
    let inside = reserved.expect("addresses").addr().checked_add(page);
    // SAFETY: MAP_FIXED replaces pages of the reservation, which nothing uses.
    let start = unsafe { mmap_anonymous(inside, len, rights, flags | MapFlags::MAP_FIXED) };
    start.expect("the kernel maps a few pages").cast()
}

/// What /proc/self/smaps says of one mapping.
#[derive(Debug)]
pub struct Smaps(Vec<(String, String)>);

impl Smaps {
    /// A field that is a number of kilobytes, in pages.
    ///
    /// # Panics
    /// If this kernel has no such field, or if it is no whole number of pages.
    pub fn pages(&self, name: &str) -> usize {
        let value = self.field(name).strip_suffix(" kB").expect("kilobytes");
        let bytes = value.parse::<usize>().expect("a number") * 1024;
        assert!(bytes.is_multiple_of(page_size()), "{name}: {value} kB");
        bytes / page_size()
    }

    /// Whether VmFlags has these two letters: proc_pid_smaps(5).
    ///
    /// # Panics
    /// If this kernel has no such field.
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

/// What /proc/self/smaps says of the mapping that `address` lies in, and of those that are joined with it.
///
/// # Panics
/// If it lies in none.
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

/// What anybody may read of a page's entry in /proc/self/pagemap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Bit 63: the page table has an entry for the page.
    pub present: bool,
    /// Bit 61: the page belongs to a file, or to shared anonymous memory.
    pub file: bool,
    /// Bit 56: no other page table entry, of any process, leads to the same frame. Never set for the zero page.
    pub exclusive: bool,
}

/// The entries of the `pages` pages from `start` on.
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

/// How many of the `pages` pages from `start` on mincore(2) calls resident.
///
/// # Panics
/// If part of them is not mapped.
pub fn in_core(start: NonNull<u8>, pages: usize) -> usize {
    let mut found = vec![0; pages];
    let len = pages * page_size();
    // SAFETY: the kernel writes one byte for each page of the range, and `found` has as many.
    let result = unsafe { libc::mincore(start.as_ptr().cast(), len, found.as_mut_ptr()) };
    assert_eq!(result, 0, "mincore: {}", nix::errno::Errno::last());
    found.iter().filter(|page| **page & 1 == 1).count()
}

/// A forked child. It takes a step when it is asked to, and ends when this is dropped.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    ask: Option<PipeWriter>,
    done: PipeReader,
}

impl Child {
    /// Forks. The child calls `step` with each number that [`Child::step`] is given.
    ///
    /// # Panics
    /// If this process has more than one thread, or cannot fork.
    pub fn fork(mut step: impl FnMut(u8)) -> Self {
        let threads = fs::read_dir("/proc/self/task").expect("/proc/self/task");
        assert_eq!(threads.count(), 1, "fork copies only one thread");
        let (mut asked, ask) = pipe().expect("pipe");
        let (done, mut did) = pipe().expect("pipe");
        // SAFETY: this process has one thread, so the child finds no lock held.
        match unsafe { fork() }.expect("fork") {
            ForkResult::Parent { child: pid } => {
                let ask = Some(ask);
                Self { pid, ask, done }
            }
            ForkResult::Child => {
                drop((ask, done));
                let mut number = [0];
                while asked.read_exact(&mut number).is_ok() {
                    step(number[0]);
                    did.write_all(&number).expect("the parent waits");
                }
                // SAFETY: ends the process at once, and runs nothing of the parent's.
                unsafe { libc::_exit(0) }
            }
        }
    }

    /// Has the child take a step, and waits until it has.
    ///
    /// # Panics
    /// If the child panics.
    pub fn step(&mut self, number: u8) {
        let ask = self.ask.as_mut().expect("it is taken at the end only");
        ask.write_all(&[number]).expect("the child waits");
        let answer = self.done.read_exact(&mut [0]);
        answer.expect("the child takes its step");
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        drop(self.ask.take());
        let status = waitpid(self.pid, None);
        if !std::thread::panicking() {
            assert_eq!(status, Ok(WaitStatus::Exited(self.pid, 0)));
        }
    }
}
