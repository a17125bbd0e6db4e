//! Objects that would outlive a case: System V memory, semaphores and queues, POSIX queues, and files in /dev/shm.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::libc;

use crate::procfs::FileId;

/// Where shm_open(3) and sem_open(3) create their objects.
const FOLDER: &str = "/dev/shm";

/// The bytes of a file that `forestall` creates.
const LEFTOVER: usize = 256 << 10;

/// The most sets of semaphores, and queues, that a case may have at the same time, and the most semaphores in a set. They are
/// memory of the kernel that counts nowhere: by its own limits, it would be 64 GB.
const MOST: usize = 128;
const MOST_IN_SET: u64 = 250;

/// The objects that a case has created. Of each, whether its first process has created it.
#[derive(Debug, Default)]
pub struct Objects(Mutex<Created>);

#[derive(Debug, Default)]
struct Created {
    memory: BTreeMap<i32, bool>,
    semaphores: BTreeMap<i32, bool>,
    queues: BTreeMap<i32, bool>,
    files: BTreeMap<PathBuf, bool>,
    /// POSIX queues, by their names without the slash.
    named_queues: BTreeMap<CString, bool>,
}

/// An object that the first process of a case has left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    pub what: &'static str,
    /// The call that removes it.
    pub removed_by: &'static str,
}

impl Objects {
    /// Executes `shmget`, `semget` or `msgget` for the case. The judge does that, because afterwards the kernel does not
    /// tell who has created a semaphore or a queue.
    pub fn get(&self, call: libc::c_long, args: [u64; 3], by_first: bool) -> Result<i32, Errno> {
        let flags = match call {
            libc::SYS_msgget => 1,
            _ => 2,
        };
        let is_private = args[0] as i32 == libc::IPC_PRIVATE;
        let mut existing = args;
        existing[flags] &= !((libc::IPC_CREAT | libc::IPC_EXCL) as u64);
        let existed = !is_private && execute(call, existing) != Err(Errno::ENOENT);
        let mut created = self.lock();
        if !existed {
            created.ensure_room(call, args)?;
        }
        let id = execute(call, args)?;
        if !existed {
            match call {
                libc::SYS_shmget => created.memory.insert(id, by_first),
                libc::SYS_semget => created.semaphores.insert(id, by_first),
                _ => created.queues.insert(id, by_first),
            };
        }
        Ok(id)
    }

    /// Records a file that the case is about to create.
    pub fn may_create(&self, path: &Path, by_first: bool) {
        if let Some(path) = free_place(path) {
            self.lock().files.insert(path, by_first);
        }
    }

    /// Creates a file with contents where the case is about to create one, as if another process had left it. Returns
    /// whether it did.
    pub fn forestall(&self, path: &Path) -> bool {
        let Some(path) = free_place(path) else {
            return false;
        };
        self.lock().files.insert(path.clone(), false);
        let created = File::options().write(true).create_new(true).open(path);
        created.is_ok_and(|mut file| file.write_all(&[0xaa; LEFTOVER]).is_ok())
    }

    /// Like `forestall`, for System V memory with a key. Memory that is private cannot be forestalled.
    pub fn forestall_memory(&self, key: i32, len: u64) -> bool {
        if key == libc::IPC_PRIVATE {
            return false;
        }
        let flags = libc::IPC_CREAT | libc::IPC_EXCL | 0o600;
        let Ok(id) = execute(libc::SYS_shmget, [key as u64, len, flags as u64]) else {
            return false;
        };
        self.lock().memory.insert(id, false);
        // SAFETY: with a null address the kernel takes addresses where nothing is mapped.
        let start = unsafe { libc::shmat(id, std::ptr::null(), 0) };
        if start.addr() == usize::MAX {
            return false;
        }
        // The case may ask for any length, and what is written becomes resident.
        let filled = LEFTOVER.min(len as usize);
        // SAFETY: the memory is at least this long, and was attached just now.
        unsafe { start.cast::<u8>().write_bytes(0xaa, filled) };
        // SAFETY: nothing uses the memory here any more.
        unsafe { libc::shmdt(start) };
        true
    }

    /// Records a POSIX message queue that the case is about to create.
    pub fn may_create_queue(&self, name: &[u8], by_first: bool) {
        let Ok(name) = CString::new(name) else { return };
        let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_CLOEXEC;
        // SAFETY: the name is a C string that outlives the call.
        let found = unsafe { libc::syscall(libc::SYS_mq_open, name.as_ptr(), flags, 0, 0) };
        match Errno::result(found) {
            // SAFETY: the call succeeded, so the descriptor is new, and nothing else owns it.
            Ok(fd) => drop(unsafe { OwnedFd::from_raw_fd(fd as i32) }),
            Err(Errno::ENOENT) => drop(self.lock().named_queues.insert(name, by_first)),
            Err(_) => {}
        }
    }

    /// The allocated bytes of each file that the case has created, and the bytes of its System V memory.
    pub fn memory(&self) -> (Vec<(FileId, u64)>, u64) {
        let created = self.lock();
        let files = created.files.keys().filter_map(|path| {
            let about = fs::symlink_metadata(path).ok()?;
            Some(((about.dev(), about.ino()), about.blocks() * 512))
        });
        (files.collect(), resident(&created.memory))
    }

