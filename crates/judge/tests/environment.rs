//! Cases under resource limits that are lower than they need. A failure must not be blamed on the answer then.
//!
//! Each test starts this binary again for one test, under other limits, and reads the report of that process.

mod common {
    pub mod fork;
    pub mod rerun;
}

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use common::fork;
use common::rerun::rerun;
use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::wait::waitpid;
use serde_json::Value;

/// The report on `case`, which ran under these limits; `None` in the inner process.
fn reported_under(
    resource: Resource,
    soft: Option<u64>,
    hard: Option<u64>,
    case: fn(),
) -> Option<Value> {
    let (_, inherited) = getrlimit(resource).unwrap();
    let hard = hard.unwrap_or(inherited);
    let before_exec = move || {
        may_not_raise_hard_limits();
        setrlimit(resource, soft.unwrap_or(hard), hard).map_err(Into::into)
    };
    let limited = |command: &mut Command| {
        // SAFETY: between fork and exec the closure only makes system calls.
        unsafe { command.pre_exec(before_exec) };
    };
    reported_with(limited, case)
}

/// The report on `case`, which ran in a process that `configure` has prepared; `None` in the inner process.
fn reported_with(configure: impl FnOnce(&mut Command), case: fn()) -> Option<Value> {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let file = folder.path().join("report");
    let Some(output) = rerun(|command| {
        command.env("JUDGE_REPORT", &file);
        configure(command);
    }) else {
        case();
        return None;
    };
    let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    Some(serde_json::from_str(&text).unwrap())
}

/// After exec, root no longer has CAP_SYS_RESOURCE. Other users never have it.
fn may_not_raise_hard_limits() {
    const CAP_SYS_RESOURCE: libc::c_ulong = 24;
    let zero: libc::c_ulong = 0;
    // SAFETY: the option takes numbers only.
    unsafe { libc::prctl(libc::PR_CAPBSET_DROP, CAP_SYS_RESOURCE, zero, zero, zero) };
}

fn passing() {
    judge::case(|| ());
}

fn failing() {
    judge::case(|| judge::fail("No.".to_owned()));
}

/// A case that passes only if it is traced.
fn traced() {
    judge::watched(
        || {
            // SAFETY: munmap fails with EINVAL for a length of 0.
            judge::watch(|| unsafe { libc::munmap(std::ptr::null_mut(), 0) });
        },
        |seen| judge::check!(seen.calls("munmap").len() == 1, "One munmap."),
    );
}

#[track_caller]
fn could_not_grade(line: &Value, why: &str) {
    assert_eq!(line["kind"], "grader", "{line}");
    let sentence = format!("Could not grade: {why}.");
    assert_eq!(line["sentence"], sentence, "{line}");
}

#[test]
fn a_low_soft_limit_on_open_files_is_raised() {
    let Some(line) = reported_under(Resource::RLIMIT_NOFILE, Some(512), None, traced) else {
        return;
    };
    assert_eq!(line["verdict"], "passed", "{line}");
}

#[test]
fn a_low_hard_limit_on_open_files_is_kept() {
    let Some(line) = reported_under(Resource::RLIMIT_NOFILE, None, Some(512), traced) else {
        return;
    };
    assert_eq!(line["verdict"], "passed", "{line}");
}

#[test]
fn a_wrong_answer_fails_under_a_sufficient_limit_on_open_files() {
    let Some(line) = reported_under(Resource::RLIMIT_NOFILE, None, Some(512), failing) else {
        return;
    };
    assert_eq!(line["sentence"], "No.", "{line}");
}

#[test]
fn no_case_is_started_with_too_few_open_files() {
    let Some(line) = reported_under(Resource::RLIMIT_NOFILE, None, Some(40), passing) else {
        return;
    };
    could_not_grade(
        &line,
        "the hard limit on open files (ulimit -Hn) is 40 here, and a case needs 64",
    );
}

#[test]
fn a_right_answer_passes_under_a_low_hard_limit_on_data() {
    let Some(line) = reported_under(Resource::RLIMIT_DATA, None, Some(64 << 20), traced) else {
        return;
    };
    assert_eq!(line["verdict"], "passed", "{line}");
}

#[test]
fn a_failure_under_a_low_hard_limit_on_data_is_not_the_answers() {
    let Some(line) = reported_under(Resource::RLIMIT_DATA, None, Some(64 << 20), failing) else {
        return;
    };
    could_not_grade(
        &line,
        "the hard limit on the data segment (ulimit -Hd) is 64 MiB here, and a case needs 1 GiB",
    );
}

#[test]
fn a_todo_under_a_low_hard_limit_is_not_started() {
    let case = || judge::case(|| todo!());
    let Some(line) = reported_under(Resource::RLIMIT_FSIZE, None, Some(1 << 20), case) else {
        return;
    };
    assert_eq!(line["verdict"], "not started", "{line}");
}

