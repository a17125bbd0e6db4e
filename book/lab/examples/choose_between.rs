//! Compares five kinds of shared memory: how another program can map each of them, and what removes it.
//!
//! Claims: 20, 21, 22, 39, 40.

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::process::{self, Command};
use std::ptr::{self, NonNull};
use std::{env, io};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap, shm_open, shm_unlink};
use nix::sys::stat::Mode;
use nix::unistd::ftruncate;

/// One page of memory that exists independently of a mapping. Dropping the object removes it.
struct Object {
    kind: Kind,
    /// How another program finds it: a path, a name or an id.
    name: String,
    /// Keeps the memfd open.
    memfd: Option<OwnedFd>,
    removed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Memfd,
    Posix,
    SystemV,
    File,
}

const MODE: Mode = Mode::S_IRUSR.union(Mode::S_IWUSR);

impl Object {
    fn new(kind: Kind) -> Object {
        let id = process::id();
        let mut memfd = None;
        let name = match kind {
            Kind::Memfd => {
                let fd = memfd_create(c"lab", MFdFlags::MFD_CLOEXEC).expect("memfd_create");
                set_size(fd.as_fd());
                // Processes of the same user can open this path as long as this process has the descriptor open.
                let name = format!("/proc/{id}/fd/{}", fd.as_raw_fd());
                memfd = Some(fd);
                name
            }
            Kind::Posix => {
                let name = format!("/lab-{id}");
                let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL;
                let fd = shm_open(name.as_str(), flags, MODE).expect("shm_open");
                set_size(fd.as_fd());
                name
            }
            Kind::SystemV => {
                let flags = libc::IPC_CREAT | 0o600;
                // SAFETY: shmget creates a segment, and accesses no memory of this process.
                let id = unsafe { libc::shmget(libc::IPC_PRIVATE, lab::page_size(), flags) };
                Errno::result(id).expect("shmget").to_string()
            }
            Kind::File => {
                let path = env::temp_dir().join(format!("lab-{id}"));
                set_size(File::create_new(&path).expect("a file").as_fd());
                path.into_os_string()
                    .into_string()
                    .expect("a path in UTF-8")
            }
        };
        Object {
            kind,
            name,
            memfd,
            removed: false,
        }
    }

    fn remove(&mut self) -> io::Result<()> {
        self.removed = true;
        match self.kind {
            Kind::Memfd => self.memfd = None,
            Kind::Posix => shm_unlink(self.name.as_str())?,
            Kind::SystemV => {
                let id = self.name.parse().expect("an id");
                // SAFETY: IPC_RMID ignores the pointer.
                Errno::result(unsafe { libc::shmctl(id, libc::IPC_RMID, ptr::null_mut()) })?;
            }
            Kind::File => fs::remove_file(&self.name)?,
        }
        Ok(())
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        if !self.removed {
            // This happens only in a panic, so a second error is not reported.
            let _ = self.remove();
        }
    }
}

fn set_size(fd: BorrowedFd<'_>) {
    ftruncate(fd, lab::page_size() as libc::off_t).expect("ftruncate");
}

// ANCHOR: map
/// Maps the object with this name, as any other program can.
fn map(kind: Kind, name: &str) -> Result<NonNull<u8>, Errno> {
    let (read_write, no_new_file) = (OFlag::O_RDWR, Mode::empty());
    match kind {
        Kind::Memfd | Kind::File => map_fd(open(name, read_write, no_new_file)?.as_fd()),
        Kind::Posix => map_fd(shm_open(name, read_write, no_new_file)?.as_fd()),
        Kind::SystemV => {
            let id = name.parse().expect("an id");
            // SAFETY: without an address, shmat does not replace an existing
            // mapping.
            let start = unsafe { libc::shmat(id, ptr::null(), 0) };
            Errno::result(start as isize)?;
            Ok(NonNull::new(start.cast()).expect("an address"))
        }
    }
}
// ANCHOR_END: map

fn map_fd(fd: BorrowedFd<'_>) -> Result<NonNull<u8>, Errno> {
    let len = lab::page_size().try_into().expect("a page is not empty");
    let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: without MAP_FIXED, mmap does not replace an existing mapping. Nothing truncates the object.
    Ok(unsafe { mmap(None, len, prot, MapFlags::MAP_SHARED, fd, 0) }?.cast())
}

fn unmap(start: NonNull<u8>) {
    // SAFETY: the page is a whole mapping, which no caller accesses again. munmap also detaches System V memory.
    unsafe { munmap(start.cast(), lab::page_size()) }.expect("munmap");
}

/// The program that exec starts. It knows only the kind and the name of the object.
fn other_program(kind: &str, name: &str) -> ! {
    let kind = match kind {
        "Memfd" => Kind::Memfd,
        "Posix" => Kind::Posix,
        "SystemV" => Kind::SystemV,
        "File" => Kind::File,
        _ => {
            let maps = fs::read_to_string("/proc/self/maps").expect("/proc/self/maps");
            process::exit(maps.contains("/dev/zero (deleted)").into())
        }
    };
    let start = map(kind, name).expect("the object can be mapped by its name");
    // SAFETY: the page is mapped writable, and its creator waits for this process.
    unsafe { lab::write(start.as_ptr(), 42) };
    process::exit(42)
}

fn run_other_program(kind: &str, name: &str) -> i32 {
    let program = env::current_exe().expect("a path");
    let status = Command::new(program).args([kind, name]).status();
    status
        .expect("the program starts")
        .code()
        .expect("the program exits")
}

fn read(start: NonNull<u8>) -> u8 {
    // SAFETY: `main` passes mapped pages that no other process writes to at the same time.
    unsafe { lab::read(start.as_ptr()) }
}

fn main() {
    if let [_, kind, name] = &*env::args().collect::<Vec<_>>() {
        other_program(kind, name);
    }
    println!("          mapped again  another program       removed");
    let start = lab::map_shared(1);
    // SAFETY: the page is mapped writable, and nothing else accesses it.
    unsafe { lab::write(start.as_ptr(), 5) };
    assert_eq!(
        run_other_program("Anonymous", ""),
        0,
        "exec keeps no mapping"
    );
    unmap(start);
    let remapped = read(lab::map_shared(1));
    println!("anonymous            {remapped}  cannot map it         with its last mapping");
    assert_eq!(remapped, 0);

    for (kind, title, found_by, expected) in [
        (Kind::Memfd, "memfd", "descriptor", Errno::ENOENT),
        (Kind::Posix, "POSIX shm", "name", Errno::ENOENT),
        (Kind::SystemV, "System V", "id", Errno::EINVAL),
        (Kind::File, "file", "path", Errno::ENOENT),
    ] {
        // ANCHOR: main
        let mut object = Object::new(kind);
        let start = map(kind, &object.name).expect("mapped");
        // SAFETY: the page is mapped writable, and nothing else accesses it.
        unsafe { lab::write(start.as_ptr(), 5) };
        unmap(start);

        let start = map(kind, &object.name).expect("mapped again");
        let remapped = read(start);
        let wrote = run_other_program(&format!("{kind:?}"), &object.name);
        let seen = read(start);
        unmap(start);

        object.remove().expect("removed");
        let after = map(kind, &object.name).map(|_| ());
        println!("{title:<10} {remapped:>11}  {seen} by its {found_by:<12} {after:?}");
        // ANCHOR_END: main
        assert_eq!((remapped, wrote, seen), (5, 42, 42));
        assert_eq!(after, Err(expected));
    }
}
