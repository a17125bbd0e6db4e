//! The process runner: limits, and killing what a program leaves running.

use std::fs;
use std::io;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use course::process::{End, Group, Limits, run, run_merged, run_merged_with};

/// For programs that do not end by themselves.
const SHORT: Limits = Limits::time(Duration::from_millis(300));
/// For programs that end by themselves.
const LONG: Limits = Limits::time(Duration::from_secs(60));

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

fn is_running(pid: &str) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
    status.is_ok_and(|status| !status.contains(") Z "))
}

fn expect_dead(pid: &str) {
    let begun = Instant::now();
    while is_running(pid) {
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "{pid} still runs"
        );
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn output_and_status_are_kept() -> io::Result<()> {
    let ran = run(&mut shell("echo out; echo err >&2; exit 3"), LONG)?;
    assert_eq!(
        (ran.stdout.as_str(), ran.stderr.as_str()),
        ("out\n", "err\n")
    );
    assert_eq!((ran.code(), ran.success()), (Some(3), false));
    assert_eq!(ran.describe(), "exited with status 3");
    let ran = run(&mut shell("kill -SEGV $$"), LONG)?;
    assert_eq!(ran.describe(), "was killed by SIGSEGV");
    Ok(())
}

#[test]
fn merged_streams_keep_their_order() -> io::Result<()> {
    let ran = run_merged(&mut shell("echo a; echo b >&2; echo c"), LONG)?;
    assert_eq!(
        (ran.stdout.as_str(), ran.stderr.as_str()),
        ("a\nb\nc\n", "")
    );
    Ok(())
}

#[test]
fn the_time_limit_kills_the_whole_group() -> io::Result<()> {
    let ran = run(&mut shell("sleep 1000 & echo $!; wait"), SHORT)?;
    assert_eq!(ran.end, End::TimeLimit);
    expect_dead(&ran.stdout);
    Ok(())
}

#[test]
fn endless_output_is_cut_off() -> io::Result<()> {
    let limits = Limits {
        output: 1000,
        ..LONG
    };
    let ran = run(&mut shell("while :; do echo yes; done"), limits)?;
    assert_eq!((ran.end, ran.stdout.len()), (End::OutputLimit, 1000));
    // Also if the program has ended by the time it is read.
    let ran = run(&mut shell("head -c 1001 /dev/zero"), limits)?;
    assert_eq!((ran.end, ran.stdout.len()), (End::OutputLimit, 1000));
    let ran = run(&mut shell("head -c 1000 /dev/zero"), limits)?;
    assert!(ran.success());
    Ok(())
}

/// Such a process holds the pipe open, and `killpg` does not reach it.
#[test]
fn a_process_in_another_session_is_killed() -> io::Result<()> {
    let begun = Instant::now();
    let ran = run(&mut shell("setsid sleep 1000 & echo $!; sleep 0.1"), LONG)?;
    assert!(ran.success());
    assert!(begun.elapsed() < Duration::from_secs(30));
    expect_dead(&ran.stdout);
    Ok(())
}

#[test]
fn dropping_a_group_kills_it() -> io::Result<()> {
    let group = Group::spawn(shell("sleep 1000").stdin(Stdio::null()))?;
    let killer = group.killer();
    drop(group);
    // Its process id may belong to another process by now: this must do nothing.
    killer.kill();
    Ok(())
}

#[test]
fn a_killer_ends_a_wait_in_another_thread() -> io::Result<()> {
    let mut group = Group::spawn(&mut shell("sleep 1000"))?;
    let killer = group.killer();
    let status = thread::scope(|scope| {
        let waiting = scope.spawn(move || group.wait());
        killer.kill();
        waiting.join().expect("the thread does not panic")
    })?;
    assert!(!status.success());
    Ok(())
}

/// The killer ends the leader, and the runner does the rest.
#[test]
fn a_run_that_is_ended_early_leaves_no_process() -> io::Result<()> {
    let mut program = shell("setsid sleep 1000 & echo $!; sleep 1000");
    let begun = Instant::now();
    let ran = run_merged_with(&mut program, LONG, |killer| {
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(300));
            killer.kill();
        });
    })?;
    assert_eq!(ran.describe(), "was killed by SIGKILL");
    assert!(begun.elapsed() < Duration::from_secs(30));
    expect_dead(&ran.stdout);
    Ok(())
}

/// The parent is a `sh` that starts this test again, which starts a program and waits.
#[test]
fn a_program_ends_with_its_parent() -> io::Result<()> {
    const CHILD: &str = "PROCESS_TEST_CHILD";
    if std::env::var_os(CHILD).is_some() {
        run(
            &mut shell("echo $$ > \"$PROCESS_TEST_CHILD\"; sleep 1000"),
            LONG,
        )?;
        return Ok(());
    }
    let file = tempfile::NamedTempFile::new()?;
    let mut parent = Command::new(std::env::current_exe()?)
        .args(["--exact", "a_program_ends_with_its_parent"])
        .env(CHILD, file.path())
        .stdout(Stdio::null())
        .spawn()?;
    let begun = Instant::now();
    let pid = loop {
        let pid = fs::read_to_string(file.path())?;
        if pid.ends_with('\n') {
            break pid;
        }
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "the program did not start"
        );
        thread::sleep(Duration::from_millis(10));
    };
    parent.kill()?;
    parent.wait()?;
    expect_dead(&pid);
    Ok(())
}

#[test]
fn a_terminated_program_can_clean_up() -> io::Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("cleaned");
    let script = "trap 'touch \"$FILE\"; exit 0' TERM; echo ready; while :; do sleep 0.01; done";
    let mut command = shell(script);
    command.env("FILE", &file).stdout(Stdio::piped());
    let mut group = Group::spawn(&mut command)?;
    let mut ready = [0; 6];
    let mut stdout = group.take_stdout().expect("a pipe was requested");
    io::Read::read_exact(&mut stdout, &mut ready)?;
    let killer = group.killer();
    let status = thread::scope(|scope| {
        let waiting = scope.spawn(move || group.wait());
        killer.terminate(Duration::from_secs(30));
        waiting.join().expect("it does not panic")
    })?;
    assert!(status.success() && file.exists(), "{status}");
    Ok(())
}

#[test]
fn a_program_that_ignores_sigterm_is_killed() -> io::Result<()> {
    let mut command = shell("trap '' TERM; echo ready; while :; do sleep 1; done");
    let mut group = Group::spawn(command.stdout(Stdio::piped()))?;
    let mut ready = [0; 6];
    let mut stdout = group.take_stdout().expect("a pipe was requested");
    io::Read::read_exact(&mut stdout, &mut ready)?;
    let killer = group.killer();
    killer.terminate(Duration::from_millis(100));
    assert!(!group.wait()?.success());
    Ok(())
}