#[test]
fn a_low_soft_limit_on_the_address_space_is_raised() {
    let case = || {
        judge::case(|| {
            let (len, flags) = (64 << 30, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            // SAFETY: without MAP_FIXED nothing that exists is touched.
            let start =
                unsafe { libc::mmap(std::ptr::null_mut(), len, libc::PROT_NONE, flags, -1, 0) };
            judge::check!(start != libc::MAP_FAILED, "mmap: {}.", Errno::last());
        })
    };
    let Some(line) = reported_under(Resource::RLIMIT_AS, Some(8 << 30), None, case) else {
        return;
    };
    assert_eq!(line["verdict"], "passed", "{line}");
}

fn without_ptrace(command: &mut Command) {
    command.env("JUDGE_NO_PTRACE", "1");
}

fn copes_with_failures(copes: bool) {
    let plan = [("fork", Errno::EAGAIN), ("munmap", Errno::ENOMEM)];
    judge::refusals(
        &plan,
        |refused| {
            // SAFETY: munmap fails with EINVAL for a length of 0.
            judge::refuse(|| unsafe { libc::munmap(std::ptr::null_mut(), 0) });
            let expected = refused.map_or(Errno::EINVAL, |refusal| refusal.errno);
            judge::check!(Errno::last() == expected, "errno is {}.", Errno::last());
            judge::check!(copes || refused.is_none(), "It did not cope.");
        },
        |_| (),
    );
}

#[test]
fn without_ptrace_a_case_with_failing_calls_is_skipped() {
    let Some(line) = reported_with(without_ptrace, || copes_with_failures(true)) else {
        return;
    };
    assert_eq!(line["verdict"], "skipped", "{line}");
}

#[test]
fn without_ptrace_calls_fail_too() {
    let Some(line) = reported_with(without_ptrace, || copes_with_failures(false)) else {
        return;
    };
    assert_eq!(
        line["sentence"], "The grader made munmap fail with ENOMEM. It did not cope.",
        "{line}"
    );
}

/// With each of these limits another step fails: starting libtest's thread, the case's process, or a thread of the judge.
#[test]
fn a_user_without_processes_is_not_blamed() {
    const NOBODY_ELSE: libc::uid_t = 65_533;
    if std::env::var_os("RERUN_INNER").is_some() {
        return judge::case(|| {
            std::thread::spawn(|| ()).join().unwrap();
        });
    }
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!("skipped: only root can run this as a user without other processes");
        return;
    }
    for most in 1..8 {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let file = folder.path().join("report");
        let before_exec = move || {
            setrlimit(Resource::RLIMIT_NPROC, most, most)?;
            // SAFETY: the calls take numbers.
            Errno::result(unsafe { libc::setresuid(NOBODY_ELSE, NOBODY_ELSE, NOBODY_ELSE) })?;
            Ok(())
        };
        let output = rerun(|command| {
            command.env("JUDGE_REPORT", &file);
            // SAFETY: between fork and exec the closure only makes system calls.
            unsafe { command.pre_exec(before_exec) };
        });
        let output = output.expect("this is the outer process");
        let text = String::from_utf8_lossy(&output.stderr);
        match fs::read_to_string(&file) {
            Ok(line) => {
                let line: Value = serde_json::from_str(&line).unwrap();
                let is_right = line["kind"] == "grader" || line["verdict"] == "passed";
                assert!(is_right, "{most} tasks: {line}");
            }
            Err(_) => assert!(text.contains("Could not grade: "), "{most} tasks: {text}"),
        }
        assert!(
            output.status.success() || text.contains("ould not grade"),
            "{most}: {text}"
        );
    }
}

fn ignoring_sigchld(command: &mut Command) {
    let ignore = || {
        // SAFETY: an ignored signal has no handler.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
        Ok(())
    };
    // SAFETY: between fork and exec the closure only makes a system call.
    unsafe { command.pre_exec(ignore) };
}

fn waits_for_a_child() {
    judge::case(|| {
        let status = waitpid(fork::child(|| ()), None);
        judge::check!(status.is_ok(), "waitpid returned {status:?}.");
    });
}

#[test]
fn a_case_can_wait_where_sigchld_is_ignored() {
    let Some(line) = reported_with(ignoring_sigchld, waits_for_a_child) else {
        return;
    };
    assert_eq!(line["verdict"], "passed", "{line}");
}

#[test]
fn without_ptrace_a_case_can_wait_where_sigchld_is_ignored() {
    let configure = |command: &mut Command| {
        without_ptrace(command);
        ignoring_sigchld(command);
    };
    let Some(line) = reported_with(configure, waits_for_a_child) else {
        return;
    };
    assert_eq!(line["verdict"], "passed", "{line}");
}
