//! Reports code of the answer that runs before `main`, such as a constructor in `.init_array`, and does not get there.
//!
//! The judge begins in `main`. Without this guard, plain `cargo test` would wait for ever for a constructor that does not
//! end, and a constructor that calls exit(3) would look like a pass. The guard begins in `.preinit_array`, before the
//! constructors of the program, and ends when libc calls `main`. A process that was started as a case, or to list the
//! cases, is watched by the one that has started it.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::{transmute, zeroed};
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicUsize, Ordering::Relaxed};

use nix::errno::Errno;
use nix::libc;

use crate::child::interpose::libc_function;
use crate::child::signals;
use crate::protocol::{BEFORE_MAIN, CHECK_ANSWER, CHILD};

/// The time by the clock after which code before `main` is stopped.
const SECONDS: libc::time_t = 10;

/// The signal of the timer. Debuggers pass this one on and do not stop.
const TIMEOUT: c_int = libc::SIGALRM;

macro_rules! sentence {
    ($what:literal) => {
        concat!(
            "Could not grade: code of the answer that runs before main (.init_array) ",
            $what,
            ". Remove it.\n"
        )
    };
}

const TIME_IS_UP: &str = sentence!("had not ended after 10 s");
const EXITED: &str = sentence!("called exit");

/// The signals of a crash.
const CRASHES: [(c_int, &str); 5] = [
    (libc::SIGSEGV, sentence!("crashed (SIGSEGV)")),
    (libc::SIGBUS, sentence!("crashed (SIGBUS)")),
    (libc::SIGFPE, sentence!("crashed (SIGFPE)")),
    (libc::SIGILL, sentence!("crashed (SIGILL)")),
    (libc::SIGABRT, sentence!("panicked or aborted (SIGABRT)")),
];

/// The process that is watched; 0 if none is.
static WATCHED: AtomicI32 = AtomicI32::new(0);
static TIMER: AtomicPtr<c_void> = AtomicPtr::new(null_mut());
/// The address of `main`.
static MAIN: AtomicUsize = AtomicUsize::new(0);

/// Pointers to C strings, and null at the end.
pub(crate) type Strings = *mut *mut c_char;
/// An entry of `.preinit_array`.
pub type Entry = unsafe extern "C" fn(c_int, Strings, Strings);
type Main = unsafe extern "C" fn(c_int, Strings, Strings) -> c_int;

/// Begins the watch. ld.so calls this function with the arguments of `main`, before libc has set `environ`.
///
/// # Safety
/// `environment` is the array that the kernel passes to a program: C strings, then null.
pub unsafe extern "C" fn begin(_: c_int, _: Strings, environment: Strings) {
    // SAFETY: the caller's contract is the same.
    let is_set = |name| unsafe { value_of(environment, name) }.is_some();
    if is_set(CHILD) || is_set(CHECK_ANSWER) {
        return;
    }
    for (signal, _) in CRASHES {
        handle(signal, crashed, libc::SA_RESETHAND);
    }
    handle(TIMEOUT, time_is_up, libc::SA_RESTART);
    start_timer();
    // SAFETY: the function is never unloaded.
    unsafe { libc::atexit(exited) };
    // SAFETY: the call takes nothing.
    WATCHED.store(unsafe { libc::getpid() }, Relaxed);
}

/// Ends the watch, and leaves nothing of it behind that the answer could find.
pub fn end() {
    if WATCHED.swap(0, Relaxed) == 0 {
        return;
    }
    // SAFETY: `begin` has created the timer, or the id is that of no timer. A forked child does not inherit it.
    unsafe { libc::timer_delete(TIMER.load(Relaxed)) };
    for (signal, _) in CRASHES {
        restore(signal, crashed);
    }
    restore(TIMEOUT, time_is_up);
}

/// Overrides the function of libc that calls the constructors, and then `main`.
///
/// # Safety
/// Only the program's entry point calls it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __libc_start_main(
    main: Main,
    count: c_int,
    arguments: Strings,
    init: *const c_void,
    fini: *const c_void,
    loader_fini: *const c_void,
    stack_end: *mut c_void,
) -> c_int {
    type Start = unsafe extern "C" fn(
        Main,
        c_int,
        Strings,
        *const c_void,
        *const c_void,
        *const c_void,
        *mut c_void,
    ) -> c_int;
    static START: AtomicUsize = AtomicUsize::new(0);
    MAIN.store(main as usize, Relaxed);
    let start = libc_function(&START, c"__libc_start_main");
    // SAFETY: libc defines the function with this type; dlsym finds it, because this process is linked with libc.
    let start: Start = unsafe { transmute(start) };
    // SAFETY: the caller's contract is the same.
    unsafe {
        start(
            enter_main,
            count,
            arguments,
            init,
            fini,
            loader_fini,
            stack_end,
        )
    }
}

/// Ends the watch and calls `main`, whose thread is not the one that runs the case.
unsafe extern "C" fn enter_main(count: c_int, arguments: Strings, environment: Strings) -> c_int {
    end();
    // SAFETY: libc has passed the environment of the process.
    if unsafe { value_of(environment, CHILD) }.is_some() {
        signals::block();
    }
    // SAFETY: `__libc_start_main` has stored the address of a function of this type.
    let main: Main = unsafe { transmute(MAIN.load(Relaxed)) };
    // SAFETY: libc has passed these arguments for `main`.
    unsafe { main(count, arguments, environment) }
}

/// Overrides libc's `_exit`, which runs no exit handler.
#[unsafe(no_mangle)]
pub extern "C" fn _exit(status: c_int) -> ! {
    exited();
    loop {
        // SAFETY: the call takes a number, and ends the process.
        unsafe { libc::syscall(libc::SYS_exit_group, libc::c_long::from(status)) };
    }
}

