//! The judge's side of a case: starts the child, follows it to its end, kills what it leaves, gathers the evidence.

mod deadlock;
mod launch;
mod shared;
mod tasks;
mod trace;
mod watchdog;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::libc;
use nix::unistd::{Pid, gettid};

use crate::limits::Limits;
use crate::procfs;
use crate::protocol;
use crate::record::Record;
use crate::record::process::FIRST;
use crate::verdict::{Evidence, Verdict};
use launch::{Launched, launch, tracing_forbidden};
use shared::Shared;
use tasks::Change;

/// Lines of its own output that a learner is shown.
const OUTPUT_LINES: usize = 40;
/// Bytes of output that are looked at.
const OUTPUT_BYTES: usize = 64 << 10;

/// A case that is over.
pub struct Over {
    pub verdict: Verdict,
    /// The last lines of what it printed.
    pub output: Vec<String>,
    /// What it did, where it was traced.
    pub record: Option<Record>,
}

/// Runs the test `test` of this binary in a child, as the case `case`.
///
/// # Panics
/// If no child can be started.
pub fn run(test: &str, case: &str, limits: &Limits) -> Over {
    hide_from_child();
    let traced = !tracing_forbidden();
    let started = match launch(test, case, limits, traced) {
        Err(error) if traced && error.raw_os_error() == Some(libc::EPERM) => {
            launch(test, case, limits, false).map(|launched| (launched, false))
        }
        result => result.map(|launched| (launched, traced)),
    };
    match started {
        Ok((launched, true)) => run_traced(launched, limits),
        Ok((launched, false)) => run_untraced(launched, case, limits),
        Err(error) => panic!("the judge could not start the case's process: {error}"),
    }
}

fn run_traced(mut child: Launched, limits: &Limits) -> Over {
    let shared = Shared::default();
    let seen = under_watch(
        &shared,
        child.pid,
        limits,
        |_| (),
        || trace::follow(child.pid, &shared, limits),
    );
    let (text, output) = read_output(&child.output);
    let evidence = Evidence {
        status: seen.status,
        events: read_events(&mut child),
        stop: shared.stopped(),
        fault: seen.fault,
        child_killed: seen.child_killed,
        leftovers: seen.leftovers,
        output: text,
    };
    Over {
        verdict: evidence.verdict(),
        output,
        record: seen.record,
    }
}

/// Without ptrace: everything that the case starts carries its nonce in its environment.
fn run_untraced(mut child: Launched, case: &str, limits: &Limits) -> Over {
    let shared = Shared::default();
    let root = child.pid;
    shared.born(root.as_raw(), FIRST);
    let census = |shared: &Shared| shared.replace(family(root.as_raw()));
    let status = under_watch(&shared, root, limits, census, || {
        loop {
            match tasks::wait_for(root) {
                Ok(Change::Ended(status)) => break status,
                Ok(_) => {}
                Err(error) => panic!("the test process is gone: {error}"),
            }
        }
    });
    let tag = format!("{}={} {case}\0", protocol::CHILD, child.nonce);
    let leftovers = kill_tagged(tag.as_bytes());
    let (text, output) = read_output(&child.output);
    let evidence = Evidence {
        status,
        events: read_events(&mut child),
        stop: shared.stopped(),
        fault: None,
        child_killed: None,
        leftovers,
        output: text,
    };
    Over {
        verdict: evidence.verdict(),
        output,
        record: None,
    }
}

/// Runs `follow` while a second thread watches the limits.
fn under_watch<R>(
    shared: &Shared,
    root: Pid,
    limits: &Limits,
    census: impl Fn(&Shared) + Send,
    follow: impl FnOnce() -> R,
) -> R {
    let (done, watched) = mpsc::channel();
    let judge = gettid();
    thread::scope(|scope| {
        scope.spawn(move || watchdog::watch(shared, root, judge, limits, &watched, census));
        let result = follow();
        drop(done);
        result
    })
}

/// The tasks of `root` and of what it has forked.
fn family(root: i32) -> BTreeMap<i32, String> {
    let mut found = BTreeMap::new();
    let mut unseen = vec![(root, FIRST.to_owned())];
    while let Some((pid, name)) = unseen.pop() {
        let mut born = 0;
        for tid in procfs::threads(pid) {
            found.insert(tid, name.clone());
            for child in procfs::children(pid, tid) {
                born += 1;
                unseen.push((child, format!("{name}.{born}")));
            }
        }
    }
    found
}

/// Kills every process that carries `tag`, until there is none; how many there were at first.
fn kill_tagged(tag: &[u8]) -> usize {
    let first = procfs::with_environment(tag);
    let mut left = first.clone();
    while !left.is_empty() {
        left.iter().copied().for_each(shared::end);
        thread::sleep(Duration::from_millis(1));
        left = procfs::with_environment(tag);
    }
    first.len()
}

/// A child of the same user could write into the judge through /proc/PID/mem; not if the judge is not dumpable.
fn hide_from_child() {
    let off: libc::c_ulong = 0;
    // SAFETY: the option takes a number and touches no memory of ours.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, off, off, off, off) };
}

fn read_events(child: &mut Launched) -> Vec<protocol::Event> {
    let mut bytes = Vec::new();
    // The pipe does not block: what is in it is all that there will be.
    match child.events.read_to_end(&mut bytes) {
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
            panic!("the case's events cannot be read: {error}")
        }
        _ => protocol::parse(&child.nonce, &String::from_utf8_lossy(&bytes)),
    }
}

/// The end of the output: as one text, and as the lines to show.
fn read_output(file: &File) -> (String, Vec<String>) {
    let len = file.metadata().map_or(0, |data| data.len());
    let mut bytes = vec![0; OUTPUT_BYTES.min(len as usize)];
    let from = len - bytes.len() as u64;
    if let Err(error) = file.read_exact_at(&mut bytes, from) {
        return (
            String::new(),
            vec![format!("(the output cannot be read: {error})")],
        );
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    let skipped = lines.len().saturating_sub(OUTPUT_LINES);
    let mut shown = Vec::new();
    if skipped > 0 || from > 0 {
        shown.push(format!("(the last {OUTPUT_LINES} lines of {len} bytes)"));
    }
    shown.extend(lines[skipped..].iter().map(|line| (*line).to_owned()));
    (text, shown)
}
