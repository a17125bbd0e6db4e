//! The judge's side of the zygote, which forks the traced cases (`child::zygote`).

use std::io::{self, Read, Write};
use std::mem;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::sync::{Mutex, Once, PoisonError, mpsc};
use std::thread::{self, Builder};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::libc;
use nix::sys::ptrace;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;

use super::launch::{Ends, LaunchError, Step, command, isolate, spawn};
use super::refuse::{Refusals, Reports};
use super::rlimits::Rlimits;
use super::trace;
use crate::child::zygote::{self, Descriptors, GO, Reply, Request};
use crate::descriptors;
use crate::secret::Secret;

/// The zygote of this process. All traced cases share it.
static STATE: Mutex<State> = Mutex::new(State::NotStarted);

enum State {
    NotStarted,
    Waits(Zygote),
    PtraceRefused,
    Silent,
}

struct Zygote {
    process: Child,
    /// Where it gets its requests. It ends when this is closed.
    socket: OwnedFd,
    /// What it is sent for each case.
    request: Box<Request>,
}

/// A case that this thread traces, and that has not begun.
pub struct Started {
    pub pid: Pid,
    control: UnixStream,
}

impl Started {
    /// Lets the case begin.
    pub fn go(&self) {
        // Fails if the case was killed meanwhile, which its tracer sees.
        let _ = (&self.control).write_all(&[GO]);
    }
}

/// Lets the zygote fork `case`, and traces it.
pub fn start(case: &zygote::Case, ends: &Ends, rlimits: &Rlimits) -> Result<Started, LaunchError> {
    // One at a time, so that no case of this process waits for its tracer when another one finds that ptrace is refused.
    let mut state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
    for _ in 0..ATTEMPTS {
        let mut zygote = match mem::replace(&mut *state, State::NotStarted) {
            State::NotStarted => Zygote::start(rlimits.files)?,
            State::Waits(zygote) => zygote,
            State::PtraceRefused => {
                *state = State::PtraceRefused;
                return Err(LaunchError::PtraceRefused);
            }
            State::Silent => {
                *state = State::Silent;
                return Err(LaunchError::Other(silent()));
            }
        };
        match zygote.fork(case, ends, rlimits) {
            Ok(started) => {
                *state = State::Waits(zygote);
                return Ok(started);
            }
            Err(ForkError::Gone) => zygote.kill(),
            Err(ForkError::Silent) => {
                zygote.kill();
                // Another one would be as silent, for as long, in each of the other cases.
                *state = State::Silent;
                return Err(LaunchError::Other(silent()));
            }
            Err(ForkError::PtraceRefused) => {
                zygote.kill();
                *state = State::PtraceRefused;
                return Err(LaunchError::PtraceRefused);
            }
            Err(ForkError::Other(error)) => {
                *state = State::Waits(zygote);
                return Err(error);
            }
        }
    }
    Err(LaunchError::Other(GONE.to_owned()))
}

/// How often a zygote is started for a case. It may have been killed, for want of memory.
const ATTEMPTS: usize = 3;

/// How long a zygote may take to fork. On a busy machine that may be seconds.
const PATIENCE: Duration = Duration::from_secs(30);

fn silent() -> String {
    format!(
        "the program has not begun within {} s; code that runs before main, for example in .preinit_array, may not end, \
         or the machine is overloaded",
        PATIENCE.as_secs()
    )
}

const GONE: &str = "the program ends before it begins; code that runs before main, for example in .preinit_array, may end it, \
    or the machine has too little memory";

enum ForkError {
    /// The zygote has ended, or its child has.
    Gone,
    /// The zygote does not answer.
    Silent,
    PtraceRefused,
    Other(LaunchError),
}

