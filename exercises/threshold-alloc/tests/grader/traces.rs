//! Random sequences of calls, compared with a model of the allocator.
//!
//! The traces run in a forked child, which records each call in shared memory. So a failing trace can be shortened and
//! shown even if it has killed its process, or if a call does not return.

use std::alloc::GlobalAlloc;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use super::*;

/// One call of a trace, to the first or to the second of two allocators.
#[derive(Debug, Clone, Copy)]
struct Call {
    /// The call's position in the whole trace. It also names the block that the call allocates.
    id: usize,
    second: bool,
    what: What,
}

#[derive(Debug, Clone, Copy)]
enum What {
    Alloc {
        size: usize,
        align: usize,
    },
    Zeroed {
        size: usize,
        align: usize,
    },
    /// Resizes the block of the call `id`, if it is live.
    Realloc {
        id: usize,
        size: usize,
    },
    /// Frees the block of the call with this id, if it is live.
    Free(usize),
    /// Frees the block of the call with this id twice in a row, in a child that must abort, if it is live in the heap.
    FreeTwice(usize),
    Threshold(usize),
    MaxMaps(usize),
    Moving(bool),
    Trim,
}

/// The functions through which a trace uses the allocator.
#[derive(Clone, Copy, PartialEq)]
pub enum Interface {
    Methods,
    Trait,
    C,
}

/// Which calls a trace may contain, and how the allocators are configured.
#[derive(Clone, Copy)]
pub struct Kind {
    pub interface: Interface,
    /// Whether blocks may be larger than the threshold.
    pub large: bool,
    /// Whether the trace changes and checks settings.
    pub settings: bool,
    pub realloc: bool,
    pub trim: bool,
    /// Whether the trace turns the dynamic threshold on and off.
    pub moving: bool,
    /// Whether some blocks are so large that `dealloc` returns memory to the kernel.
    pub huge: bool,
    /// Bytes of the thread cache.
    pub cache: usize,
    pub config: Config,
    pub traces: usize,
    /// The most calls of a trace.
    pub calls: usize,
}

pub const SMALL: Kind = Kind {
    interface: Interface::Methods,
    large: false,
    settings: false,
    realloc: false,
    trim: false,
    moving: false,
    huge: false,
    cache: 0,
    config: SHORT,
    traces: 80,
    // A new trace costs more than a longer one, because each reserves two heaps.
    calls: 120,
};
/// Long traces, with many live blocks.
pub const LONG: Kind = Kind {
    traces: 3,
    calls: 6000,
    ..SMALL
};

pub const ALL: Kind = Kind {
    large: true,
    settings: true,
    traces: 30,
    ..SMALL
};
/// The heap is soon full.
pub const FULL: Kind = Kind {
    config: Config {
        reserve: 320 * KIB,
        ..SHORT
    },
    ..ALL
};

pub const TRIM: Kind = Kind {
    trim: true,
    traces: 50,
    ..SMALL
};
/// Every block is in the heap.
pub const TRIM_HUGE: Kind = Kind {
    huge: true,
    config: Config {
        threshold: usize::MAX,
        ..SHORT
    },
    traces: 20,
    ..TRIM
};
pub const RESIZE: Kind = Kind {
    realloc: true,
    ..ALL
};
pub const RESIZE_FULL: Kind = Kind {
    realloc: true,
    ..FULL
};
pub const LONG_RESIZE: Kind = Kind {
    realloc: true,
    traces: 2,
    calls: 3000,
    ..LONG
};
/// The trait has `realloc` and `alloc_zeroed` even if the answer does not write them.
pub const TRAIT: Kind = Kind {
    interface: Interface::Trait,
    ..RESIZE
};
/// A header changes which blocks are large, so these traces do not check where a block is. With a cap of 1, many large
/// blocks are in the heap.
pub const C: Kind = Kind {
    interface: Interface::C,
    settings: false,
    config: Config {
        max_maps: 1,
        ..SHORT
    },
    ..RESIZE
};
pub const MOVING: Kind = Kind {
    moving: true,
    ..ALL
};
pub const CACHE: Kind = Kind {
    cache: 2000,
    traces: 40,
    ..SMALL
};
/// Small blocks may be mapped, too: with a low threshold, or because the heap is full.
pub const CACHE_SETTINGS: Kind = Kind {
    cache: 2000,
    traces: 20,
    ..ALL
};
pub const CACHE_FULL: Kind = Kind {
    cache: 2000,
    traces: 20,
    ..FULL
};

/// The most live blocks of an allocator.
const MOST: usize = 200;

/// Returns whether `call` returns. Otherwise its stage is not written yet.
pub fn is_written(call: impl FnOnce()) -> bool {
    let pid = fork_child(|| {
        std::panic::set_hook(Box::new(|_| ()));
        call();
    });
    matches!(waitpid(pid, None), Ok(WaitStatus::Exited(_, 0)))
}

