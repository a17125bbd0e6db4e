//! Where the compiler and the grader of an answer that is not trusted run.
//!
//! Usually that is a sandbox of bubblewrap, which needs no privileges. The processes in it see no other processes, no
//! network and no files but the system's, the toolchain, the exercise's grader and the answer. They can write only to
//! small file systems in memory, and the compiler to the folder of its results. The command judges from outside: it reads
//! the report of the judge, which runs in the sandbox as another process than the answer.
//!
//! In a container for one submission, where the kernel permits no sandbox in it, they run as the user nobody.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use course::process::{self, Killer, Limits};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{SysconfVar, geteuid, sysconf};

use crate::grade::filter;
use crate::grade::lines::{in_memory, keep_on_exec};

/// What to do without bubblewrap.
const REMEDY: &str =
    "install it (`apt install bubblewrap`), and permit user namespaces to your user";

/// The directories of a system that programs need. They may be symbolic links.
const SYSTEM: [&str; 7] = [
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32",
];

/// Files that the linkers need.
const LINKERS: [&str; 4] = [
    "/etc/alternatives",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
];

/// The environment variables that programs in the sandbox get: what cargo and the command set for them.
const VARIABLES: [&str; 9] = [
    "CARGO_CRATE_",
    "CARGO_MANIFEST_",
    "CARGO_PKG_",
    "CARGO_TARGET_DIR",
    "INSTA_",
    "JUDGE_",
    "OUT_DIR",
    "RUST_TEST_THREADS",
    "TRYBUILD",
];

/// The bytes in each file system in memory.
const IN_MEMORY: &str = "67108864";

/// The user without privileges, as which programs run in a container.
pub const NOBODY: u32 = 65_534;

/// The arguments of prlimit(1) for what the kernel counts for each user: processes and threads; signals in queues, timers
/// included; and the bytes of POSIX message queues, of which these are two. The limits hold in each sandbox. Outside, those of
/// the caller hold for all of them together.
const PER_USER: [&str; 3] = [
    "--nproc=1024:1024",
    "--sigpending=1024:1024",
    "--msgqueue=200000:200000",
];

/// The open files that the judge may have. The kernel lets a process send a descriptor only while the processes of its
/// user have fewer in the queues of sockets, those in other sandboxes included. A case has a lower limit.
const DESCRIPTORS: u64 = 1 << 16;

/// The most processes and threads in a sandbox, as counted from outside, and the most bytes that are resident in all of
/// them. The judge has lower limits for each case.
const MOST_TASKS: u64 = 500;
const MOST_MEMORY: u64 = 4 << 30;

/// The most bytes of all results of the compiler. Each file has a limit, but there may be many.
const MOST_DISK: u64 = 1 << 30;

#[derive(Debug, Clone)]
pub struct Sandbox {
    kind: Kind,
    /// The folder of the toolchain.
    toolchain: PathBuf,
}

#[derive(Debug, Clone)]
enum Kind {
    /// The arguments of bubblewrap for what is visible.
    Bubblewrap(Vec<OsString>),
    User,
}

/// Returns an error with the remedy if bubblewrap does not work here.
///
/// # Errors
/// As described.
pub fn check() -> Result<()> {
    const LIMITS: Limits = Limits::time(Duration::from_secs(20));
    let mut command = Command::new("bwrap");
    command
        .args(isolation())
        .args(system())
        .args(["--proc", "/proc"]);
    add_filter(&mut command)?;
    command.arg("prlimit").args(PER_USER).arg("true");
    let ran = process::run(&mut command, LIMITS);
    let ran = ran.with_context(|| format!("bubblewrap cannot be started: {REMEDY}"))?;
    ensure!(
        ran.success(),
        "bubblewrap does not work here: {REMEDY}. It {}: {}",
        ran.describe(),
        ran.stderr.trim()
    );
    Ok(())
}

/// The arguments that separate the sandbox from everything else.
fn isolation() -> [&'static str; 11] {
    [
        "--unshare-all",
        "--unshare-user",
        "--disable-userns",
        "--die-with-parent",
        "--new-session",
        "--uid",
        "1000",
        "--gid",
        "1000",
        "--cap-drop",
        "ALL",
    ]
}

