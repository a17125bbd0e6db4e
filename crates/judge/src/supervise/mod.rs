//! The judge's side of a case: starts the child, follows it to its end, kills what it leaves, gathers the evidence.

mod deadlock;
mod kill;
mod launch;
mod notify;
mod objects;
mod output;
mod refuse;
mod rlimits;
mod shared;
mod strays;
mod tasks;
mod trace;
mod watchdog;
mod window;
mod zygote;

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::sync::mpsc;
use std::thread::{self, Builder};

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::Signal;
use nix::unistd::gettid;

use crate::injection::Run;
use crate::limits::{LIBTEST, Limits};
use crate::procfs;
use crate::protocol::{self, CHILD, Event};
use crate::record::Record;
use crate::record::process::{FIRST, Status};
use crate::verdict::evidence::Evidence;
use crate::verdict::{Failure, Verdict};
use launch::{LaunchError, Launched, launch, tracing_forbidden};
use notify::Notified;
pub use objects::Left;
use objects::Objects;
pub use refuse::Reports;
use shared::Shared;
use tasks::Change;
pub use trace::First;
use window::Window;

/// A case that has ended.
pub struct Finished {
    pub verdict: Verdict,
    /// The last lines of its output.
    pub output: Vec<String>,
    /// The record of its calls, if it was traced.
    pub record: Option<Record>,
    /// The number of its calls in the window of injections, by name.
    pub counts: BTreeMap<String, usize>,
    /// Whether the injection of this run has taken place.
    pub injected: bool,
    /// Why a failure of the case may not be the answer's fault.
    pub shortage: Option<String>,
}

impl Finished {
    /// A case that could not be graded.
    fn failed(why: String) -> Finished {
        Finished {
            verdict: Verdict::Failed(Failure::Grader(why)),
            output: Vec::new(),
            record: None,
            counts: BTreeMap::new(),
            injected: false,
            shortage: None,
        }
    }
}

/// Why a case that failed says nothing about the answer, if the kernel has killed a process meanwhile.
const OUT_OF_MEMORY: &str = "memory ran out while the case was running, and the kernel killed a process (oom_kill in \
    /proc/vmstat): end other programs, or look for memory that the answer keeps";

/// Runs the test `test` of this binary in a child, as the case `case`.
pub fn run(test: &str, case: &str, limits: &Limits, run: Run) -> Finished {
    hide_from_child();
    procfs::watch_for_kills_for_memory();
    let traced = match tracing_forbidden() {
        true => Err(LaunchError::PtraceRefused),
        false => launch(test, case, limits, run, true),
    };
    let (mut child, traced) = match traced {
        Ok(child) => (child, true),
        Err(LaunchError::Other(why)) => return Finished::failed(why),
        Err(LaunchError::PtraceRefused) => match launch(test, case, limits, run, false) {
            Ok(child) => (child, false),
            Err(LaunchError::Other(why)) => return Finished::failed(why),
            Err(LaunchError::PtraceRefused) => unreachable!("the child was not to be traced"),
        },
    };
    let objects = Objects::default();
    let shared = match traced {
        true => Shared::traced(),
        false => Shared::untraced(child.pid.as_raw()),
    };
    let window = Window::new(run.injection());
    let followed = match traced {
        true => follow_traced(&child, &shared, &objects, &window, limits),
        false => follow_untraced(&child, &shared, &objects, &window, limits),
    };
    let objects_left = objects.remove();
    let seen = match followed {
        Ok(seen) => seen,
        Err(error) => {
            return Finished::failed(format!(
                "the case's process cannot be followed: {}",
                launch::not_started(&error)
            ));
        }
    };
    let events = match read_events(&mut child) {
        Ok(events) => events,
        Err(error) => {
            return Finished::failed(format!("the case's events cannot be read: {error}"));
        }
    };
    let (counts, injected) = match &seen.record {
        Some(record) => (record.counts.clone(), window.injected()),
        None => injected_untraced(&events),
    };
    let output = output::read(&child.output);
    let evidence = Evidence {
        status: seen.status,
        first: seen.first,
        events,
        stop: shared.stopped(),
        fault: seen.fault,
        child_killed: seen.child_killed,
        leftovers: seen.leftovers,
        objects_left,
    };
    let verdict = match evidence.verdict() {
        Verdict::Failed(failure) if seen.interrupted => Verdict::Failed(failure.interrupted()),
        verdict => verdict,
    };
    let has_failed = matches!(verdict, Verdict::Failed(_));
    let out_of_memory = has_failed && procfs::has_killed_for_memory();
    Finished {
        verdict,
        output,
        record: seen.record,
        counts,
        injected,
        shortage: child
            .shortage
            .or(out_of_memory.then(|| OUT_OF_MEMORY.to_owned())),
    }
}

fn follow_traced(
    child: &Launched,
    shared: &Shared,
    objects: &Objects,
    window: &Window,
    limits: &Limits,
) -> io::Result<trace::Seen> {
    let follow = || {
        if let Some(waiting) = &child.waiting {
            waiting.go();
        }
        trace::follow(child.pid, child.secret, shared, limits, window)
    };
    under_watch(shared, child, objects, window, limits, |_| (), follow)
}

