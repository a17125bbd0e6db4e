//! The resource limits of a case's process. They never exceed the hard limits that this process was started with.

use std::ptr::null_mut;

use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, rlim_t};
use nix::unistd::{Pid, Uid};

use crate::limits::Limits;
use crate::{format, procfs};

/// Open files that a case may have.
const FILES: rlim_t = 1024;
/// Open files below which not even the judge's own descriptors have room.
const FEWEST_FILES: rlim_t = 64;

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
        bytes(Resource::RLIMIT_CORE, 0, "core files (ulimit -Hc)"),
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
        let own = procfs::tasks_of_user(user.as_raw());
        let tasks = limits.tasks as u64;
        let spare = if traced { 4 } else { 1 };
        wanted.push(count(
            Resource::RLIMIT_NPROC,
            own + spare * tasks,
            own + tasks,
            "processes (ulimit -Hu)",
        ));
    }
    wanted
}