/// Whether `trim` is written.
pub fn trims() -> bool {
    is_written(|| ALLOC.trim())
}

/// Whether `alloc_zeroed` and `realloc` are written.
pub fn resizes() -> bool {
    let layout = layout(100, ALIGN);
    is_written(|| {
        // SAFETY: the size is not 0.
        let block = unsafe { ALLOC.alloc_zeroed(layout) };
        // SAFETY: the block is live, and the new size is not 0.
        unsafe { ALLOC.realloc(block, layout, 200) };
    })
}

impl Kind {
    /// Adds the calls of those earlier bonus stages that are written.
    pub fn with_earlier_stages(self) -> Kind {
        // With a dynamic threshold, the task leaves open whether `realloc` moves it.
        Kind {
            trim: self.trim || trims(),
            realloc: self.realloc || !self.moving && resizes(),
            ..self
        }
    }

    fn trace(self, number: usize) -> Vec<Call> {
        let random = &mut Random(49 + number as u64);
        random.below(2); // The first numbers of similar seeds are similar.
        let calls = 10 + random.below(self.calls - 10);
        // Some traces use few sizes, so that blocks are reused often.
        let few = random.below(2) == 0;
        let mut live: [Vec<usize>; 2] = Default::default();
        let call = |id| {
            let second = random.below(6) == 0;
            let live = &mut live[usize::from(second)];
            let what = self.call(random, few, live);
            if let What::Alloc { .. } | What::Zeroed { .. } = what {
                live.push(id);
            }
            Call { id, second, what }
        };
        let mut calls: Vec<_> = (0..calls).map(call).collect();
        // C's `free` need not detect that: it looks for the size in memory that is free.
        if self.interface != Interface::C {
            self.free_twice(number, &mut calls);
        }
        calls
    }

    /// Inserts double frees, each before a call that frees the same block, and one at the end. They take their own
    /// random numbers.
    fn free_twice(self, number: usize, calls: &mut Vec<Call>) {
        let random = &mut Random(7 + number as u64);
        for _ in 0..2 {
            let free = |call: &Call| matches!(call.what, What::Free(_));
            let frees: Vec<_> = (0..calls.len()).filter(|at| free(&calls[*at])).collect();
            if frees.is_empty() {
                continue;
            }
            let at = frees[random.below(frees.len())];
            if let Call {
                second,
                what: What::Free(id),
                ..
            } = calls[at]
            {
                let (new, what) = (usize::MAX, What::FreeTwice(id));
                calls.insert(
                    at,
                    Call {
                        id: new,
                        second,
                        what,
                    },
                );
            }
        }
        let last = calls
            .iter()
            .rfind(|call| matches!(call.what, What::Alloc { .. }));
        if let Some(&Call { id, second, .. }) = last {
            let (new, what) = (usize::MAX, What::FreeTwice(id));
            calls.push(Call {
                id: new,
                second,
                what,
            });
        }
    }

    fn call(self, random: &mut Random, few: bool, live: &mut Vec<usize>) -> What {
        match random.below(16) {
            0 if self.settings => match random.below(6) {
                0 => What::Threshold(usize::MAX),
                number => What::Threshold([0, 1, 1000, 64 * KIB, THRESHOLD][number - 1]),
            },
            1 if self.settings => What::MaxMaps([0, 1, 2, 3, usize::MAX][random.below(5)]),
            2 if self.trim => What::Trim,
            3 if self.moving => What::Moving(random.below(3) > 0),
            2..4 if self.realloc && !live.is_empty() => What::Realloc {
                id: live[random.below(live.len())],
                size: self.size(random, few),
            },
            4 if self.realloc => What::Zeroed {
                size: self.size(random, few),
                // C has no function that clears and aligns.
                align: match self.interface {
                    Interface::C => ALIGN,
                    _ => align(random),
                },
            },
            5..10 if !live.is_empty() => What::Free(live.swap_remove(random.below(live.len()))),
            _ if live.len() >= MOST => What::Free(live.swap_remove(random.below(live.len()))),
            _ => What::Alloc {
                size: self.size(random, few),
                align: match self.interface {
                    Interface::C => align(random).max(ALIGN),
                    _ => align(random),
                },
            },
        }
    }

    fn size(self, random: &mut Random, few: bool) -> usize {
        const FEW: [usize; 8] = [1, 8, 24, 40, 100, 129, 1000, 4000];
        match random.below(if self.large || self.huge { 8 } else { 7 }) {
            7 if self.huge => 300 * KIB + random.below(1300 * KIB),
            7 => [
                THRESHOLD - 1,
                THRESHOLD,
                THRESHOLD + 1,
                THRESHOLD + random.below(200 * KIB),
            ][random.below(4)],
            6 => 1 + random.below(20 * KIB),
            // Sizes that differ little may share a free list.
            _ if few => FEW[random.below(FEW.len())] + random.below(2) * random.below(17),
            0..2 => 1 + random.below(16),
            2..4 => 1 + random.below(300),
            _ => 1 + random.below(4000),
        }
    }
}

