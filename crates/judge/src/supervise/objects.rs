//! Objects that would outlive a case: System V memory, semaphores and queues, POSIX queues, and files in /dev/shm.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::ptr::null_mut;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::libc;

use crate::procfs::FileId;

/// Where shm_open(3) and sem_open(3) create their objects.
const FOLDER: &str = "/dev/shm";

/// The objects that a case has created.
#[derive(Debug, Default)]
pub struct Objects(Mutex<Created>);

#[derive(Debug, Default)]
struct Created {
    memory: BTreeSet<i32>,
    semaphores: BTreeSet<i32>,
    queues: BTreeSet<i32>,
    files: BTreeSet<PathBuf>,
    /// POSIX queues, by their names without the slash.
    named_queues: BTreeSet<CString>,
}

impl Objects {
    /// Executes `shmget`, `semget` or `msgget` for the case. The judge does that, because afterwards the kernel does not
    /// tell who has created a semaphore or a queue.
    pub fn get(&self, call: libc::c_long, args: [u64; 3]) -> Result<i32, Errno> {
        let flags = match call {
            libc::SYS_msgget => 1,
            _ => 2,
        };
        let is_private = args[0] as i32 == libc::IPC_PRIVATE;
        let mut existing = args;
        existing[flags] &= !((libc::IPC_CREAT | libc::IPC_EXCL) as u64);
        let existed = !is_private && execute(call, existing) != Err(Errno::ENOENT);
        let id = execute(call, args)?;
        if !existed {
            let mut created = self.lock();
            match call {
                libc::SYS_shmget => created.memory.insert(id),
                libc::SYS_semget => created.semaphores.insert(id),
                _ => created.queues.insert(id),
            };
        }
        Ok(id)
    }

    /// Records a file that the case is about to create.
    pub fn may_create(&self, path: &Path) {
        if path.starts_with(FOLDER) && fs::symlink_metadata(path).is_err() {
            self.lock().files.insert(path.to_owned());
        }
    }

    /// Records a POSIX message queue that the case is about to create.
    pub fn may_create_queue(&self, name: &[u8]) {
        let Ok(name) = CString::new(name) else { return };
        let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_CLOEXEC;
        // SAFETY: the name is a C string that outlives the call.
        let found = unsafe { libc::syscall(libc::SYS_mq_open, name.as_ptr(), flags, 0, 0) };
        match Errno::result(found) {
            // SAFETY: the call succeeded, so the descriptor is new, and nothing else owns it.
            Ok(fd) => drop(unsafe { OwnedFd::from_raw_fd(fd as i32) }),
            Err(Errno::ENOENT) => drop(self.lock().named_queues.insert(name)),
            Err(_) => {}
        }
    }

    /// The allocated bytes of each file that the case has created, and the bytes of its System V memory.
    pub fn memory(&self) -> (Vec<(FileId, u64)>, u64) {
        let created = self.lock();
        let files = created.files.iter().filter_map(|path| {
            let about = fs::symlink_metadata(path).ok()?;
            Some(((about.dev(), about.ino()), about.blocks() * 512))
        });
        (files.collect(), resident(&created.memory))
    }

    /// Removes what the case has left.
    pub fn remove(&self) {
        let created = self.lock();
        let nothing: *mut libc::c_void = null_mut();
        for id in &created.memory {
            // SAFETY: removing takes no structure. The case has created this object.
            unsafe { libc::shmctl(*id, libc::IPC_RMID, null_mut()) };
        }
        for id in &created.semaphores {
            // SAFETY: removing takes no structure. The case has created this object.
            unsafe { libc::semctl(*id, 0, libc::IPC_RMID, nothing) };
        }
        for id in &created.queues {
            // SAFETY: removing takes no structure. The case has created this object.
            unsafe { libc::msgctl(*id, libc::IPC_RMID, null_mut()) };
        }
        for name in &created.named_queues {
            // SAFETY: the name is a C string that outlives the call.
            unsafe { libc::syscall(libc::SYS_mq_unlink, name.as_ptr()) };
        }
        for path in &created.files {
            let _ = fs::remove_file(path);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Created> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn execute(call: libc::c_long, [a, b, c]: [u64; 3]) -> Result<i32, Errno> {
    // SAFETY: the three calls take numbers, and map nothing.
    let id = unsafe { libc::syscall(call, a, b, c) };
    Errno::result(id).map(|id| id as i32)
}

/// The bytes of the System V memory `ids` that are resident or swapped.
fn resident(ids: &BTreeSet<i32>) -> u64 {
    if ids.is_empty() {
        return 0;
    }
    // key shmid perms size cpid lpid nattch uid gid cuid cgid atime dtime ctime rss swap
    let table = fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default();
    let lines = table.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let id: i32 = fields.get(1)?.parse().ok()?;
        let bytes = |index: usize| fields.get(index)?.parse::<u64>().ok();
        ids.contains(&id).then_some(bytes(14)? + bytes(15)?)
    });
    lines.sum()
}
