//! The resource limits of a case's process. They never exceed the hard limits that this process was started with.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::ptr::null_mut;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, rlim_t, setrlimit};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, Uid, fork, pipe2, write};

use crate::limits::Limits;
use crate::{format, procfs};

/// Open files that a case may have.
const FILES: rlim_t = 1024;
/// Open files below which not even the judge's own descriptors have room.
const FEWEST_FILES: rlim_t = 64;
/// Inode of /proc/PID/ns/pid outside of containers (PROC_PID_INIT_INO).
const INITIAL_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// The limits to set, soft and hard alike.
pub struct Rlimits {
    limits: Vec<(Resource, rlim_t)>,
    pub files: rlim_t,
    /// The first hard limit that is lower than what a case may rely on, as a clause of a sentence. A failure may be
    /// due to this limit.
    pub shortage: Option<String>,
}

/// One limit, before it is compared with the hard limit.
struct Wanted {
    resource: Resource,
    /// The limit to set.
    limit: rlim_t,
    /// The lowest limit at which a failure is not due to the limit.
    enough: rlim_t,
    /// The name of the hard limit.
    name: &'static str,
    /// Formats a value of the limit.
    display: fn(rlim_t) -> String,
}

impl Rlimits {
    pub fn new(limits: &Limits, traced: bool) -> nix::Result<Rlimits> {
        let mut chosen = Rlimits {
            limits: Vec::new(),
            files: FILES,
            shortage: None,
        };
        for wanted in wanted(limits, traced) {
            let (_, hard) = getrlimit(wanted.resource)?;
            let limit = wanted.limit.min(hard);
            chosen.limits.push((wanted.resource, limit));
            if wanted.resource == Resource::RLIMIT_NOFILE {
                chosen.files = limit;
            }
            if hard < wanted.enough && chosen.shortage.is_none() {
                let (hard, enough) = ((wanted.display)(hard), (wanted.display)(wanted.enough));
                chosen.shortage = Some(format!(
                    "the hard limit on {} is {hard} here, and a case needs {enough}",
                    wanted.name
                ));
            }
        }
        Ok(chosen)
    }

    /// Whether a case can be started at all.
    pub fn startable(&self) -> bool {
        self.files >= FEWEST_FILES
    }

    /// Sets the limits of `process`, or of this process. Makes only system calls.
    pub fn apply(&self, process: Option<Pid>) -> nix::Result<()> {
        self.limits.iter().try_for_each(|(resource, limit)| {
            let limit = libc::rlimit {
                rlim_cur: *limit,
                rlim_max: *limit,
            };
            let pid = process.map_or(0, Pid::as_raw);
            // SAFETY: the call reads `limit`, and does not write without a place for the former limit.
            let result = unsafe { libc::prlimit(pid, *resource as _, &limit, null_mut()) };
            Errno::result(result).map(drop)
        })
    }
}

/// No core file is that short, so none is written. With a limit of 1 byte, the kernel also starts no program for a core
/// (`core_pattern` with a pipe; `do_coredump` in fs/coredump.c), which a limit of 0 permits.
const NO_CORE: u64 = 1;

fn wanted(limits: &Limits, traced: bool) -> Vec<Wanted> {
    let bytes = |resource, limit, name| Wanted {
        resource,
        limit,
        enough: limit,
        name,
        display: format::size,
    };
    let count = |resource, limit, enough, name| Wanted {
        resource,
        limit,
        enough,
        name,
        display: |count| count.to_string(),
    };
    let mut wanted = vec![
        Wanted {
            enough: 0,
            ..bytes(Resource::RLIMIT_CORE, NO_CORE, "core files (ulimit -Hc)")
        },
        bytes(
            Resource::RLIMIT_FSIZE,
            limits.file,
            "file sizes (ulimit -Hf)",
        ),
        bytes(
            Resource::RLIMIT_DATA,
            limits.data,
            "the data segment (ulimit -Hd)",
        ),
        // Some lessons reserve a terabyte.
        Wanted {
            limit: RLIM_INFINITY,
            ..bytes(
                Resource::RLIMIT_AS,
                4 << 40,
                "the address space (ulimit -Hv)",
            )
        },
        count(
            Resource::RLIMIT_NOFILE,
            FILES,
            FEWEST_FILES,
            "open files (ulimit -Hn)",
        ),
    ];
    // A second limit besides the tracer's count of tasks. The kernel counts all tasks of the user, and exempts root.
    let user = Uid::effective();
    if !user.is_root() {
        let visible = procfs::tasks_of_user(user.as_raw());
        let tasks = limits.tasks as u64;
        let own = match hidden_tasks(visible) {
            0 => visible,
            // Visible tasks may have ended before the hidden ones were counted.
            hidden => visible + hidden + tasks,
        };
        // More than the judge permits, so that it sees the excess before a call fails.
        let spare = if traced { 4 } else { 2 };
        wanted.push(count(
            Resource::RLIMIT_NPROC,
            own + spare * tasks,
            own + tasks,
            "processes (ulimit -Hu)",
        ));
    }
    wanted
}

/// How many tasks of this user the kernel counts besides the `visible` ones in /proc. In a container, /proc does not have
/// the tasks of a user outside who has the same ID.
fn hidden_tasks(visible: u64) -> u64 {
    let namespace = fs::metadata("/proc/self/ns/pid").map(|namespace| namespace.ino());
    if namespace.is_ok_and(|inode| inode == INITIAL_PID_NAMESPACE) {
        return 0;
    }
    let Ok((result, end)) = pipe2(OFlag::O_CLOEXEC) else {
        return 0;
    };
    // SAFETY: the child makes only system calls, and ends with `_exit`.
    let child = match unsafe { fork() } {
        Ok(ForkResult::Parent { child }) => child,
        Ok(ForkResult::Child) => {
            let _ = write(&end, &count_hidden(visible).to_ne_bytes());
            // SAFETY: `_exit` takes any value.
            unsafe { libc::_exit(0) }
        }
        Err(_) => return 0,
    };
    drop(end);
    let mut hidden = [0; size_of::<u64>()];
    let read = File::from(result).read_exact(&mut hidden);
    // Fails if SIGCHLD is ignored.
    while waitpid(child, None) == Err(Errno::EINTR) {}
    read.map_or(0, |()| u64::from_ne_bytes(hidden))
}

/// Finds the lowest limit with which this process can fork. Changes its limit, and makes only system calls.
fn count_hidden(visible: u64) -> u64 {
    let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NPROC) else {
        return 0;
    };
    // This process and its child came after the visible ones. A few more may have.
    let (mut low, mut high) = (2, 8);
    if can_fork(visible + high, hard) {
        return 0;
    }
    while visible + high < hard && !can_fork(visible + high, hard) {
        (low, high) = (high, high * 2);
    }
    while low + 1 < high {
        let middle = low.midpoint(high);
        match can_fork(visible + middle, hard) {
            true => high = middle,
            false => low = middle,
        }
    }
    high - 2
}

/// Whether this process can fork with a limit of so many tasks of its user.
fn can_fork(limit: rlim_t, hard: rlim_t) -> bool {
    if setrlimit(Resource::RLIMIT_NPROC, limit.min(hard), hard).is_err() {
        return false;
    }
    // SAFETY: the child makes only one system call.
    match unsafe { fork() } {
        // SAFETY: `_exit` takes any value.
        Ok(ForkResult::Child) => unsafe { libc::_exit(0) },
        Ok(ForkResult::Parent { child }) => {
            let _ = waitpid(child, None);
            true
        }
        Err(_) => false,
    }
}
