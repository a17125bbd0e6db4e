//! Detects a grader that was built from another version of the answer.
//!
//! Cargo decides by modification time. If an older file replaces the answer, for example by `cp -p` or from a backup,
//! or if two clones share a target directory, cargo runs a grader that was built from other sources.
//!
//! `exercises/build.rs` compiles a hash of the answer's `src` into the grader. All targets of a package depend on the
//! output of its build script, so the library has been compiled from the same files.

mod hash;
pub mod source;
pub mod unchanged;

use std::path::Path;
use std::sync::OnceLock;
use std::{env, process};

use crate::protocol;
use crate::verdict::{Failure, Verdict};

static HASH: OnceLock<&str> = OnceLock::new();

/// Registers the hash of the answer. Each grader calls this once, at the top level of its `main.rs`.
#[macro_export]
macro_rules! answer {
    () => {
        const _: () = {
            extern "C" fn register() {
                $crate::answer::register(option_env!("ANSWER_HASH"));
            }
            // SAFETY: libc calls each function of this section once, before main. `register` ignores the arguments.
            #[used]
            #[unsafe(link_section = ".init_array")]
            static REGISTER: extern "C" fn() = register;
            // The linker puts the objects of the grader first, so the guard also begins before an answer's own entry.
            // SAFETY: ld.so calls each function of this section once, with the arguments of `main`.
            #[used]
            #[unsafe(link_section = ".preinit_array")]
            static GUARD: $crate::before_main::Entry = $crate::before_main::begin;
        };
    };
}

/// Called before `main`. There is no hash if the answer's package has no build script, as in the exam.
pub fn register(hash: Option<&'static str>) {
    if let Some(hash) = hash {
        let _ = HASH.set(hash);
    }
    if env::var_os(protocol::CHECK_ANSWER).is_some() && is_stale() {
        process::exit(protocol::STALE);
    }
}

/// The verdict on every case of a grader that was built from another version of the answer.
pub fn stale() -> Option<Verdict> {
    is_stale().then_some(Verdict::Failed(Failure::Stale))
}

fn is_stale() -> bool {
    // Once for each process: hashing costs as much as a trivial case.
    static STALE: OnceLock<bool> = OnceLock::new();
    *STALE.get_or_init(|| {
        // Without cargo there may be no sources, as on another machine.
        let (Some(compiled), Some(package)) = (HASH.get(), env::var_os("CARGO_MANIFEST_DIR"))
        else {
            return false;
        };
        let now = hash::hash_of(&Path::new(&package).join("src"));
        now.is_ok_and(|now| **compiled != now.to_string())
    })
}

/// Whether a function, which takes these arguments, can be called without `unsafe`.
#[macro_export]
macro_rules! is_safe_fn {
    ($function:expr, fn($($argument:ty),*) $(-> $result:ty)?) => {{
        struct Function<F>(F);
        trait Unsafe {
            fn is_safe(&self) -> bool {
                false
            }
        }
        impl<F> Unsafe for Function<F> {}
        // Only a safe function implements `Fn`, and an inherent method takes precedence over a trait's.
        #[allow(dead_code)]
        impl<F: Fn($($argument),*) $(-> $result)?> Function<F> {
            fn is_safe(&self) -> bool {
                true
            }
        }
        let function = $function;
        // Infers the generic parameters: both a safe and an unsafe function coerce to this type.
        let _: unsafe fn($($argument),*) $(-> $result)? = function;
        Function(function).is_safe()
    }};
}