fn align(random: &mut Random) -> usize {
    match random.below(8) {
        0 => 1 << random.below(15),
        1..3 => 1 << random.below(7),
        _ => ALIGN,
    }
}

/// Where a call of a trace is.
#[derive(Clone, Copy, PartialEq)]
#[repr(usize)]
enum Phase {
    Calling = 1,
    Writing,
    Checking,
    Done,
}

/// What the child reports, in memory that it shares with the case.
#[repr(C)]
struct Report {
    /// The number of the current trace, and the number of its calls so far.
    trace: usize,
    calls: usize,
    phase: usize,
    /// The sentence on what is wrong.
    len: usize,
    sentence: [u8; 600],
}

/// The report of the child that runs. It is shared memory, which the case accesses only when there is no child.
#[derive(Clone, Copy)]
struct Shared(*mut Report);

// SAFETY: the pointer is valid in every thread.
unsafe impl Send for Shared {}
// SAFETY: the case and the child do not access the report at the same time.
unsafe impl Sync for Shared {}

impl Shared {
    fn new() -> Shared {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        let len = size_of::<Report>();
        // SAFETY: without MAP_FIXED, mmap replaces no mapping.
        let start = unsafe { libc::mmap(null_mut(), len, protection, flags, -1, 0) };
        assert_ne!(start, libc::MAP_FAILED, "no shared memory for the report");
        Shared(start.cast())
    }

    fn with<R>(self, f: impl FnOnce(&mut Report) -> R) -> R {
        // SAFETY: the mapping is as long as a report, its zeros are one, and this is the only reference to it.
        f(unsafe { &mut *self.0 })
    }

    fn fail(self, sentence: &str) {
        self.with(|report| {
            report.len = sentence.floor_char_boundary(report.sentence.len());
            report.sentence[..report.len].copy_from_slice(&sentence.as_bytes()[..report.len]);
        });
    }
}

/// How a trace failed.
struct Failure {
    /// Whether a call did not return.
    hangs: bool,
    trace: usize,
    /// How many calls were begun.
    calls: usize,
    sentence: String,
}

/// A call that uses the processor for this long does not return, nor does one that waits for three times as long.
pub const LIMIT: Duration = Duration::from_secs(1);

/// The limit while a trace is shortened in which a call does not return.
const SHORT_LIMIT: Duration = Duration::from_millis(30);

/// Seconds of CPU time for all traces of a kind. A slow processor takes several for them, and `expect_progress` detects a
/// call that does not return.
const CPU_SECONDS: libc::rlim_t = 40;

/// The limits of a case that runs traces: a busy machine may take long to find out that a call does not return.
pub fn limits() -> Limits {
    Limits {
        wall: Duration::from_secs(60),
        ..Limits::default()
    }
}

/// Runs the traces of this kind, each with two new allocators. Fails the case with a short trace that fails.
pub fn run(kind: Kind) {
    let shared = Shared::new();
    let all = |shared| {
        (0..kind.traces).try_for_each(|number| run_trace(kind, number, &kind.trace(number), shared))
    };
    let Some(failure) = in_forked_child(shared, LIMIT, &all) else {
        return;
    };
    let mut calls = kind.trace(failure.trace);
    calls.truncate(failure.calls);
    let (calls, sentence) = shorten(kind, shared, calls, failure);
    let what = match calls.iter().any(|call| call.second) {
        true => "The calls of two allocators",
        false => "The calls",
    };
    let through = match kind.interface {
        Interface::Trait => ", through GlobalAlloc",
        _ => "",
    };
    let calls = list(kind.interface, &calls);
    judge::fail(format!("{sentence} {what}{through}: {calls}."));
}

/// Leaves out calls for as long as the trace still fails.
fn shorten(kind: Kind, shared: Shared, whole: Vec<Call>, failure: Failure) -> (Vec<Call>, String) {
    let Failure {
        hangs, sentence, ..
    } = failure;
    let time = if hangs { SHORT_LIMIT } else { LIMIT };
    let fails = |calls: &[Call], time| {
        let one = |shared| run_trace(kind, 0, calls, shared);
        in_forked_child(shared, time, &one).filter(|failure| failure.hangs == hangs)
    };
    let (mut calls, mut shorter) = (whole.clone(), sentence.clone());
    let (mut attempts, mut failures) = (150, 20);
    let mut chunk = calls.len().div_ceil(2);
    while chunk > 0 {
        let mut start = 0;
        while start < calls.len() && attempts > 0 && (failures > 0 || !hangs) {
            attempts -= 1;
            let mut fewer = calls.clone();
            fewer.drain(start..(start + chunk).min(calls.len()));
            match fails(&fewer, time) {
                Some(failure) => {
                    failures -= 1;
                    fewer.truncate(failure.calls);
                    (calls, shorter) = (fewer, failure.sentence);
                }
                None => start += chunk,
            }
        }
        chunk /= 2;
    }
    // One allocator is easier to follow than two.
    let mut one = calls.clone();
    for call in &mut one {
        call.second = false;
    }
    if let Some(failure) = fails(&one, time) {
        (calls, shorter) = (one, failure.sentence);
    }
    // With the short limit, a call that is only slow may have been taken for one that does not return.
    match hangs && fails(&calls, LIMIT).is_none() {
        true => (whole, sentence),
        false => (calls, shorter),
    }
}

