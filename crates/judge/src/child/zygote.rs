//! The zygote's side of a traced case: a process of this program that waits before `main`, and forks each case.
//!
//! A start of the program costs several times as much as a fork. Most of it is the work of the dynamic linker.
//!
//! The zygote waits before the constructors of the answer (`.init_array`), so they run in each case, under its limits.
//! It has one thread and does not allocate, so no lock is held at the fork, and each case begins with an empty heap. All
//! cases of a zygote have the same addresses; no check may depend on addresses.

use std::ffi::{CStr, c_char, c_int};
use std::mem::zeroed;
use std::os::fd::RawFd;
use std::ptr::null_mut;

use nix::errno::Errno;
use nix::libc;

use super::fork::exit_now;
use crate::before_main::{Strings, value_of};
use crate::descriptors;
use crate::injection::INJECT;
use crate::protocol::CHILD;
use crate::secret::Secret;
use crate::supervise::Reports;

/// The longest text in a request, in bytes, with the null byte at its end.
const CAPACITY: usize = 1024;

/// The beginning of the zygote's value of `CHILD`. The number of its socket follows.
const WAITS: &str = "zygote ";

/// What the zygote must know of a case. It consists of numbers, so all bytes are valid.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Request {
    filters: Reports,
    secret: Secret,
    events: RawFd,
    test: Text,
    child: Text,
    injection: Text,
}

/// A text in a request, padded with null bytes.
type Text = [u8; CAPACITY];

/// A case, as the judge describes it.
pub struct Case<'a> {
    /// The number of the socket to the judge in the case.
    pub events: RawFd,
    /// libtest's first argument.
    pub test: &'a str,
    /// The value of `CHILD`.
    pub child: &'a str,
    /// The value of `INJECT`.
    pub injection: &'a str,
    pub secret: Secret,
}

impl Request {
    pub fn new(filters: Reports, secret: Secret) -> Request {
        Request {
            filters,
            secret,
            events: -1,
            test: [0; CAPACITY],
            child: [0; CAPACITY],
            injection: [0; CAPACITY],
        }
    }

    /// Makes this the request for `case`. Returns `None` if a text is too long.
    pub fn set(&mut self, case: &Case) -> Option<()> {
        self.events = case.events;
        self.secret = case.secret;
        let texts = [
            (&mut self.test, case.test),
            (&mut self.child, case.child),
            (&mut self.injection, case.injection),
        ];
        for (place, text) in texts {
            place.fill(0);
            let (_, place) = place.split_last_mut()?;
            place
                .get_mut(..text.len())?
                .copy_from_slice(text.as_bytes());
        }
        Some(())
    }
}

/// The descriptors that come with a request: the events socket, the output, the socket for the descriptor on which the judge
/// is notified, and the one for `Reply` and `GO`.
pub type Descriptors = [RawFd; 4];

/// The process id of the case, or a negated error number of fork(2).
pub type Reply = i32;

/// The byte that lets a case begin.
pub const GO: u8 = b'g';

/// An argument or a value of a variable of the zygote that each case replaces. It begins with `text`, and is as long as
/// the longest one that replaces it.
pub fn place(text: &str) -> String {
    format!("{text:<len$}", len = CAPACITY - 1)
}

/// The zygote's value of `CHILD`, if it gets its requests from `socket`.
pub fn waits_at(socket: RawFd) -> String {
    place(&format!("{WAITS}{socket}"))
}

// The lowest number, so that it comes before the constructors of the answer.
// SAFETY: libc calls each function of this section once, before `main`, with the arguments of `main`.
#[used]
#[unsafe(link_section = ".init_array.00000")]
static BEFORE_CONSTRUCTORS: unsafe extern "C" fn(c_int, Strings, Strings) = begin;

