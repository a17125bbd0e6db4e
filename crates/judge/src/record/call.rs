//! One system call as the tracer saw it, and the text of its arguments.

use nix::errno::Errno;
use nix::libc;

use crate::format;

/// The calls that stop for the tracer: those on memory, and those that wait for a child.
pub const WATCHED: &[i64] = &[
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_mlock,
    libc::SYS_mlock2,
    libc::SYS_munlock,
    libc::SYS_msync,
    libc::SYS_mincore,
    libc::SYS_memfd_create,
    libc::SYS_ftruncate,
    libc::SYS_wait4,
    libc::SYS_waitid,
];

/// The calls that fork. They stop for the tracer only if they may be made to fail.
pub const FORKS: &[i64] = &[
    libc::SYS_clone,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_fork,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_vfork,
];

/// Further calls that may be made to fail. They stop for the tracer only then, and are not recorded.
pub const NOT_RECORDED: &[i64] = &[
    libc::SYS_shmat,
    libc::SYS_shmdt,
    libc::SYS_pidfd_open,
    libc::SYS_pipe2,
    libc::SYS_read,
    libc::SYS_ppoll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_pipe,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
];

/// The calls that libc also makes on its own account, for malloc and for thread stacks.
pub const MADE_BY_LIBC: &[i64] = &[
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
];

/// Whether a call that stopped for the tracer makes a new process. `clone` also starts threads.
pub fn forks(number: i64, args: &[u64; 6]) -> bool {
    let shares_memory = args[0] & libc::CLONE_VM as u64 != 0;
    FORKS.contains(&number) && !(number == libc::SYS_clone && shares_memory)
}

/// Whether the call names an empty range. Such a call changes nothing, and fails with none of the errors that concern
/// memory. madvise with an empty range tells whether the kernel knows an advice.
pub fn is_for_nothing(number: i64, args: &[u64; 6]) -> bool {
    const OF_RANGES: [i64; 4] = [
        libc::SYS_madvise,
        libc::SYS_mprotect,
        libc::SYS_mlock,
        libc::SYS_munlock,
    ];
    OF_RANGES.contains(&number) && args[1] == 0
}

/// Further calls that stop for the tracer, at their entry: they explain how a case ends, and are in no transcript.
pub const NOTED: &[i64] = &[
    libc::SYS_exit_group,
    libc::SYS_setitimer,
    libc::SYS_timer_create,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_alarm,
];

/// A watched call.
#[derive(Debug, Clone)]
pub struct Call {
    /// `P` for the case's first process, `P.1` for its first child, and so on.
    pub process: String,
    /// The name of its manual page.
    pub name: &'static str,
    /// The arguments as the answer passed them: with a pretended page size, the kernel gets longer ranges.
    pub args: [u64; 6],
    /// The value that it returned, or its error.
    pub result: Result<u64, Errno>,
}

/// A line of a transcript. Its mappings get their letters when the transcript is rendered, in reading order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Line(pub Vec<Part>);

#[derive(Debug, Clone)]
pub(crate) enum Part {
    Text(String),
    /// `offset` bytes into the mapping with this id.
    Place {
        id: usize,
        offset: u64,
    },
}

impl Line {
    pub fn text(mut self, text: impl Into<String>) -> Line {
        self.0.push(Part::Text(text.into()));
        self
    }

    pub fn place(mut self, id: usize, offset: u64) -> Line {
        self.0.push(Part::Place { id, offset });
        self
    }
}

/// The manual page of a call that stops for the tracer.
pub fn name(number: i64) -> &'static str {
    match number {
        libc::SYS_mmap => "mmap",
        libc::SYS_munmap => "munmap",
        libc::SYS_mremap => "mremap",
        libc::SYS_mprotect => "mprotect",
        libc::SYS_madvise => "madvise",
        libc::SYS_brk => "brk",
        libc::SYS_mlock => "mlock",
        libc::SYS_mlock2 => "mlock2",
        libc::SYS_munlock => "munlock",
        libc::SYS_msync => "msync",
        libc::SYS_mincore => "mincore",
        libc::SYS_memfd_create => "memfd_create",
        libc::SYS_ftruncate => "ftruncate",
        libc::SYS_wait4 => "wait4",
        libc::SYS_waitid => "waitid",
        libc::SYS_shmat => "shmat",
        libc::SYS_shmdt => "shmdt",
        libc::SYS_pidfd_open => "pidfd_open",
        libc::SYS_pipe2 => "pipe",
        libc::SYS_read => "read",
        libc::SYS_ppoll => "poll",
        #[cfg(target_arch = "x86_64")]
        libc::SYS_pipe => "pipe",
        #[cfg(target_arch = "x86_64")]
        libc::SYS_poll => "poll",
        number if FORKS.contains(&number) => "fork",
        _ => "?",
    }
}