/// The arguments that make the system visible.
fn system() -> Vec<OsString> {
    let mut arguments: Vec<OsString> = Vec::new();
    for path in SYSTEM {
        match fs::read_link(path) {
            Ok(target) => arguments.extend(["--symlink".into(), target.into(), path.into()]),
            Err(_) => arguments.extend(["--ro-bind-try", path, path].map(Into::into)),
        }
    }
    for path in LINKERS {
        arguments.extend(["--ro-bind-try", path, path].map(Into::into));
    }
    arguments
}

/// Makes bubblewrap install the filter last: it needs a socket itself, for the loopback interface.
fn add_filter(bubblewrap: &mut Command) -> Result<()> {
    let mut file = in_memory()?;
    file.write_all(&filter::bytes(&filter::program()?))?;
    file.rewind()?;
    bubblewrap
        .arg("--seccomp")
        .arg(file.as_raw_fd().to_string());
    // SAFETY: between fork and exec the closure makes one system call.
    unsafe { bubblewrap.pre_exec(move || keep_on_exec(file.as_raw_fd())) };
    Ok(())
}

impl Sandbox {
    /// A sandbox of bubblewrap.
    pub fn new(toolchain: &Path) -> Sandbox {
        let mut mounts = system();
        // The kernel lets root's processes change its settings, even those that have no capabilities.
        let rest = "--ro-bind-try /sys /sys --proc /proc --ro-bind-try /proc/sys /proc/sys --dev /dev --mqueue \
                    /dev/mqueue";
        mounts.extend(rest.split(' ').map(Into::into));
        for path in ["/tmp", "/dev/shm"] {
            mounts.extend(["--size", IN_MEMORY, "--tmpfs", path].map(Into::into));
        }
        let mut sandbox = Sandbox {
            kind: Kind::Bubblewrap(mounts),
            toolchain: toolchain.to_owned(),
        };
        sandbox.show(toolchain, toolchain);
        sandbox
    }

    /// The user nobody.
    ///
    /// # Errors
    /// Returns an error if this process may not become that user.
    pub fn user(toolchain: &Path) -> Result<Sandbox> {
        ensure!(
            geteuid().is_root(),
            "in a container, run this as root: the answer is graded as the user nobody"
        );
        Ok(Sandbox {
            kind: Kind::User,
            toolchain: toolchain.to_owned(),
        })
    }

    /// Makes `original` visible as `place`.
    pub fn show(&mut self, original: &Path, place: &Path) {
        self.bind("--ro-bind", original, place);
    }

    /// Makes `original` visible as `place`, where programs may write.
    pub fn share(&mut self, original: &Path, place: &Path) {
        self.bind("--bind", original, place);
    }

    fn bind(&mut self, option: &str, original: &Path, place: &Path) {
        if let Kind::Bubblewrap(mounts) = &mut self.kind {
            mounts.extend([option.into(), original.into(), place.into()]);
        }
    }

    /// The command in this sandbox: a compiler.
    ///
    /// # Errors
    /// Returns an error if there is no filter of system calls.
    pub fn compiler(&self, command: &Command) -> Result<Command> {
        // Together with the linker, it takes less than 1 GiB and a few seconds.
        const LIMITS: [(Resource, u64); 3] = [
            (Resource::RLIMIT_FSIZE, 256 << 20),
            (Resource::RLIMIT_AS, 6 << 30),
            (Resource::RLIMIT_CPU, COMPILE_SECONDS),
        ];
        self.command(command, &[], &LIMITS)
    }

    /// The command in this sandbox: a judge, which starts the answer. It is the first process there, so that no signal
    /// of the answer reaches it.
    ///
    /// # Errors
    /// Returns an error if there is no filter of system calls.
    pub fn judge(&self, command: &Command) -> Result<Command> {
        self.command(command, &["--as-pid-1"], &[])
    }