/// The exit statuses of a child in which a call did not return: it used the processor, or it waited.
const LOOPS: i32 = 4;
const WAITS: i32 = 5;

/// Ends this process if a call does not return. Runs as the handler of SIGALRM, each time the limit has passed.
///
/// A busy machine may stop the process for longer than that, so a call that uses the processor is judged by its CPU time.
extern "C" fn expect_progress(_: libc::c_int) {
    /// The call that was running the last time.
    static CALL: AtomicUsize = AtomicUsize::new(usize::MAX);
    /// The CPU time in milliseconds when that call was seen first, and how many times it was seen since.
    static CPU: AtomicUsize = AtomicUsize::new(0);
    static TIMES: AtomicUsize = AtomicUsize::new(0);
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` outlives the call, which is async-signal-safe.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    let cpu = time.tv_sec as usize * 1000 + time.tv_nsec as usize / 1_000_000;
    let call = PROGRESS.load(Relaxed);
    if CALL.swap(call, Relaxed) != call {
        CPU.store(cpu, Relaxed);
        TIMES.store(0, Relaxed);
        return;
    }
    let times = TIMES.fetch_add(1, Relaxed) + 1;
    let used = cpu - CPU.load(Relaxed);
    if used >= LIMIT_IN_MS.load(Relaxed) {
        exit_now(LOOPS);
    }
    if times >= 3 && used < 5 {
        exit_now(WAITS);
    }
}

/// The limit of this process, for the handler.
static LIMIT_IN_MS: AtomicUsize = AtomicUsize::new(0);

/// Changes with each call of a trace.
static PROGRESS: AtomicUsize = AtomicUsize::new(0);

/// Records that the calls so far have returned.
pub fn progress() {
    PROGRESS.fetch_add(1, Relaxed);
}

/// Calls `expect_progress` each time this time has passed: in a child, whose parent finds out with `hangs`.
pub fn expect_progress_every(time: Duration) {
    LIMIT_IN_MS.store(time.as_millis() as usize, Relaxed);
    let handler = expect_progress as extern "C" fn(libc::c_int);
    // SAFETY: the handler calls only async-signal-safe functions.
    unsafe { libc::signal(libc::SIGALRM, handler as libc::sighandler_t) };
    let time = libc::timeval {
        tv_sec: time.as_secs() as libc::time_t,
        tv_usec: time.subsec_micros() as libc::suseconds_t,
    };
    let timer = libc::itimerval {
        it_interval: time,
        it_value: time,
    };
    // SAFETY: `timer` outlives the call.
    unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, null_mut()) };
}

/// Whether a child ended because a call did not return.
pub fn hangs(status: WaitStatus) -> bool {
    matches!(
        status,
        WaitStatus::Exited(_, LOOPS | WAITS) | WaitStatus::Signaled(_, Signal::SIGXCPU, _)
    )
}

/// Runs `f` in a forked child. Returns how it failed.
fn in_forked_child(
    shared: Shared,
    time: Duration,
    f: &dyn Fn(Shared) -> Result<(), String>,
) -> Option<Failure> {
    shared.with(|report| (report.len, report.phase) = (0, Phase::Done as usize));
    let pid = fork_limited(CPU_SECONDS, || {
        expect_progress_every(time);
        std::panic::set_hook(Box::new(move |panic| {
            let text = panic.payload_as_str().unwrap_or("(no message)");
            let at = panic
                .location()
                .map(|at| format!("{}:{}", at.file(), at.line()));
            shared.fail(&format!(
                "The code panicked at {}: {text}.",
                at.unwrap_or_default()
            ));
        }));
        if let Err(sentence) = f(shared) {
            shared.fail(&sentence);
            exit_now(PANICKED);
        }
    });
    let status = waitpid(pid, None);
    if let Ok(WaitStatus::Exited(_, 0)) = status {
        return None;
    }
    let (phase, text) = shared.with(|report| {
        let text = String::from_utf8_lossy(&report.sentence[..report.len]).into_owned();
        (report.phase, text)
    });
    let while_ = match phase {
        phase if phase == Phase::Calling as usize => "in the last call",
        phase if phase == Phase::Writing as usize => {
            "when the block that the last call returned was written"
        }
        phase if phase == Phase::Checking as usize => {
            "when the live blocks were read after the last call"
        }
        _ => "when all blocks were freed after the last call",
    };
    let sentence = match status {
        Ok(WaitStatus::Exited(_, LOOPS)) => format!(
            "The code used the processor and did not return {while_}. Look for a list that forms a cycle."
        ),
        Ok(WaitStatus::Exited(_, WAITS)) => format!(
            "The code waited and did not return {while_}. Look for a lock that it locks twice, or never unlocks."
        ),
        Ok(WaitStatus::Signaled(_, Signal::SIGXCPU, _)) => {
            format!(
                "The process had used {CPU_SECONDS} s of CPU time and was stopped (SIGXCPU) {while_}. Look for a list \
                 that forms a cycle, or for too much work."
            )
        }
        Ok(WaitStatus::Signaled(_, signal, _)) => {
            format!("The process was killed by {signal} {while_}.")
        }
        _ if text.is_empty() => format!("The process ended with {status:?} {while_}."),
        _ => text,
    };
    Some(shared.with(|report| Failure {
        hangs: status.is_ok_and(hangs),
        trace: report.trace,
        calls: report.calls,
        sentence,
    }))
}

/// Runs one trace, then frees every block. The error is a sentence on what is wrong.
fn run_trace(kind: Kind, number: usize, calls: &[Call], shared: Shared) -> Result<(), String> {
    if kind.cache == 0 {
        return make_calls(kind, number, calls, shared);
    }
    let in_thread = || {
        if let Err(sentence) = make_calls(kind, number, calls, shared) {
            // Not after the thread has ended: what is wrong may kill the process when the cache is emptied.
            shared.fail(&sentence);
            exit_now(PANICKED);
        }
    };
    // At its end the thread returns its cached blocks to the heap.
    std::thread::scope(|scope| join(scope.spawn(in_thread)));
    Ok(())
}

fn make_calls(kind: Kind, number: usize, calls: &[Call], shared: Shared) -> Result<(), String> {
    // The allocators are never dropped, because a thread cache may refer to them.
    let allocators: &'static [ThresholdAlloc; 2] = Box::leak(Box::new(
        [kind.config, kind.config].map(ThresholdAlloc::new),
    ));
    let mut models = allocators
        .each_ref()
        .map(|allocator| Model::new(allocator, kind));
    shared.with(|report| (report.trace, report.calls) = (number, 0));
    for (index, call) in calls.iter().enumerate() {
        progress();
        shared.with(|report| report.calls = index + 1);
        let [first, second] = &mut models;
        let (model, other) = match call.second {
            true => (second, first),
            false => (first, second),
        };
        model.make(call, other, shared)?;
        models.iter().try_for_each(Model::check)?;
    }
    shared.with(|report| report.phase = Phase::Done as usize);
    for model in &mut models {
        for block in std::mem::take(&mut model.live) {
            model.free(block, shared)?;
            progress();
            shared.with(|report| report.phase = Phase::Done as usize);
        }
        model.check()?;
        model.check_empty()?;
    }
    Ok(())
}

/// Describes the calls. Blocks are numbered in the order in which they were allocated.
fn list(interface: Interface, calls: &[Call]) -> String {
    let mut blocks = Vec::new();
    let two = calls.iter().any(|call| call.second);
    let mut describe = |call: &Call| {
        let of = match (two, call.second) {
            (false, _) => "",
            (true, false) => "one.",
            (true, true) => "two.",
        };
        let number = |id| {
            blocks
                .iter()
                .position(|block| *block == id)
                .map(|index| index + 1)
        };
        Some(match call.what {
            What::Alloc { size, align } | What::Zeroed { size, align } => {
                blocks.push(call.id);
                let zeroed = matches!(call.what, What::Zeroed { .. });
                let call = match (interface, zeroed) {
                    (Interface::C, true) => format!("calloc(1, {size})"),
                    (Interface::C, false) if align <= ALIGN => format!("malloc({size})"),
                    (Interface::C, false) => format!("aligned_alloc({align}, {size})"),
                    (_, true) => format!("alloc_zeroed({size}, align {align})"),
                    (_, false) => format!("alloc({size}, align {align})"),
                };
                format!("#{} = {of}{call}", blocks.len())
            }
            What::Realloc { id, size } => match interface {
                Interface::C => format!("{of}reallocarray(#{}, 1, {size})", number(id)?),
                _ => format!("{of}realloc(#{}, {size})", number(id)?),
            },
            What::Free(id) => match interface {
                Interface::C => format!("{of}free(#{})", number(id)?),
                _ => format!("{of}dealloc(#{})", number(id)?),
            },
            What::FreeTwice(id) => {
                let id = number(id)?;
                format!("{of}dealloc(#{id}), {of}dealloc(#{id})")
            }
            What::Threshold(bytes) => format!("{of}set_threshold({})", limit(bytes)),
            What::MaxMaps(blocks) => format!("{of}set_max_maps({})", limit(blocks)),
            What::Moving(on) => format!("{of}set_moving_threshold({on})"),
            What::Trim => format!("{of}trim()"),
        })
    };
    calls
        .iter()
        .filter_map(&mut describe)
        .collect::<Vec<_>>()
        .join(", ")
}

/// Makes the calls to one allocator and knows what it must do.
struct Model {
    allocator: &'static ThresholdAlloc,
    kind: Kind,
    threshold: usize,
    max_maps: usize,
    /// Whether the threshold is dynamic.
    moving: bool,
    live: Vec<Live>,
}

/// A live block in the model.
#[derive(Clone, Copy)]
struct Live {
    block: Block,
    /// The call that has allocated it.
    id: usize,
    /// The seed of its pattern.
    seed: usize,
    /// Whether it is a separate mapping.
    mapped: bool,
}

impl Model {
    fn new(allocator: &'static ThresholdAlloc, kind: Kind) -> Model {
        if kind.cache > 0 {
            allocator.set_thread_cache(kind.cache);
        }
        Model {
            allocator,
            kind,
            threshold: kind.config.threshold,
            max_maps: kind.config.max_maps,
            moving: false,
            live: Vec::new(),
        }
    }

    /// Makes one call. A new block is filled with the pattern of the call's id.
    fn make(&mut self, call: &Call, other: &Model, shared: Shared) -> Result<(), String> {
        let (what, seed) = (call.what, call.id);
        let phase = |phase: Phase| shared.with(|report| report.phase = phase as usize);
        phase(Phase::Calling);
        match what {
            What::Threshold(bytes) => {
                (self.threshold, self.moving) = (bytes, false);
                self.allocator.set_threshold(bytes);
            }
            What::Moving(on) => {
                self.moving = on;
                self.allocator.set_moving_threshold(on);
            }
            What::MaxMaps(blocks) => {
                self.max_maps = blocks;
                self.allocator.set_max_maps(blocks);
            }
            What::Trim => self.allocator.trim(),
            What::Alloc { size, align } | What::Zeroed { size, align } => {
                let layout = layout(size, align);
                let zeroed = matches!(what, What::Zeroed { .. });
                let (start, call) = self.call_alloc(layout, zeroed);
                if start.is_null() && self.may_be_null() {
                    return Ok(());
                }
                let block = check_block(start, layout, call)?;
                let live = self.place(block, seed, other)?;
                if self.kind.settings {
                    self.check_place(&live)?;
                }
                if zeroed && block.bytes().iter().any(|byte| *byte != 0) {
                    return Err(format!(
                        "{call} returned a block of {} in which not every byte is 0. Clear memory that was used \
                         before.",
                        amount(size)
                    ));
                }
                phase(Phase::Writing);
                block.fill(seed);
                self.live.push(live);
            }
            What::Free(id) => {
                if let Some(block) = self.take(id) {
                    self.free(block, shared)?;
                }
            }
            What::FreeTwice(id) => self.free_twice(id, shared)?,
            What::Realloc { id, size } => {
                let Some(old) = self.take(id) else {
                    return Ok(());
                };
                phase(Phase::Checking);
                old.check_bytes(old.block.size())?;
                phase(Phase::Calling);
                // C's realloc need not keep a larger alignment.
                let align = match self.kind.interface {
                    Interface::C => ALIGN,
                    _ => old.block.layout.align(),
                };
                let new = layout(size, align);
                let (start, call) = self.call_realloc(&old.block, size);
                let mapped = self.mapped_blocks() + usize::from(old.mapped);
                if start.is_null() && self.can_be_full() && mapped >= self.max_maps {
                    phase(Phase::Checking);
                    old.check_bytes(old.block.size())?;
                    self.live.push(old);
                    return Ok(());
                }
                let block = check_block(start, new, call)?;
                let live = self.place(block, id, other)?;
                let new_mapping = live.mapped && !old.mapped;
                if new_mapping && self.mapped_blocks() >= self.max_maps && !self.can_be_full() {
                    return Err(format!(
                        "realloc to {} moved a block from the heap to a mapping, although the cap was reached: mapped \
                         blocks {}, cap {}. The cap holds in realloc, too.",
                        amount(size),
                        self.mapped_blocks(),
                        limit(self.max_maps)
                    ));
                }
                phase(Phase::Checking);
                let kept = Live {
                    seed: old.seed,
                    ..live
                };
                kept.check_bytes(size.min(old.block.size()))?;
                if old.mapped && !block.overlaps(&old.block) {
                    old.check_unmapped("moved")?;
                }
                phase(Phase::Writing);
                block.fill(seed);
                self.live.push(Live { seed, ..live });
            }
        }
        phase(Phase::Checking);
        Ok(())
    }

    /// Allocates through the interface of this trace. Returns the address, and the name of the function.
    fn call_alloc(&self, layout: Layout, zeroed: bool) -> (*mut u8, &'static str) {
        let (size, align) = (layout.size(), layout.align());
        match (self.kind.interface, zeroed) {
            // SAFETY: `layout` returns no layout of size 0.
            (Interface::Methods, true) => (
                unsafe { self.allocator.alloc_zeroed(layout) },
                "alloc_zeroed",
            ),
            // SAFETY: as above.
            (Interface::Methods, false) => (unsafe { self.allocator.alloc(layout) }, "alloc"),
            // SAFETY: as above.
            (Interface::Trait, true) => (
                unsafe { GlobalAlloc::alloc_zeroed(self.allocator, layout) },
                "GlobalAlloc::alloc_zeroed",
            ),
            // SAFETY: as above.
            (Interface::Trait, false) => (
                unsafe { GlobalAlloc::alloc(self.allocator, layout) },
                "GlobalAlloc::alloc",
            ),
            (Interface::C, true) => (self.allocator.calloc(1, size), "calloc"),
            (Interface::C, false) if align <= ALIGN => (self.allocator.malloc(size), "malloc"),
            (Interface::C, false) => (self.allocator.aligned_alloc(align, size), "aligned_alloc"),
        }
    }

    /// Resizes a live block through the interface of this trace. `size` is not 0.
    fn call_realloc(&self, block: &Block, size: usize) -> (*mut u8, &'static str) {
        let Block { start, layout } = *block;
        match self.kind.interface {
            // SAFETY: the block is live, this is its layout, and the new size is not 0.
            Interface::Methods => (
                unsafe { self.allocator.realloc(start, layout, size) },
                "realloc",
            ),
            // SAFETY: as above.
            Interface::Trait => (
                unsafe { GlobalAlloc::realloc(self.allocator, start, layout, size) },
                "GlobalAlloc::realloc",
            ),
            // SAFETY: as above, and the block is from a C function.
            Interface::C => (
                unsafe { self.allocator.reallocarray(start, 1, size) },
                "reallocarray",
            ),
        }
    }

    /// Frees a block through the interface of this trace.
    fn call_free(&self, block: Block) {
        match self.kind.interface {
            Interface::Methods => free_to(self.allocator, block),
            // SAFETY: the block is live, and has this layout, unless the trace frees it twice in a child.
            Interface::Trait => unsafe {
                GlobalAlloc::dealloc(self.allocator, block.start, block.layout);
            },
            // SAFETY: the block is live, and from a C function.
            Interface::C => unsafe { self.allocator.free(block.start) },
        }
    }

    /// Takes the block of the call with this id out of the live ones.
    fn take(&mut self, id: usize) -> Option<Live> {
        let index = self.live.iter().position(|live| live.id == id)?;
        Some(self.live.swap_remove(index))
    }

    /// A full heap leaves a block to a mapping. If the cap is reached, that is left open by the task.
    fn may_be_null(&self) -> bool {
        self.can_be_full() && self.mapped_blocks() >= self.max_maps
    }

    fn can_be_full(&self) -> bool {
        self.kind.config.reserve < SHORT.reserve
    }

    /// Checks where a new block is: it overlaps no other block, and its place in the heap is below the break.
    fn place(&self, block: Block, id: usize, other: &Model) -> Result<Live, String> {
        for live in self.live.iter().chain(&other.live) {
            if block.overlaps(&live.block) {
                return Err(format!(
                    "A new block of {} overlaps a live block of {}. Blocks must not overlap.",
                    amount(block.size()),
                    amount(live.block.size())
                ));
            }
        }
        let heap = self.allocator.heap_range().unwrap_or_default();
        let mapped = !block.is_in(&heap);
        if !mapped && block.range().end > heap.end {
            return Err(format!(
                "A block of {} in the heap ends {} beyond the break. Move the break before you return a block that \
                 ends beyond it.",
                amount(block.size()),
                amount(block.range().end - heap.end)
            ));
        }
        Ok(Live {
            block,
            id,
            seed: id,
            mapped,
        })
    }

    fn check_place(&self, new: &Live) -> Result<(), String> {
        let size = amount(new.block.size());
        let large = new.block.size() >= self.threshold;
        let under_cap = self.mapped_blocks() < self.max_maps;
        match (large && under_cap, new.mapped) {
            (true, false) => Err(format!(
                "A block of {size} is in the heap. Expected a separate mapping: threshold {}, mapped blocks {}, cap {}.",
                limit(self.threshold),
                self.mapped_blocks(),
                limit(self.max_maps)
            )),
            (false, true) if !self.can_be_full() => Err(format!(
                "A block of {size} is a separate mapping. Expected it in the heap: threshold {}, mapped blocks {}, cap {}.",
                limit(self.threshold),
                self.mapped_blocks(),
                limit(self.max_maps)
            )),
            _ => Ok(()),
        }
    }

    fn free(&mut self, live: Live, shared: Shared) -> Result<(), String> {
        let phase = |phase: Phase| shared.with(|report| report.phase = phase as usize);
        let before = shared.with(|report| report.phase);
        phase(Phase::Checking);
        live.check_bytes(live.block.size())?;
        shared.with(|report| report.phase = before);
        self.call_free(live.block);
        if live.mapped {
            live.check_unmapped("freed")?;
            self.move_threshold(live.block.size())?;
        }
        Ok(())
    }

    /// Checks the threshold after a mapped block of this size was freed.
    fn move_threshold(&mut self, size: usize) -> Result<(), String> {
        if !self.moving {
            return Ok(());
        }
        let before = self.threshold;
        self.threshold = self.allocator.stats().threshold;
        // A header and the rest of a page may count.
        let just_past = size + 1..=size + (1 + MORE_PAGES) * page_size();
        match self.threshold == before {
            true if before > size => Ok(()),
            false if self.threshold > before && just_past.contains(&self.threshold) => Ok(()),
            _ => Err(format!(
                "With a dynamic threshold, a mapped block of {size} bytes was freed, and the threshold moved from {} to \
                 {}. It must move just past the block's size, and never down.",
                limit(before),
                limit(self.threshold)
            )),
        }
    }

    /// Frees the block of the call with this id twice in a row, in a child that must abort.
    fn free_twice(&self, id: usize, shared: Shared) -> Result<(), String> {
        let in_heap = |live: &&Live| live.id == id && !live.mapped;
        let Some(Live { block, .. }) = self.live.iter().find(in_heap).copied() else {
            return Ok(());
        };
        let again = |block| self.call_free(block);
        let what = format!("A block of {}", amount(block.size()));
        let result = check_abort(self.allocator, &what, || block, again);
        // The child may have panicked and reported that.
        shared.with(|report| report.len = 0);
        result
    }

    fn mapped_blocks(&self) -> usize {
        self.live.iter().filter(|block| block.mapped).count()
    }

    /// Checks that the break is above every live block. Compares `stats()` with the model, if the trace changes settings.
    fn check(&self) -> Result<(), String> {
        let heap = self.allocator.heap_range().unwrap_or_default();
        let cut = |live: &&Live| !live.mapped && live.block.range().end > heap.end;
        if let Some(Live { block, .. }) = self.live.iter().find(cut) {
            return Err(format!(
                "The last call moved the break {} below the end of a live block of {}. Keep the break above every \
                 live block: round it up to whole pages.",
                amount(block.range().end - heap.end),
                amount(block.size())
            ));
        }
        if !self.kind.settings {
            return Ok(());
        }
        let stats = self.allocator.stats();
        let mapped = self.mapped_blocks();
        if stats.mapped_blocks != mapped {
            return Err(format!(
                "stats().mapped_blocks is {}; expected {mapped}, the number of live blocks outside the heap.",
                stats.mapped_blocks
            ));
        }
        if stats.threshold != self.threshold {
            return Err(format!(
                "stats().threshold is {}; expected {}.",
                limit(stats.threshold),
                limit(self.threshold)
            ));
        }
        let blocks = self.live.iter().filter(|block| block.mapped);
        let least = blocks
            .map(|live| live.block.size().next_multiple_of(page_size()))
            .sum();
        check_mapped_bytes(stats.mapped_bytes, least, mapped)
    }

    /// Checks an allocator whose blocks are all freed.
    fn check_empty(&self) -> Result<(), String> {
        if !self.kind.trim {
            return Ok(());
        }
        self.allocator.trim();
        let left = self.allocator.heap_range().unwrap_or_default().len();
        match left <= 64 * KIB {
            true => Ok(()),
            false => Err(format!(
                "Every block was freed, and trim() left a heap of {}; expected at most 64 KiB. Join \
                 free memory at the heap's end, and move the break down to it.",
                amount(left)
            )),
        }
    }
}

/// A header or a guard page may take some pages more for each block.
const MORE_PAGES: usize = 3;

/// Compares the number of mapped bytes with that of the whole pages of all mapped blocks.
pub fn check_mapped_bytes(bytes: usize, least: usize, blocks: usize) -> Result<(), String> {
    let most = least + blocks * MORE_PAGES * page_size();
    match (least..=most).contains(&bytes) && bytes.is_multiple_of(page_size()) {
        true => Ok(()),
        false => Err(format!(
            "stats().mapped_bytes is {bytes}; expected {least}, the whole pages of all mapped blocks ({blocks})."
        )),
    }
}

/// A setting, as the sentences name it.
fn limit(value: usize) -> String {
    match value {
        usize::MAX => "usize::MAX".to_owned(),
        value => value.to_string(),
    }
}

impl Live {
    fn check_bytes(&self, bytes: usize) -> Result<(), String> {
        match self.block.prefix(bytes).changed(self.seed) {
            None => Ok(()),
            Some(change) => Err(format!("{} {OVERLAP}", self.block.describe(change))),
        }
    }

    fn check_unmapped(&self, how: &str) -> Result<(), String> {
        match self.block.mapped() {
            0 => Ok(()),
            left => Err(format!(
                "A mapped block of {} was {how}, and {} of its old pages are still mapped. Unmap all of them.",
                amount(self.block.size()),
                amount(left)
            )),
        }
    }
}