/// A size as an argument: a number without a unit is a number of bytes.
pub fn argument(bytes: u64) -> String {
    format::size(bytes)
        .trim_end_matches(" bytes")
        .trim_end_matches(" byte")
        .to_owned()
}

/// `PROT_` flags.
pub fn protection(bits: u64) -> String {
    names(bits, &[(1, "READ"), (2, "WRITE"), (4, "EXEC")], "NONE")
}

/// `MAP_` flags.
pub fn map_flags(bits: u64) -> String {
    let kind = match bits & libc::MAP_TYPE as u64 {
        1 => "SHARED",
        2 => "PRIVATE",
        3 => "SHARED_VALIDATE",
        _ => "(neither PRIVATE nor SHARED)",
    };
    let known = [
        (libc::MAP_ANONYMOUS, "ANONYMOUS"),
        (libc::MAP_FIXED, "FIXED"),
        (libc::MAP_FIXED_NOREPLACE, "FIXED_NOREPLACE"),
        (libc::MAP_NORESERVE, "NORESERVE"),
        (libc::MAP_POPULATE, "POPULATE"),
        (libc::MAP_NONBLOCK, "NONBLOCK"),
        (libc::MAP_STACK, "STACK"),
        (libc::MAP_HUGETLB, "HUGETLB"),
        (libc::MAP_GROWSDOWN, "GROWSDOWN"),
        (libc::MAP_LOCKED, "LOCKED"),
    ]
    .map(|(bit, name)| (bit as u64, name));
    match names(bits & !(libc::MAP_TYPE as u64), &known, "").as_str() {
        "" => kind.to_owned(),
        rest => format!("{kind}|{rest}"),
    }
}

/// `MREMAP_` flags.
pub fn remap_flags(bits: u64) -> String {
    names(bits, &[(1, "MAYMOVE"), (2, "FIXED"), (4, "DONTUNMAP")], "0")
}

/// Options of `wait4` and `waitid`.
pub fn wait_flags(bits: u64) -> String {
    let known = [
        (libc::WNOHANG, "NOHANG"),
        (libc::WEXITED, "EXITED"),
        (libc::WNOWAIT, "NOWAIT"),
    ]
    .map(|(bit, name)| (bit as u64, name));
    names(bits, &known, "0")
}

/// `MADV_` advice.
pub fn advice(value: u64) -> String {
    let name = match value as i32 {
        libc::MADV_NORMAL => "NORMAL",
        libc::MADV_RANDOM => "RANDOM",
        libc::MADV_SEQUENTIAL => "SEQUENTIAL",
        libc::MADV_WILLNEED => "WILLNEED",
        libc::MADV_DONTNEED => "DONTNEED",
        libc::MADV_FREE => "FREE",
        libc::MADV_REMOVE => "REMOVE",
        libc::MADV_DONTFORK => "DONTFORK",
        libc::MADV_DOFORK => "DOFORK",
        libc::MADV_HUGEPAGE => "HUGEPAGE",
        libc::MADV_NOHUGEPAGE => "NOHUGEPAGE",
        libc::MADV_DONTDUMP => "DONTDUMP",
        libc::MADV_WIPEONFORK => "WIPEONFORK",
        libc::MADV_COLD => "COLD",
        libc::MADV_PAGEOUT => "PAGEOUT",
        libc::MADV_POPULATE_READ => "POPULATE_READ",
        libc::MADV_POPULATE_WRITE => "POPULATE_WRITE",
        other => return other.to_string(),
    };
    name.to_owned()
}

/// A file descriptor. The kernel uses the low 32 bits.
pub fn descriptor(value: u64) -> String {
    format!("fd {}", value as i32)
}

fn names(bits: u64, known: &[(u64, &str)], none: &str) -> String {
    let mut left = bits;
    let mut found = Vec::new();
    for (bit, name) in known {
        if bits & bit == *bit {
            found.push((*name).to_owned());
            left &= !bit;
        }
    }
    if left != 0 {
        found.push(format!("{left:#x}"));
    }
    match found.is_empty() {
        true => none.to_owned(),
        false => found.join("|"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_without_a_unit_are_bytes() {
        assert_eq!(argument(0), "0");
        assert_eq!(argument(4097), "4097");
        assert_eq!(argument(512 << 10), "512 KiB");
    }

    #[test]
    fn flags_without_a_name_are_shown_in_hexadecimal() {
        assert_eq!(map_flags(0x22), "PRIVATE|ANONYMOUS");
        assert_eq!(map_flags(0x4000_0021), "SHARED|ANONYMOUS|0x40000000");
        assert_eq!(protection(0), "NONE");
    }
}
