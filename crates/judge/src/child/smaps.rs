//! The flags of mappings: VmFlags in /proc/self/smaps, two-letter codes that proc(5) lists.

use std::mem::MaybeUninit;
use std::ops::{ControlFlow, Range};
use std::sync::OnceLock;

use nix::libc;

use super::panics;
use super::probe::{calibrated, each_line, resident_pages, with_pages};
use crate::format;
use crate::procfs::MapsLine;

/// What a mapping is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A private mapping.
    Private,
    /// A mapping that forked children share.
    Shared,
    /// A shared mapping for which locked memory is a right choice: a lock, for which a real-time process must not wait.
    MayBeLocked,
    /// A private mapping for which huge pages are a right choice: an allocator's memory, or a prefaulted mapping.
    MayBeHuge,
}

/// Room for every code that the kernel has, with a space after each.
const LONGEST: usize = 256;

/// The flags of one mapping.
#[derive(Debug, Clone, Copy)]
pub struct VmFlags {
    text: [u8; LONGEST],
}

impl VmFlags {
    fn new(codes: &[u8]) -> VmFlags {
        let mut text = [0; LONGEST];
        let len = codes.len().min(LONGEST);
        text[..len].copy_from_slice(&codes[..len]);
        VmFlags { text }
    }

    /// Whether the flag with this code is set: `lo` for locked memory.
    pub fn has(&self, code: &str) -> bool {
        let mut codes = self.text.split(|byte| matches!(byte, b' ' | 0));
        codes.any(|set| set == code.as_bytes())
    }
}

/// The flags of the mapping that contains `start`; `None` if nothing is mapped there.
pub fn vm_flags(start: *const u8) -> Option<VmFlags> {
    usual_flags();
    flags_at(start)
}

fn flags_at(start: *const u8) -> Option<VmFlags> {
    let mut found = None;
    each_mapping(start.addr()..start.addr() + 1, |_, flags| {
        found = Some(flags)
    });
    found
}

/// A flag that no memory of these exercises needs: its code, and the rest of a sentence about memory that has it.
const UNWANTED: [(&str, &str); 15] = [
    ("ex", "can be executed. Leave out PROT_EXEC."),
    (
        "lo",
        "is locked, which counts against RLIMIT_MEMLOCK and keeps every page resident. Leave out MAP_LOCKED and mlock.",
    ),
    (
        "lf",
        "is locked as soon as it is touched. Leave out mlock2 and mlockall.",
    ),
    (
        "gd",
        "grows downwards when the page below it is touched. Leave out MAP_GROWSDOWN.",
    ),
    (
        "hg",
        "is advised to use huge pages: one touch can make 2 MiB resident. Leave out MADV_HUGEPAGE.",
    ),
    (
        "ht",
        "consists of huge pages from a reserved pool, which is empty on most machines. Leave out MAP_HUGETLB.",
    ),
    (
        "dc",
        "is not mapped in forked children. Leave out MADV_DONTFORK.",
    ),
    (
        "wf",
        "is zeroed in forked children. Leave out MADV_WIPEONFORK.",
    ),
    (
        "mg",
        "may be merged with equal pages elsewhere, and a write then causes a page fault. Leave out MADV_MERGEABLE.",
    ),
    (
        "dp",
        "may be emptied by the kernel at any time. Leave out MAP_DROPPABLE.",
    ),
    (
        "sl",
        "is sealed, so it can never be unmapped. Leave out mseal.",
    ),
    ("io", "belongs to a device. Map anonymous memory."),
    ("pf", "belongs to a device. Map anonymous memory."),
    (
        "um",
        "is registered with userfaultfd, which handles its page faults. Leave out userfaultfd.",
    ),
    (
        "uw",
        "is write-protected by userfaultfd. Leave out userfaultfd.",
    ),
];

/// Fails the case unless the `len` bytes from `start` are mapped to be read and written, as `kind` says, and with no
/// flag that the task does not ask for. `what` names the memory at the beginning of a sentence.
///
/// MAP_NORESERVE, advice on the order of accesses, MADV_DONTDUMP and MADV_NOHUGEPAGE are right choices and pass. So do flags that
/// every mapping has on this machine.
pub fn expect_plain(what: &str, start: *const u8, len: usize, kind: Kind) {
    let usual = usual_flags();
    let range = start.addr()..start.addr().saturating_add(len);
    let mut mapped_to = range.start;
    let mut fault = None;
    if matches!(kind, Kind::Shared | Kind::MayBeLocked)
        && let Some(name) = remaining_name(start)
    {
        crate::fail(format!("{what} {name}"));
    }
    each_mapping(range.clone(), |mapping, flags| {
        if mapping.start <= mapped_to {
            mapped_to = mapping.end;
        }
        fault = fault.or_else(|| fault_of(flags, usual, kind));
    });
    if let Some(fault) = fault {
        crate::fail(format!("{what} {fault}"));
    }
    if mapped_to < range.end {
        crate::fail(format!(
            "{what} is mapped only in part: the first {} of {}.",
            format::size((mapped_to - range.start) as u64),
            format::size(len as u64)
        ));
    }
}

/// The number of resident pages beside the `len` bytes at `start`, in the mappings that contain these bytes.
pub fn resident_beside(start: *const u8, len: usize) -> usize {
    let mut around = 0;
    each_mapping(
        start.addr()..start.addr().saturating_add(len),
        |mapping, _| {
            let start: *const u8 = std::ptr::without_provenance(mapping.start);
            around += resident_pages(start, mapping.len());
        },
    );
    around.saturating_sub(resident_pages(start, len))
}

