//! Code of an answer that runs before the process which forks the cases waits for its first request.

mod common {
    pub mod rerun;
}

use std::ffi::{CStr, c_char, c_int};

use common::rerun::rerun;
use judge::{Limits, observe};
use nix::libc;

// SAFETY: libc calls each function of this section once, before all others, with the arguments of `main`.
#[used]
#[unsafe(link_section = ".preinit_array")]
static FIRST: extern "C" fn(c_int, *mut *mut c_char, *mut *mut c_char) = first;

extern "C" fn first(_: c_int, _: *mut *mut c_char, mut environment: *mut *mut c_char) {
    let (mut forks_cases, mut does) = (false, None);
    // libc finds no variables yet.
    loop {
        // SAFETY: the environment is an array of pointers that ends with null.
        let variable = unsafe { environment.read() };
        if variable.is_null() {
            break;
        }
        // SAFETY: the pointer is that of a C string, which nothing changes meanwhile.
        let variable = unsafe { CStr::from_ptr(variable) }.to_bytes();
        forks_cases |= variable.starts_with(b"JUDGE_CHILD=zygote ");
        does = does.or(variable.strip_prefix(b"RERUN_FIRST="));
        // SAFETY: null comes after this one.
        environment = unsafe { environment.add(1) };
    }
    match does {
        // SAFETY: `_exit` takes any value.
        Some(b"exits") if forks_cases => unsafe { libc::_exit(0) },
        Some(b"waits") if forks_cases => loop {
            // SAFETY: the call takes nothing.
            unsafe { libc::pause() };
        },
        _ => {}
    }
}

/// Expects this sentence of a case if `first` does this.
fn expect(does: &str, expected: &str) {
    let Some(output) = rerun(|command| {
        command.env("RERUN_FIRST", does);
    }) else {
        let sentence = observe(Limits::default(), || ()).sentence();
        assert_eq!(sentence.as_deref(), Some(expected));
        return;
    };
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
}

#[test]
fn a_program_that_ends_before_it_begins_is_reported() {
    expect(
        "exits",
        "Could not grade: the program ends before it begins; code that runs before main, for example in .preinit_array, \
         may end it, or the machine has too little memory.",
    );
}

/// It takes as long as the judge waits.
#[test]
fn a_program_that_does_not_begin_is_reported() {
    expect(
        "waits",
        "Could not grade: the program has not begun within 30 s; code that runs before main, for example in \
         .preinit_array, may not end, or the machine is overloaded.",
    );
}
