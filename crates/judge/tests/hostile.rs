//! Answers that could take down the machine. Each is also bounded by limits that do not depend on the judge.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use judge::{Limits, observe};
use nix::libc;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Uid, fork, setresgid, setresuid, setsid};

/// Makes this process an unprivileged user's, with few processes: a fork bomb that the judge missed would stop by
/// itself.
fn harmless() {
    if Uid::effective().is_root() {
        let unprivileged = 65534;
        setresgid(
            unprivileged.into(),
            unprivileged.into(),
            unprivileged.into(),
        )
        .unwrap();
        setresuid(
            unprivileged.into(),
            unprivileged.into(),
            unprivileged.into(),
        )
        .unwrap();
    }
    setrlimit(Resource::RLIMIT_NPROC, 400, 400).unwrap();
    setrlimit(Resource::RLIMIT_CPU, 5, 5).unwrap();
}

fn fork_once() -> ForkResult {
    // SAFETY: the case runs on the only active thread of this process.
    match unsafe { fork() } {
        Ok(result) => result,
        Err(error) => judge::fail(format!(
            "The judge missed the fork bomb, and RLIMIT_NPROC stopped it: {error}."
        )),
    }
}

#[track_caller]
fn earns(expected: &str, body: impl FnOnce()) {
    let limits = Limits {
        wall: Duration::from_secs(5),
        ..Limits::default()
    };
    let begun = Instant::now();
    let outcome = observe(limits, body);
    assert_eq!(
        outcome.sentence().as_deref(),
        Some(expected),
        "{outcome:#?}"
    );
    assert!(
        begun.elapsed() < limits.wall,
        "only the time limit stopped it"
    );
}

#[test]
fn a_fork_bomb_is_stopped() {
    earns(
        "Stopped with more than 32 processes and threads at once: a fork whose child does not end?",
        || {
            harmless();
            loop {
                fork_once();
            }
        },
    );
    assert_eq!(leftovers(), 0);
}

/// Processes whose environment names this test's case.
fn leftovers() -> usize {
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return 0;
    };
    let tag = b" a_fork_bomb_is_stopped\0";
    processes
        .flatten()
        .filter_map(|process| std::fs::read(process.path().join("environ")).ok())
        .filter(|environment| environment.windows(tag.len()).any(|window| window == tag))
        .count()
}

#[test]
fn a_case_sees_its_own_allocation_fail() {
    let limits = Limits {
        memory: 64 << 20,
        ..Limits::default()
    };
    let outcome = observe(limits, || {
        let mut blocks: Vec<Vec<u8>> = Vec::new();
        let large = blocks.try_reserve_exact(8 << 20);
        judge::check!(large.is_err(), "An allocation of 192 MiB succeeded.");
        loop {
            let mut more = Vec::new();
            if more.try_reserve_exact(1 << 20).is_err() {
                judge::fail("An allocation failed.".to_owned());
            }
            more.resize(1 << 20, 1);
            blocks.push(more);
            judge::check!(blocks.len() < 100, "Allocations of 100 MiB succeeded.");
        }
    });
    assert_eq!(
        outcome.sentence().as_deref(),
        Some("An allocation failed."),
        "{outcome:#?}"
    );
}

#[test]
fn a_daemon_is_killed() {
    let outcome = observe(Limits::default(), || {
        let (mut from_daemon, mut to_parent) = io::pipe().unwrap();
        if let ForkResult::Parent { child } = fork_once() {
            drop(to_parent);
            waitpid(child, None).unwrap();
            let mut pid = String::new();
            from_daemon.read_to_string(&mut pid).unwrap();
            println!("{pid}");
            return;
        }
        setsid().unwrap();
        if let ForkResult::Child = fork_once() {
            write!(to_parent, "{}", std::process::id()).unwrap();
            drop(to_parent);
            std::thread::sleep(Duration::from_secs(60));
        }
        // SAFETY: `_exit` takes any value.
        unsafe { libc::_exit(0) };
    });
    assert_eq!(
        outcome.sentence().as_deref(),
        Some("Your code left a process running that it had started.")
    );
    // The process that adopted it may not have waited for it yet, so a zombie counts as killed.
    let status = format!("/proc/{}/status", outcome.output[0]);
    let status = std::fs::read_to_string(status).unwrap_or_default();
    let dead = status.is_empty() || status.contains("State:\tZ");
    assert!(dead, "the daemon still runs: {status}");
}
