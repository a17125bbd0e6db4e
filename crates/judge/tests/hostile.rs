//! Answers that would take the machine with them. Each is bounded a second time, by limits that the judge has no part in.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use judge::{Limits, observe};
use nix::libc;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Uid, fork, setresgid, setresuid, setsid};

/// As an unprivileged user, and with few processes: a fork bomb that the judge missed would stop by itself.
fn harmless() {
    if Uid::effective().is_root() {
        let nobody = 65534;
        setresgid(nobody.into(), nobody.into(), nobody.into()).unwrap();
        setresuid(nobody.into(), nobody.into(), nobody.into()).unwrap();
    }
    setrlimit(Resource::RLIMIT_NPROC, 400, 400).unwrap();
    setrlimit(Resource::RLIMIT_CPU, 5, 5).unwrap();
}

fn fork_once() -> ForkResult {
    // SAFETY: the case runs on the only thread of this process that does anything.
    match unsafe { fork() } {
        Ok(result) => result,
        Err(error) => judge::fail(format!("The second net caught it: {error}.")),
    }
}

#[track_caller]
fn says(expected: &str, body: impl FnOnce()) {
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
        "only the time limit ended it"
    );
}

#[test]
fn a_fork_bomb_is_put_out() {
    says(
        "Stopped with more than 32 processes and threads at once: a fork whose child does not end?",
        || {
            harmless();
            loop {
                fork_once();
            }
        },
    );
    assert_eq!(left_behind(), 0);
}

/// Processes whose environment names this test's case.
fn left_behind() -> usize {
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return 0;
    };
    let tag = b" a_fork_bomb_is_put_out\0";
    processes
        .flatten()
        .filter_map(|process| std::fs::read(process.path().join("environ")).ok())
        .filter(|environment| environment.windows(tag.len()).any(|window| window == tag))
        .count()
}

#[test]
fn too_much_private_memory_is_refused_to_the_case_itself() {
    let limits = Limits {
        memory: 64 << 20,
        ..Limits::default()
    };
    let outcome = observe(limits, || {
        let mut hoard: Vec<Vec<u8>> = Vec::new();
        let got = hoard.try_reserve_exact(8 << 20);
        judge::check!(got.is_err(), "192 MiB were given.");
        loop {
            let mut more = Vec::new();
            if more.try_reserve_exact(1 << 20).is_err() {
                judge::fail("Refused.".to_owned());
            }
            more.resize(1 << 20, 1);
            hoard.push(more);
            judge::check!(hoard.len() < 100, "100 MiB were given.");
        }
    });
    assert_eq!(
        outcome.sentence().as_deref(),
        Some("Refused."),
        "{outcome:#?}"
    );
}

#[test]
fn a_daemon_does_not_get_away() {
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
    // Whoever has adopted it may not have waited for it yet: a zombie is gone enough.
    let status = format!("/proc/{}/status", outcome.output[0]);
    let status = std::fs::read_to_string(status).unwrap_or_default();
    let dead = status.is_empty() || status.contains("State:\tZ");
    assert!(dead, "the daemon is still there: {status}");
}