    fn command(
        &self,
        inner: &Command,
        options: &[&str],
        limits: &'static [(Resource, u64)],
    ) -> Result<Command> {
        let mut command = match &self.kind {
            Kind::Bubblewrap(mounts) => {
                let mut command = Command::new("bwrap");
                command.args(isolation()).args(options).args(mounts);
                command.args(["--remount-ro", "/dev", "--remount-ro", "/"]);
                add_filter(&mut command)?;
                if let Some(folder) = inner.get_current_dir() {
                    command.arg("--chdir").arg(folder);
                }
                // Set in the sandbox, where the limits do not count the user's other processes, including those in
                // other sandboxes. The kernel does not apply the one on processes to root.
                command.args(["--", "prlimit"]).args(PER_USER);
                command.arg(self.program(inner));
                command
            }
            Kind::User => {
                let mut command = Command::new(self.program(inner));
                command.uid(NOBODY).gid(NOBODY);
                command.current_dir(inner.get_current_dir().unwrap_or(Path::new("/")));
                command
            }
        };
        command.args(inner.get_args()).env_clear();
        for (name, value) in inner.get_envs() {
            let is_known = |known: &&str| name.as_encoded_bytes().starts_with(known.as_bytes());
            if let Some(value) = value
                && VARIABLES.iter().any(is_known)
            {
                command.env(name, value);
            }
        }
        let mut path = self.toolchain.join("bin").into_os_string();
        path.push(":/usr/local/bin:/usr/bin:/bin");
        command
            .env("PATH", path)
            .env("HOME", "/tmp")
            .env("LANG", "C.UTF-8");
        let mut common = Vec::new();
        if let Kind::User = self.kind {
            common.push((Resource::RLIMIT_NPROC, 1024));
        }
        let limit = move || {
            let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
            setrlimit(Resource::RLIMIT_NOFILE, hard.min(DESCRIPTORS), hard)?;
            // With this limit, the kernel neither writes a core file nor starts a program for one.
            let (_, hard) = getrlimit(Resource::RLIMIT_CORE)?;
            setrlimit(Resource::RLIMIT_CORE, hard.min(1), hard.min(1))?;
            for (resource, most) in common.iter().chain(limits) {
                // The first signal at the limit on processor time can be told from others, the second one cannot.
                let hard = match resource {
                    Resource::RLIMIT_CPU => most + 5,
                    _ => *most,
                };
                setrlimit(*resource, *most, hard)?;
            }
            Ok(())
        };
        // SAFETY: between fork and exec the closure makes only system calls.
        unsafe { command.pre_exec(limit) };
        if let Kind::User = self.kind {
            let filter = filter::program()?;
            // A container may not permit filters. With one, no program can become another user, either.
            let install = move || {
                let _ = seccompiler::apply_filter(&filter);
                Ok(())
            };
            // SAFETY: between fork and exec the closure makes only system calls.
            unsafe { command.pre_exec(install) };
        }
        Ok(command)
    }

    /// The program, which is the toolchain's if it has no path. rustup's `rustc` is not in the sandbox.
    fn program(&self, command: &Command) -> PathBuf {
        let program = Path::new(command.get_program());
        match program.file_name() {
            Some(name) if name == OsStr::new("rustc") => self.toolchain.join("bin/rustc"),
            _ => program.to_owned(),
        }
    }
}

/// The processor time after which the compiler is stopped.
pub const COMPILE_SECONDS: u64 = 60;

/// Watches a sandbox.
#[derive(Debug)]
pub struct Watch {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    exceeded: Arc<OnceLock<String>>,
}

/// Kills a group when the descendants of its leader are too many or too large, or when there is too much in the folder
/// `results`.
pub fn watch(group: Killer, results: Option<PathBuf>) -> Watch {
    const POLL: Duration = Duration::from_millis(200);
    let ended = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&ended);
    let exceeded = Arc::new(OnceLock::new());
    let reason = Arc::clone(&exceeded);
    let thread = thread::spawn(move || {
        while !seen.load(Ordering::SeqCst) {
            let Some(leader) = group.leader() else { return };
            let (tasks, memory) = usage(leader.as_raw());
            let too_much = if tasks > MOST_TASKS {
                Some(format!("more than {MOST_TASKS} processes and threads"))
            } else if memory > MOST_MEMORY {
                Some(format!("more than {} GiB of memory", MOST_MEMORY >> 30))
            } else if results.as_deref().map_or(0, disk) > MOST_DISK {
                Some(format!("more than {} GiB of disk", MOST_DISK >> 30))
            } else {
                None
            };
            if let Some(too_much) = too_much {
                let _ = reason.set(too_much);
                group.kill();
                return;
            }
            thread::park_timeout(POLL);
        }
    });
    Watch {
        ended,
        thread: Some(thread),
        exceeded,
    }
}

