//! A shared object for `LD_PRELOAD`. It replaces malloc(3) by the `ThresholdAlloc` of an answer.
//!
//! `interface` exports the functions of C. Each enters the answer through `guard`, which handles what an allocator in
//! Rust need not know: calls of malloc from inside malloc (`nested`), and, for an answer without the stage `global`,
//! threads and forks. An answer without the stage `c_interface` is used through `shim`.

mod answer;
mod guard;
mod interface;
mod nested;
#[cfg(not(feature = "c_interface"))]
mod shim;

use answer::{Config, ThresholdAlloc};

static ALLOC: ThresholdAlloc = ThresholdAlloc::new(Config::new());

/// Has the functions of C.
#[cfg(feature = "c_interface")]
use ALLOC as C;
#[cfg(not(feature = "c_interface"))]
static C: shim::Shim = shim::Shim;

/// As in glibc, a freed mapping raises the threshold, and threads cache small blocks.
#[used]
#[unsafe(link_section = ".init_array")]
static SETTINGS: extern "C" fn() = {
    extern "C" fn set() {
        let settings = || {
            #[cfg(feature = "moving")]
            ALLOC.set_moving_threshold(true);
            // About as much as glibc's cache.
            #[cfg(feature = "cache")]
            ALLOC.set_thread_cache(256 << 10);
        };
        guard::enter(settings, || ());
    }
    set
};
