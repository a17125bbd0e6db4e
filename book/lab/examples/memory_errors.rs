//! What the kernel and glibc report about memory errors without any tool. A child makes each error.
//!
//! With the name of an error as its argument, the program makes that error itself, for a debugger.

use std::fs::File;
use std::hint::black_box;
use std::io::Read;
use std::ptr;

use lab::sharing::Child;
use nix::libc;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::wait::WaitStatus;
use nix::unistd::{dup2_stderr, pipe};

/// Makes one error in this process.
type Error = fn();

// ANCHOR: main
const ERRORS: [(&str, Error); 11] = [
    ("read at address 0", || read(ptr::null())),
    ("write to constant data", || {
        write(b"text".as_ptr().cast_mut())
    }),
    ("read after munmap", || read(unmapped())),
    ("endless recursion", || recurse(1)),
    ("free twice", || {
        let block = allocate(24);
        free(block);
        free(block);
    }),
    ("free an inner address", || {
        let block = allocate(24);
        fill(block, 24);
        free(block.wrapping_add(8));
    }),
    ("write 8 bytes too many", || {
        let [block, next] = neighbours();
        fill(block, 24 + 8);
        free(block);
        free(next);
    }),
    ("write 1 byte too many", || {
        let [block, next] = neighbours();
        fill(block, 24 + 1);
        free(block);
        free(next);
    }),
    ("read after free", || {
        let block = allocate(24);
        free(block);
        read(block);
    }),
    ("read uninitialised memory", || {
        let block = allocate(24);
        read(block);
        free(block);
    }),
    ("lose a block", || _ = allocate(24)),
];
// ANCHOR_END: main

fn allocate(len: usize) -> *mut u8 {
    // SAFETY: malloc accepts any length.
    black_box(unsafe { libc::malloc(black_box(len)) }).cast()
}

/// Returns two blocks of 24 bytes, which are adjacent in glibc's heap: their chunks have 32 bytes.
fn neighbours() -> [*mut u8; 2] {
    let mut blocks = [allocate(24), allocate(24)];
    for _ in 0..16 {
        if blocks[1] == blocks[0].wrapping_add(32) {
            break;
        }
        blocks = [blocks[1], allocate(24)];
    }
    blocks
}

// The next three functions are unsound on purpose: some callers pass a wrong address, which is the error that the
// program shows. Anywhere else they would have to be `unsafe fn`.

fn free(block: *mut u8) {
    // SAFETY: none, see above.
    unsafe { libc::free(black_box(block).cast()) };
}

fn read(byte: *const u8) {
    // SAFETY: none, see above.
    black_box(unsafe { lab::read(black_box(byte)) });
}

fn write(byte: *mut u8) {
    // SAFETY: none, see above.
    unsafe { lab::write(black_box(byte), b'A') };
}

fn fill(block: *mut u8, len: usize) {
    (0..len).for_each(|at| write(block.wrapping_add(at)));
}

fn unmapped() -> *const u8 {
    let page = lab::map_private(1).as_ptr();
    // SAFETY: nothing uses the page but the read that is the error.
    assert_eq!(unsafe { libc::munmap(page.cast(), lab::page_size()) }, 0);
    page
}

fn recurse(depth: u64) {
    let frame = black_box([depth; 128]);
    if black_box(true) {
        recurse(depth + 1);
    }
    black_box(frame);
}

const SEGV_MAPERR: i32 = 1;
const SEGV_ACCERR: i32 = 2;

/// Prints the reason for a SIGSEGV.
extern "C" fn print_code(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid siginfo_t.
    let text: &[u8] = match unsafe { (*info).si_code } {
        SEGV_MAPERR => b"SEGV_MAPERR\n",
        SEGV_ACCERR => b"SEGV_ACCERR\n",
        _ => b"another si_code\n",
    };
    // SAFETY: the buffer is valid, and write(2) is async-signal-safe.
    unsafe { libc::write(2, text.as_ptr().cast(), text.len()) };
}

/// Lets a child make an error. Returns the signal that killed it, and the last line that it printed.
fn outcome(error: Error) -> (Option<Signal>, String) {
    let (reader, writer) = pipe().expect("pipe");
    let child = Child::start(|| {
        dup2_stderr(&writer).expect("dup2");
        setrlimit(Resource::RLIMIT_STACK, 1 << 20, 1 << 20).expect("RLIMIT_STACK");
        // After the handler the access is repeated, and kills the child: SA_RESETHAND.
        let flags = SaFlags::SA_SIGINFO | SaFlags::SA_RESETHAND | SaFlags::SA_ONSTACK;
        let action = SigAction::new(SigHandler::SigAction(print_code), flags, SigSet::empty());
        // SAFETY: the handler only makes calls that are async-signal-safe.
        unsafe { sigaction(Signal::SIGSEGV, &action) }.expect("sigaction");
        error();
        0
    });
    drop(writer);
    let mut printed = String::new();
    File::from(reader)
        .read_to_string(&mut printed)
        .expect("read");
    let signal = match child.wait() {
        WaitStatus::Exited(_, 0) => None,
        WaitStatus::Signaled(_, signal, _) => Some(signal),
        other => panic!("unexpected wait status: {other:?}"),
    };
    (
        signal,
        printed.lines().last().unwrap_or_default().to_owned(),
    )
}

fn main() {
    if !cfg!(target_env = "gnu") {
        println!("this program shows the messages of glibc's malloc");
        std::process::exit(77);
    }
    if let Some(name) = std::env::args().nth(1) {
        let found = ERRORS.iter().find(|(known, _)| *known == name);
        let (_, error) = found.expect("the name of an error");
        return error();
    }
    for (index, (name, error)) in ERRORS.into_iter().enumerate() {
        let (signal, message) = outcome(error);
        match signal {
            Some(signal) => println!("{name:26} {signal}: {message}"),
            None => println!("{name:26} exit status 0{message}"),
        }
        let expected = match index {
            ..4 => Some(Signal::SIGSEGV),
            4..7 => Some(Signal::SIGABRT),
            7.. => None,
        };
        assert_eq!(signal, expected, "{name}");
    }
}