    /// Removes what the case has left. Returns what its first process could have removed: a child that has created an
    /// object may have been killed.
    pub fn remove(&self) -> Vec<Left> {
        let created = self.lock();
        let mut all = Vec::new();
        let mut add = |existed, by_first, what, removed_by| {
            if existed && by_first {
                all.push(Left { what, removed_by });
            }
        };
        let system_v = [
            (
                &created.memory,
                libc::SYS_shmctl,
                "System V shared memory (shmget)",
                "shmctl(IPC_RMID)",
            ),
            (
                &created.semaphores,
                libc::SYS_semctl,
                "a System V semaphore (semget)",
                "semctl(IPC_RMID)",
            ),
            (
                &created.queues,
                libc::SYS_msgctl,
                "a System V message queue (msgget)",
                "msgctl(IPC_RMID)",
            ),
        ];
        for (ids, call, what, removed_by) in system_v {
            for (id, by_first) in ids {
                add(remove_system_v(call, *id), *by_first, what, removed_by);
            }
        }
        for (name, by_first) in &created.named_queues {
            // SAFETY: the name is a C string that outlives the call.
            let removed = unsafe { libc::syscall(libc::SYS_mq_unlink, name.as_ptr()) };
            add(
                removed == 0,
                *by_first,
                "a message queue (mq_open)",
                "mq_unlink",
            );
        }
        // In reverse, because a folder comes before its files.
        for (path, by_first) in created.files.iter().rev() {
            let removed = fs::remove_file(path).or_else(|_| fs::remove_dir(path));
            let is_semaphore = path
                .file_name()
                .is_some_and(|name| name.as_encoded_bytes().starts_with(b"sem."));
            let (what, removed_by) = match is_semaphore {
                true => ("a named semaphore (sem_open)", "sem_unlink"),
                false => ("a file in /dev/shm", "shm_unlink"),
            };
            add(removed.is_ok(), *by_first, what, removed_by);
        }
        all
    }

    fn lock(&self) -> MutexGuard<'_, Created> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Created {
    /// Returns the error of the kernel for a set or a queue that is one too many, or for a set that is too large.
    fn ensure_room(&mut self, call: libc::c_long, args: [u64; 3]) -> Result<(), Errno> {
        let (ids, table) = match call {
            libc::SYS_semget if args[1] > MOST_IN_SET => return Err(Errno::EINVAL),
            libc::SYS_semget => (&mut self.semaphores, "/proc/sysvipc/sem"),
            libc::SYS_msgget => (&mut self.queues, "/proc/sysvipc/msg"),
            _ => return Ok(()),
        };
        if ids.len() >= MOST {
            let text = fs::read_to_string(table).unwrap_or_default();
            let id = |line: &str| line.split_whitespace().nth(1)?.parse().ok();
            let existing: BTreeSet<i32> = text.lines().filter_map(id).collect();
            ids.retain(|id, _| existing.contains(id));
        }
        match ids.len() < MOST {
            true => Ok(()),
            false => Err(Errno::ENOSPC),
        }
    }
}

/// The path of a file in `FOLDER` that does not exist yet.
fn free_place(path: &Path) -> Option<PathBuf> {
    // The path may lead to the folder through a link, or past it with `..`.
    let folder = fs::canonicalize(path.parent()?).ok()?;
    let path = folder.join(path.file_name()?);
    (path.starts_with(FOLDER) && fs::symlink_metadata(&path).is_err()).then_some(path)
}

fn execute(call: libc::c_long, [a, b, c]: [u64; 3]) -> Result<i32, Errno> {
    // SAFETY: the three calls take numbers, and map nothing.
    let id = unsafe { libc::syscall(call, a, b, c) };
    Errno::result(id).map(|id| id as i32)
}

/// Removes the object `id`, which the case has created, with `shmctl`, `semctl` or `msgctl`. Returns whether it existed.
fn remove_system_v(call: libc::c_long, id: i32) -> bool {
    // semctl(2) has the number of a semaphore before the command.
    let arguments = match call {
        libc::SYS_semctl => [0, libc::IPC_RMID],
        _ => [libc::IPC_RMID, 0],
    };
    let [second, third] = arguments.map(libc::c_long::from);
    // SAFETY: removing accesses no memory of this process.
    unsafe { libc::syscall(call, libc::c_long::from(id), second, third, 0_usize) == 0 }
}

/// The bytes of the System V memory `ids` that are resident or swapped.
fn resident(ids: &BTreeMap<i32, bool>) -> u64 {
    if ids.is_empty() {
        return 0;
    }
    // key shmid perms size cpid lpid nattch uid gid cuid cgid atime dtime ctime rss swap
    let table = fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default();
    let lines = table.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let id: i32 = fields.get(1)?.parse().ok()?;
        let bytes = |index: usize| fields.get(index)?.parse::<u64>().ok();
        ids.contains_key(&id).then_some(bytes(14)? + bytes(15)?)
    });
    lines.sum()
}