impl Zygote {
    fn start(files: u64) -> Result<Zygote, LaunchError> {
        let refusals = Refusals::new()?;
        let (socket, socket_of_zygote) = pair_of_sockets()?;
        let number = socket_of_zygote.as_raw_fd();
        let mut command = command(
            &zygote::place(""),
            &zygote::waits_at(number),
            &zygote::place(""),
            true,
        );
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let before_exec = move || {
            let at = |step| move |error| (step, error);
            // A case moves its socket to a high number. It gets its own limit only after it has sent a descriptor: the
            // kernel refuses that when all processes of the user have more of them in queues than the sender's limit.
            let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(at(Step::Rlimits))?;
            setrlimit(Resource::RLIMIT_NOFILE, soft.max(files), hard).map_err(at(Step::Rlimits))?;
            isolate(files)?;
            refusals.install();
            let keep = FcntlArg::F_SETFD(FdFlag::empty());
            fcntl(&socket_of_zygote, keep).map_err(at(Step::Socket))?;
            Ok(())
        };
        // The thread that starts the zygote is its parent, and a thread that traces waits for all its children. So it is
        // a thread of its own. It never ends, because its end would kill the zygote.
        let (sender, receiver) = mpsc::channel();
        Builder::new().spawn(move || {
            let _ = sender.send(spawn(command, before_exec));
            loop {
                thread::park();
            }
        })?;
        let process = receiver.recv().map_err(io::Error::other)??;
        end_at_exit();
        let pid = Pid::from_raw(process.id() as i32);
        Ok(Zygote {
            process,
            socket,
            request: Box::new(Request::new(Reports::new(pid, true)?, Secret::new()?)),
        })
    }

    fn fork(
        &mut self,
        case: &zygote::Case,
        ends: &Ends,
        rlimits: &Rlimits,
    ) -> Result<Started, ForkError> {
        if self.request.set(case).is_none() {
            let why = format!("the name of {} is too long", case.test);
            return Err(ForkError::Other(LaunchError::Other(why)));
        }
        let (control, control_of_case) = UnixStream::pair().map_err(other)?;
        let descriptors: Descriptors = [
            ends.events.as_raw_fd(),
            ends.output.as_raw_fd(),
            ends.calls.as_raw_fd(),
            control_of_case.as_raw_fd(),
        ];
        let sent = descriptors::send(self.socket.as_raw_fd(), &*self.request, descriptors);
        drop(control_of_case);
        match sent {
            Ok(()) => {}
            Err(Errno::EPIPE | Errno::ECONNRESET) => return Err(ForkError::Gone),
            Err(error) => return Err(other(error.into())),
        }
        let mut reply = [0; size_of::<Reply>()];
        control.set_read_timeout(Some(PATIENCE)).map_err(other)?;
        match (&control).read_exact(&mut reply) {
            Ok(()) => control.set_read_timeout(None).map_err(other)?,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(ForkError::Silent);
            }
            Err(_) => return Err(ForkError::Gone),
        }
        let pid = match Reply::from_ne_bytes(reply) {
            pid @ 1.. => Pid::from_raw(pid),
            error => return Err(other(Errno::from_raw(-error).into())),
        };
        let attached = rlimits
            .apply(Some(pid))
            .map(|()| ptrace::seize(pid, trace::options()));
        match attached {
            Ok(Ok(())) => return Ok(Started { pid, control }),
            Ok(Err(Errno::ESRCH)) | Err(Errno::ESRCH) => return Err(ForkError::Gone),
            _ => {}
        }
        // The case ends when it is not let go.
        let _ = control.shutdown(Shutdown::Write);
        let _ = (&control).read(&mut reply);
        Err(match attached {
            Err(error) => other(error.into()),
            Ok(_) => ForkError::PtraceRefused,
        })
    }

    /// Kills the zygote, and waits for it.
    fn kill(mut self) {
        let _ = self.process.kill();
        self.end();
    }

    /// Ends the zygote, and waits for it.
    fn end(mut self) {
        drop(self.socket);
        let _ = self.process.wait();
    }
}

/// Ends the zygote when this process exits. Its processor time then counts as that of this process.
fn end_at_exit() {
    static REGISTERED: Once = Once::new();
    extern "C" fn end() {
        if let Ok(mut state) = STATE.try_lock()
            && let State::Waits(zygote) = mem::replace(&mut *state, State::NotStarted)
        {
            zygote.end();
        }
    }
    REGISTERED.call_once(|| {
        // SAFETY: the function does not unwind, and is never unloaded.
        unsafe { libc::atexit(end) };
    });
}

/// A pair of sockets that keep messages apart and report when the other end is closed.
fn pair_of_sockets() -> Result<(OwnedFd, OwnedFd), Errno> {
    let mut pair = [-1; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: the call writes two descriptors to `pair`.
    let result = unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, pair.as_mut_ptr()) };
    Errno::result(result)?;
    // SAFETY: the kernel has just created both descriptors, and nothing else owns them.
    Ok(unsafe { pair.map(|fd| OwnedFd::from_raw_fd(fd)) }.into())
}

fn other(error: io::Error) -> ForkError {
    ForkError::Other(error.into())
}