/// What is wrong with a mapping with these flags: the rest of a sentence.
fn fault_of(flags: VmFlags, usual: VmFlags, kind: Kind) -> Option<&'static str> {
    if !flags.has("rd") {
        return Some("cannot be read. Add PROT_READ.");
    }
    if !flags.has("wr") {
        return Some("cannot be written. Add PROT_WRITE.");
    }
    match (kind, flags.has("sh")) {
        (Kind::Shared | Kind::MayBeLocked, false) => {
            return Some("is private: a forked child writes to a copy. Map it MAP_SHARED.");
        }
        (Kind::Private | Kind::MayBeHuge, true) => {
            return Some("is shared: a forked child writes to the same pages. Map it MAP_PRIVATE.");
        }
        _ => {}
    }
    let permitted: &[&str] = match kind {
        Kind::MayBeHuge => &["hg"],
        Kind::MayBeLocked => &["lo", "lf"],
        Kind::Private | Kind::Shared => &[],
    };
    let unwanted = |code: &str| flags.has(code) && !usual.has(code) && !permitted.contains(&code);
    let (_, fault) = UNWANTED.iter().find(|(code, _)| unwanted(code))?;
    Some(fault)
}

/// The flags of a plain private mapping on this machine. Skips the case if VmFlags does not tell one flag from another
/// here.
fn usual_flags() -> VmFlags {
    static WORKS: OnceLock<bool> = OnceLock::new();
    static USUAL: OnceLock<VmFlags> = OnceLock::new();
    const BROKEN: &str = "/proc/self/smaps does not show a mapping's flags here";
    calibrated(&WORKS, BROKEN, || {
        with_pages(1, |page, size| {
            let Some(usual) = flags_at(page) else {
                return false;
            };
            let _ = USUAL.set(usual);
            // SAFETY: the page belongs to the calibration, and the advice does not change its contents.
            unsafe { libc::madvise(page.cast_mut().cast(), size, libc::MADV_DONTFORK) };
            let advised = flags_at(page);
            let both = usual.has("rd") && usual.has("wr");
            both && !usual.has("dc") && advised.is_some_and(|flags| flags.has("dc"))
        })
    });
    *USUAL.get().unwrap_or_else(|| panics::skip(BROKEN))
}

/// Says under which name another process could still open the memory at `start`, as the rest of a sentence.
fn remaining_name(start: *const u8) -> Option<&'static str> {
    let mut found = None;
    each_line(c"/proc/self/maps", |line| {
        let line = line
            .utf8_chunks()
            .next()
            .and_then(|line| MapsLine::parse(line.valid()));
        match line {
            Some(line) if line.range.contains(&(start.addr() as u64)) => {
                found = if line.name.starts_with("/SYSV") {
                    (!is_removed(line.inode as i32)).then_some(
                        "is in a System V segment that is not removed: if the process is killed now, the segment stays \
                         until a reboot. Call shmctl(IPC_RMID) as soon as it is attached.",
                    )
                } else {
                    (line.name.starts_with("/dev/shm/") && !line.deleted).then_some(
                        "still has a name in /dev/shm: if the process is killed now, the memory stays until a reboot. \
                         Call shm_unlink as soon as the object is open.",
                    )
                };
                ControlFlow::Break(())
            }
            _ => ControlFlow::Continue(()),
        }
    })?;
    found
}

/// Whether a System V segment will go with its last user. Also true if it cannot be examined.
fn is_removed(id: i32) -> bool {
    /// SHM_DEST of the kernel's headers: removed, but still attached.
    const SHM_DEST: u32 = 0o1000;
    let mut about = MaybeUninit::<libc::shmid_ds>::zeroed();
    // SAFETY: IPC_STAT only writes to the structure.
    let result = unsafe { libc::shmctl(id, libc::IPC_STAT, about.as_mut_ptr()) };
    // SAFETY: zeros are valid for every field.
    let about = unsafe { about.assume_init() };
    result == -1 || u32::from(about.shm_perm.mode) & SHM_DEST != 0
}

/// Calls `f` with the range and the flags of each mapping that overlaps `wanted`.
fn each_mapping(wanted: Range<usize>, mut f: impl FnMut(Range<usize>, VmFlags)) {
    let mut current = 0..0;
    let read = each_line(c"/proc/self/smaps", |line| {
        if let Some(codes) = line.strip_prefix(b"VmFlags: ") {
            if current.start < wanted.end && wanted.start < current.end {
                f(current.clone(), VmFlags::new(codes));
            }
        } else if let Some(range) = header(line) {
            if range.start >= wanted.end {
                return ControlFlow::Break(());
            }
            current = range;
        }
        ControlFlow::Continue(())
    });
    if read.is_none() {
        panics::skip("/proc/self/smaps cannot be read");
    }
}

/// The range in the first line of a mapping, which is a line of maps. The other lines begin with a key.
fn header(line: &[u8]) -> Option<Range<usize>> {
    if line.first()?.is_ascii_uppercase() {
        return None;
    }
    let line = MapsLine::parse(line.utf8_chunks().next()?.valid())?;
    Some(line.range.start as usize..line.range.end as usize)
}