fn follow_untraced(
    child: &Launched,
    shared: &Shared,
    objects: &Objects,
    window: &Window,
    limits: &Limits,
) -> io::Result<trace::Seen> {
    let root = child.pid;
    shared.add(root.as_raw(), FIRST);
    let census = |shared: &Shared| shared.replace(family(root.as_raw()));
    let ended = || tasks::wait_for_end(root);
    let ended = under_watch(shared, child, objects, window, limits, census, ended);
    let tag = format!("{CHILD}={}\0", child.tag);
    let leftovers = strays::kill_all(root.as_raw(), tag.as_bytes());
    strays::roots().remove(&root.as_raw());
    ended?;
    // From here on nothing looks for the id of `root`, so it may be reused.
    let status = match tasks::wait_for(root)? {
        Change::Ended(status) => status,
        // An untraced child reports no stops, because the wait does not ask for them (WUNTRACED).
        _ => Status::Exited(0),
    };
    Ok(trace::Seen {
        status,
        leftovers,
        fault: None,
        child_killed: None,
        first: None,
        interrupted: false,
        record: None,
    })
}

/// What an untraced child reports of its calls in the window.
fn injected_untraced(events: &[Event]) -> (BTreeMap<String, usize>, bool) {
    let counts = events.iter().find_map(|event| match event {
        Event::Counted(counts) => Some(counts.clone()),
        _ => None,
    });
    (
        counts.unwrap_or_default(),
        events.contains(&Event::Injected),
    )
}

/// Runs `follow` while other threads watch the limits and answer the calls that the kernel reports.
fn under_watch<R>(
    shared: &Shared,
    child: &Launched,
    objects: &Objects,
    window: &Window,
    limits: &Limits,
    census: impl Fn(&Shared) + Send,
    follow: impl FnOnce() -> Result<R, Errno>,
) -> io::Result<R> {
    let (done, watched) = mpsc::channel();
    let (root, judge) = (child.pid, gettid());
    thread::scope(|scope| {
        let watch = move || watchdog::watch(shared, root, judge, limits, objects, &watched, census);
        let mut started = Builder::new().spawn_scoped(scope, watch).map(drop);
        if let Some(calls) = &child.calls {
            let notified = Notified {
                root,
                judge,
                shared,
                objects,
                window,
                tasks: limits.tasks + LIBTEST,
            };
            let answer = move || notified.answer(&calls.notifications, calls.end.as_fd());
            started = started.and_then(|()| Builder::new().spawn_scoped(scope, answer).map(drop));
        }
        // The machine has no thread left. The case must not run without limits.
        if started.is_err() {
            kill::traced(root.as_raw());
        }
        let result = follow();
        drop(done);
        if let Some(calls) = &child.calls {
            // A datagram wakes the thread up. The socket is empty, so this does not block.
            let _ = calls.ending.send(b"e");
        }
        started?;
        Ok(result?)
    })
}

/// The tasks of `root` and of its descendants.
fn family(root: i32) -> BTreeMap<i32, String> {
    let mut found = BTreeMap::new();
    let mut unseen = vec![(root, FIRST.to_owned())];
    while let Some((pid, name)) = unseen.pop() {
        let mut count = 0;
        for tid in procfs::threads(pid) {
            found.insert(tid, name.clone());
            for child in procfs::children(pid, tid) {
                count += 1;
                unseen.push((child, format!("{name}.{count}")));
            }
        }
    }
    found
}

/// Kills `root`, which the caller has not waited for, and its descendants.
pub fn kill_family(root: i32) {
    let belongs = |pid| procfs::descends_from(pid, root);
    let mut found = vec![root];
    let mut index = 0;
    // A process that is stopped starts no other one.
    while let Some(&pid) = found.get(index) {
        index += 1;
        kill::untraced(pid, Signal::SIGSTOP, belongs);
        for tid in procfs::threads(pid) {
            found.extend(procfs::children(pid, tid));
        }
    }
    // The last one first: an orphan no longer descends from `root`.
    for pid in found.into_iter().rev() {
        kill::untraced(pid, Signal::SIGKILL, belongs);
    }
}

/// Clears the dumpable flag of this process. Otherwise a child of the same user could write into it through
/// /proc/PID/mem.
fn hide_from_child() {
    let off: libc::c_ulong = 0;
    // SAFETY: the option takes a number and touches no memory of this process.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, off, off, off, off) };
}

/// The socket does not block. The case has ended, so nothing more arrives.
fn read_events(child: &mut Launched) -> io::Result<Vec<protocol::Event>> {
    let mut bytes = Vec::new();
    match child.events.read_to_end(&mut bytes) {
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        _ => Ok(protocol::parse(
            &String::from_utf8_lossy(&child.secret.nonce()),
            &String::from_utf8_lossy(&bytes),
        )),
    }
}