impl Watch {
    /// What was used when the group was killed: "more than 4 GiB of memory".
    pub fn exceeded(&self) -> Option<&str> {
        self.exceeded.get().map(String::as_str)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

/// The bytes of all files in the folder. One with several names may have others elsewhere.
fn disk(folder: &Path) -> u64 {
    const BLOCK: u64 = 512;
    let mut bytes = 0;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(about) if about.is_dir() => folders.push(entry.path()),
                Ok(about) => bytes += about.blocks() * BLOCK / about.nlink().max(1),
                // The compiler has removed it meanwhile.
                Err(_) => {}
            }
        }
    }
    bytes
}

/// The number of tasks of `leader` and its descendants, and the bytes that are resident in them.
fn usage(leader: i32) -> (u64, u64) {
    let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten().unwrap_or(0);
    let mut children: BTreeMap<i32, Vec<(i32, u64, u64)>> = BTreeMap::new();
    for (pid, folder) in numbered(Path::new("/proc")) {
        let Some([parent, threads, mut pages]) = stat(&folder) else {
            continue;
        };
        // When the first thread of a process has ended, only the others tell of its memory.
        if pages == 0 && threads > 1 {
            let others = numbered(&folder.join("task"));
            let others = others.filter_map(|(_, folder)| stat(&folder));
            pages = others.map(|[_, _, pages]| pages).max().unwrap_or(0);
        }
        let process = (pid, threads, pages * page as u64);
        children.entry(parent as i32).or_default().push(process);
    }
    let (mut tasks, mut memory) = (0, 0);
    let mut waiting = vec![leader];
    while let Some(parent) = waiting.pop() {
        for (pid, threads, bytes) in children.remove(&parent).unwrap_or_default() {
            waiting.push(pid);
            tasks += threads;
            memory += bytes;
        }
    }
    (tasks, memory)
}

/// The folders of processes or threads in this one, with their numbers.
fn numbered(folder: &Path) -> impl Iterator<Item = (i32, PathBuf)> + use<> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
}

/// The parent, the number of threads, and the number of resident pages.
fn stat(folder: &Path) -> Option<[u64; 3]> {
    let stat = fs::read_to_string(folder.join("stat")).ok()?;
    // The name, in parentheses, may contain spaces and parentheses.
    let (_, fields) = stat.rsplit_once(") ")?;
    // From the third field on: state ppid …, and num_threads and rss are fields 20 and 24.
    let fields: Vec<&str> = fields.split(' ').collect();
    let number = |index: usize| fields.get(index)?.parse().ok();
    Some([number(1)?, number(17)?, number(21)?])
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use nix::libc;
    use nix::sys::signal::{Signal, kill};
    use nix::sys::wait::waitpid;
    use nix::unistd::{ForkResult, fork, getpid};

    use super::*;

    #[test]
    fn memory_counts_also_without_the_first_thread() {
        const BYTES: usize = 256 << 20;
        // SAFETY: the child starts a thread and ends. No thread of this test holds a lock.
        let child = match unsafe { fork() }.expect("a process") {
            ForkResult::Parent { child } => child,
            ForkResult::Child => {
                thread::spawn(|| {
                    let _memory = std::hint::black_box(vec![1_u8; BYTES]);
                    thread::sleep(Duration::from_secs(60));
                });
                // SAFETY: the call ends this thread, which owns nothing that the other one uses.
                unsafe { libc::syscall(libc::SYS_exit, 0) };
                unreachable!("the thread has ended")
            }
        };
        let deadline = Instant::now() + Duration::from_secs(30);
        while usage(getpid().as_raw()).1 < BYTES as u64 && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
        let (_, memory) = usage(getpid().as_raw());
        kill(child, Signal::SIGKILL).expect("it runs");
        waitpid(child, None).expect("it was killed");
        assert!(memory >= BYTES as u64, "{memory}");
    }
}