/// Whether the calling process is watched, and not a child that code before `main` has forked.
fn is_watched() -> bool {
    let watched = WATCHED.load(Relaxed);
    // SAFETY: the call takes nothing.
    watched != 0 && watched == unsafe { libc::getpid() }
}

/// The exit handler.
extern "C" fn exited() {
    if is_watched() {
        could_not_grade(EXITED);
    }
}

/// The handler of the timer's signal.
extern "C" fn time_is_up(_: c_int) {
    let errno = Errno::last_raw();
    // A debugger may have stopped the process at a breakpoint.
    if is_watched() && !is_traced() {
        could_not_grade(TIME_IS_UP);
    }
    Errno::set_raw(errno);
}

/// The handler of the signals of a crash. The signal then kills the process, as it would have without a handler.
extern "C" fn crashed(signal: c_int) {
    let crash = CRASHES.iter().find(|(number, _)| *number == signal);
    if let Some((_, sentence)) = crash
        && is_watched()
    {
        print(sentence);
    }
    // SAFETY: the call takes a number. The kernel has reset the signal's action, and blocks it until this handler returns.
    unsafe { libc::raise(signal) };
}

/// Prints the sentence and ends the process. Code of the answer may have been interrupted anywhere, so this makes only
/// system calls.
fn could_not_grade(sentence: &str) {
    print(sentence);
    // The watch ends, so `_exit` does not report itself.
    WATCHED.store(0, Relaxed);
    _exit(BEFORE_MAIN);
}

fn print(sentence: &str) {
    // SAFETY: the pointer and the length describe `sentence`.
    unsafe {
        libc::write(
            libc::STDERR_FILENO,
            sentence.as_ptr().cast(),
            sentence.len(),
        )
    };
}

/// Whether a debugger or strace(1) traces this process. Makes only system calls.
fn is_traced() -> bool {
    const FIELD: &[u8] = b"TracerPid:\t";
    let mut status = [0; 1024];
    // SAFETY: the path is a C string.
    let fd = unsafe {
        libc::open(
            c"/proc/self/status".as_ptr(),
            libc::O_RDONLY | libc::O_CLOEXEC,
        )
    };
    // SAFETY: the pointer and the length describe `status`. The call fails if `fd` is not open.
    unsafe { libc::read(fd, status.as_mut_ptr().cast(), status.len()) };
    // SAFETY: the call fails if `fd` is not open.
    unsafe { libc::close(fd) };
    let field = status
        .windows(FIELD.len() + 1)
        .find(|bytes| bytes.starts_with(FIELD));
    field.is_some_and(|bytes| !bytes.ends_with(b"0"))
}

/// The value of the variable `name` in `environment`.
///
/// # Safety
/// As for `begin`.
pub(crate) unsafe fn value_of(mut environment: Strings, name: &str) -> Option<*mut c_char> {
    loop {
        // SAFETY: the array ends with null, where the loop ends as well.
        let variable = unsafe { environment.read() };
        if variable.is_null() {
            return None;
        }
        // SAFETY: the elements are C strings.
        let bytes = unsafe { CStr::from_ptr(variable) }.to_bytes();
        let value = bytes.strip_prefix(name.as_bytes());
        if value.is_some_and(|value| value.starts_with(b"=")) {
            // SAFETY: the name and the sign are part of the string.
            return Some(unsafe { variable.add(name.len() + 1) });
        }
        // SAFETY: this element was not the last one.
        environment = unsafe { environment.add(1) };
    }
}

fn start_timer() {
    let limit = libc::timespec {
        tv_sec: SECONDS,
        tv_nsec: 0,
    };
    // It goes on, because a debugger may have to let the first signals pass.
    let limit = libc::itimerspec {
        it_interval: limit,
        it_value: limit,
    };
    // SAFETY: the structure consists of numbers and pointers, which may be null.
    let mut event: libc::sigevent = unsafe { zeroed() };
    event.sigev_notify = libc::SIGEV_SIGNAL;
    event.sigev_signo = TIMEOUT;
    let mut timer = null_mut();
    // SAFETY: both pointers are valid, and the handler of the signal is installed.
    let created = unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut timer) };
    if created == 0 {
        TIMER.store(timer, Relaxed);
        // SAFETY: the timer exists, and `limit` is valid.
        unsafe { libc::timer_settime(timer, 0, &limit, null_mut()) };
    }
}

type Handler = extern "C" fn(c_int);

/// The action of `signal`.
fn action(signal: c_int) -> libc::sigaction {
    // SAFETY: the structure consists of numbers and pointers, which may be null.
    let mut action: libc::sigaction = unsafe { zeroed() };
    // SAFETY: with a null action the call only stores the present one.
    unsafe { libc::sigaction(signal, null(), &mut action) };
    action
}

/// Installs `handler` for `signal` if the action is the default one.
fn handle(signal: c_int, handler: Handler, flags: c_int) {
    let mut new = action(signal);
    if new.sa_sigaction == libc::SIG_DFL {
        new.sa_sigaction = handler as usize;
        new.sa_flags = flags;
        // SAFETY: `handler` only calls async-signal-safe functions.
        unsafe { libc::sigaction(signal, &new, null_mut()) };
    }
}

/// Restores the default action if `handler` is still installed.
fn restore(signal: c_int, handler: Handler) {
    let mut new = action(signal);
    if new.sa_sigaction == handler as usize {
        new.sa_sigaction = libc::SIG_DFL;
        new.sa_flags = 0;
        // SAFETY: the default action has no code.
        unsafe { libc::sigaction(signal, &new, null_mut()) };
    }
}