/// Waits if this process is the zygote, and returns in each case that it forks.
///
/// # Safety
/// `arguments` and `environment` are the arrays that the kernel passes to a program: C strings, then null.
unsafe extern "C" fn begin(_: c_int, arguments: Strings, environment: Strings) {
    // SAFETY: the caller's contract is the same.
    unsafe { Secret::take(environment) };
    // SAFETY: as above.
    let Some(child) = (unsafe { value_of(environment, CHILD) }) else {
        return;
    };
    // SAFETY: the value is a C string that nothing changes meanwhile.
    let value = unsafe { CStr::from_ptr(child) }.to_str().unwrap_or("");
    let Some(socket) = value.strip_prefix(WAITS) else {
        return;
    };
    // SAFETY: the zygote has an argument besides its name.
    let test = unsafe { arguments.add(1) };
    // SAFETY: as above.
    let test = unsafe { test.read() };
    // SAFETY: the caller's contract is the same.
    let injection = unsafe { value_of(environment, INJECT) };
    if let (Ok(socket), Some(injection)) = (socket.trim_end().parse(), injection) {
        let request = next_case(socket);
        request.secret.keep();
        // SAFETY: the judge has started the zygote with `place`s here, and nothing else uses them yet.
        unsafe { replace(test, &request.test) };
        // SAFETY: as above.
        unsafe { replace(child, &request.child) };
        // SAFETY: as above.
        unsafe { replace(injection, &request.injection) };
    }
}

/// Writes `text` over the string at `place`.
///
/// # Safety
/// The string is a `place` with its null byte, and nothing else uses it.
unsafe fn replace(place: *mut c_char, text: &Text) {
    // SAFETY: a place has as many bytes as a text, and is no part of one.
    unsafe { place.cast::<u8>().copy_from(text.as_ptr(), CAPACITY) };
}

/// Forks a case for each request. Returns in the case, with its request, when the judge lets it begin. The zygote ends
/// when the judge has.
fn next_case(socket: RawFd) -> Request {
    // SAFETY: a request consists of numbers.
    let mut request: Request = unsafe { zeroed() };
    // Otherwise a case could write to the memory of the zygote.
    set_dumpable(false);
    loop {
        // SAFETY: all bytes are valid for a request.
        let received = unsafe { descriptors::receive(socket, &mut request, 0) };
        // The cases whose tracers have seen their end. Their processor time then counts as that of this process.
        // SAFETY: the call takes no place for a status.
        while unsafe { libc::waitpid(-1, null_mut(), libc::WNOHANG) } > 0 {}
        let descriptors: Descriptors = match received {
            Ok(Some(descriptors)) => descriptors,
            Err(Errno::EINTR) => continue,
            Ok(None) | Err(_) => exit_now(0),
        };
        // SAFETY: this process has no other thread.
        match unsafe { libc::fork() } {
            0 => {
                close(&[socket]);
                become_case(&request, descriptors);
                return request;
            }
            -1 => reply(descriptors[3], -Errno::last_raw()),
            _ => {}
        }
        close(&descriptors);
    }
}

/// Prepares this process, which the zygote has forked, and waits until the judge lets it begin.
fn become_case(request: &Request, descriptors: Descriptors) {
    let [events, output, calls, control] = descriptors;
    // SAFETY: the path is a C string. The zygote's own standard input would be one for all cases, with its flags.
    let input = unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
    let moves = [
        (input, 0),
        (output, 1),
        (output, 2),
        (events, request.events),
    ];
    for (from, to) in moves {
        // SAFETY: nothing of this process uses the descriptor `to`.
        if unsafe { libc::dup2(from, to) } == -1 {
            exit_now(1);
        }
    }
    // In its own session the case can neither join the judge's process group nor use its terminal.
    // SAFETY: the call takes nothing.
    unsafe { libc::setsid() };
    if let Err(error) = request.filters.install(calls) {
        reply(control, -(error as Reply));
        exit_now(1);
    }
    set_dumpable(true);
    // SAFETY: the call takes nothing.
    reply(control, unsafe { libc::getpid() });
    let mut go = 0_u8;
    // SAFETY: the pointer is that of one byte.
    while unsafe { libc::read(control, (&raw mut go).cast(), 1) } == -1
        && Errno::last() == Errno::EINTR
    {}
    if go != GO {
        exit_now(0); // the judge has ended, or may not trace this process
    }
    close(&[input, events, output, calls, control]);
}

fn reply(control: RawFd, reply: Reply) {
    // SAFETY: the pointer and the length describe `reply`.
    unsafe { libc::write(control, (&raw const reply).cast(), size_of::<Reply>()) };
}

fn close(descriptors: &[RawFd]) {
    for descriptor in descriptors {
        // SAFETY: this module owns the descriptors, and does not use them any more.
        unsafe { libc::close(*descriptor) };
    }
}

fn set_dumpable(dumpable: bool) {
    let zero: libc::c_ulong = 0;
    // SAFETY: the option takes a number and touches no memory of this process.
    unsafe {
        libc::prctl(
            libc::PR_SET_DUMPABLE,
            libc::c_ulong::from(dumpable),
            zero,
            zero,
            zero,
        )
    };
}
