//! What sets the five kinds of shared memory apart: how another program finds it, and what ends it.
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

/// One page of memory, known by something other than a mapping. Dropping it removes it.
struct Object {
    kind: Kind,
    /// What another program needs: a path, a name or an id.
    name: String,
    /// Keeps a memfd open.
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

const RIGHTS: Mode = Mode::S_IRUSR.union(Mode::S_IWUSR);

impl Object {
    fn new(kind: Kind) -> Object {
        let id = process::id();
        let mut memfd = None;
        let name = match kind {
            Kind::Memfd => {
                let fd = memfd_create(c"lab", MFdFlags::MFD_CLOEXEC).expect("memfd_create");
                sized(fd.as_fd());
                // As long as this process has the descriptor open, that is a way to it for the same user.
                let name = format!("/proc/{id}/fd/{}", fd.as_raw_fd());
                memfd = Some(fd);
                name
            }
            Kind::Posix => {
                let name = format!("/lab-{id}");
                let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL;
                let fd = shm_open(name.as_str(), flags, RIGHTS).expect("shm_open");
                sized(fd.as_fd());
                name
            }
            Kind::SystemV => {
                let flags = libc::IPC_CREAT | 0o600;
                // SAFETY: makes a segment, and touches no memory of this process.
                let id = unsafe { libc::shmget(libc::IPC_PRIVATE, lab::page_size(), flags) };
                Errno::result(id).expect("shmget").to_string()
            }
            Kind::File => {
                let path = env::temp_dir().join(format!("lab-{id}"));
                sized(File::create_new(&path).expect("a file").as_fd());
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
                // SAFETY: IPC_RMID reads nothing through the pointer.
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
            // Only after a failure, which is reported already.
            let _ = self.remove();
        }
    }
}

fn sized(fd: BorrowedFd<'_>) {
    ftruncate(fd, lab::page_size() as libc::off_t).expect("ftruncate");
}

// ANCHOR: map
/// Maps what goes by that name, as any program could.
fn map(kind: Kind, name: &str) -> Result<NonNull<u8>, Errno> {
    let (read_write, no_new_file) = (OFlag::O_RDWR, Mode::empty());
    match kind {
        Kind::Memfd | Kind::File => map_fd(open(name, read_write, no_new_file)?.as_fd()),
        Kind::Posix => map_fd(shm_open(name, read_write, no_new_file)?.as_fd()),
        Kind::SystemV => {
            let id = name.parse().expect("an id");
            // SAFETY: without an address to attach to the kernel takes one where
            // nothing is mapped.
            let start = unsafe { libc::shmat(id, ptr::null(), 0) };
            Errno::result(start as isize)?;
            Ok(NonNull::new(start.cast()).expect("an address"))
        }
    }
}
// ANCHOR_END: map

fn map_fd(fd: BorrowedFd<'_>) -> Result<NonNull<u8>, Errno> {
    let len = lab::page_size().try_into().expect("a page is not empty");
    let rights = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: without MAP_FIXED the kernel maps where nothing is mapped; nobody shrinks the object.
    Ok(unsafe { mmap(None, len, rights, MapFlags::MAP_SHARED, fd, 0) }?.cast())
}

fn unmap(start: NonNull<u8>) {
    // SAFETY: the page is a mapping of its own, and no caller uses it again. munmap detaches System V memory too.
    unsafe { munmap(start.cast(), lab::page_size()) }.expect("munmap");
}

/// This program, started anew by exec: all that it has is a kind and a name.
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
    let start = map(kind, name).expect("mapped by its name");
    // SAFETY: the page is mapped to be written, and the one who made it waits for this process.
    unsafe { lab::write(start.as_ptr(), 42) };
    process::exit(42)
}

fn run_other_program(kind: &str, name: &str) -> i32 {
    let program = env::current_exe().expect("a path");
    let status = Command::new(program).args([kind, name]).status();
    status.expect("it starts").code().expect("it exits")
}

fn read(start: NonNull<u8>) -> u8 {
    // SAFETY: `main` reads only pages that it has mapped, and that no other process writes meanwhile.
    unsafe { lab::read(start.as_ptr()) }
}

fn main() {
    if let [_, kind, name] = &*env::args().collect::<Vec<_>>() {
        other_program(kind, name);
    }
    println!("           mapped anew  another program       removed");
    let start = lab::map_shared(1);
    // SAFETY: the page is mapped to be written, and nothing else uses it.
    unsafe { lab::write(start.as_ptr(), 5) };
    assert_eq!(
        run_other_program("Anonymous", ""),
        0,
        "exec keeps no mapping"
    );
    unmap(start);
    let anew = read(lab::map_shared(1));
    println!("anonymous            {anew}  cannot map it         with its last mapping");
    assert_eq!(anew, 0);

    for (kind, title, by, gone) in [
        (Kind::Memfd, "memfd", "descriptor", Errno::ENOENT),
        (Kind::Posix, "POSIX shm", "name", Errno::ENOENT),
        (Kind::SystemV, "System V", "id", Errno::EINVAL),
        (Kind::File, "file", "path", Errno::ENOENT),
    ] {
        // ANCHOR: main
        let mut object = Object::new(kind);
        let start = map(kind, &object.name).expect("mapped");
        // SAFETY: the page is mapped to be written, and nothing else uses it.
        unsafe { lab::write(start.as_ptr(), 5) };
        unmap(start);

        let start = map(kind, &object.name).expect("mapped again");
        let anew = read(start);
        let wrote = run_other_program(&format!("{kind:?}"), &object.name);
        let seen = read(start);
        unmap(start);

        object.remove().expect("removed");
        let after = map(kind, &object.name).map(|_| ());
        println!("{title:<10} {anew:>11}  {seen} by its {by:<12} {after:?}");
        // ANCHOR_END: main
        assert_eq!((anew, wrote, seen), (5, 42, 42));
        assert_eq!(after, Err(gone));
    }
}
