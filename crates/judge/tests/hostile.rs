//! Answers that could take down the machine. Each is also bounded by limits that do not depend on the judge.

mod common {
    pub mod fork;
    pub mod rerun;
}

use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::time::{Duration, Instant};

use common::fork::child;
use common::rerun::rerun;
use judge::{Limits, Outcome, observe};
use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
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
    at_most_tasks(400);
    setrlimit(Resource::RLIMIT_CPU, 5, 5).unwrap();
}

/// Limits the tasks of the user. The judge may have set a lower limit already.
fn at_most_tasks(count: u64) {
    let (_, hard) = getrlimit(Resource::RLIMIT_NPROC).unwrap();
    let count = count.min(hard);
    setrlimit(Resource::RLIMIT_NPROC, count, count).unwrap();
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
        "The case was stopped, because it had more than 32 processes and threads at the same time. Look for a fork whose child does not end.",
        || {
            harmless();
            loop {
                fork_once();
            }
        },
    );
    assert_eq!(processes_of("a_fork_bomb_is_stopped"), 0);
}

/// The number of processes whose environment names the case.
fn processes_of(case: &str) -> usize {
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return 0;
    };
    let tag = format!(" {case}\0");
    let tag = tag.as_bytes();
    processes
        .flatten()
        .filter_map(|process| std::fs::read(process.path().join("environ")).ok())
        .filter(|environment| environment.windows(tag.len()).any(|window| window == tag))
        .count()
}

#[test]
fn a_case_sees_its_own_allocation_fail() {
    let limits = Limits {
        data: 64 << 20,
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
        Some(
            "A process that your code had started was still running when the case ended. Wait for it, or end it."
        )
    );
    // The process that adopted it may not have waited for it yet, so a zombie counts as killed.
    let status = format!("/proc/{}/status", outcome.output[0]);
    let status = std::fs::read_to_string(status).unwrap_or_default();
    let dead = status.is_empty() || status.contains("State:\tZ");
    assert!(dead, "the daemon still runs: {status}");
}

/// The sentence of a case that runs with a shorter time limit.
fn sentence_of(body: impl FnOnce()) -> Option<String> {
    outcome_of(body).sentence()
}

fn outcome_of(body: impl FnOnce()) -> Outcome {
    let limits = Limits {
        wall: Duration::from_secs(5),
        memory: 256 << 20,
        ..Limits::default()
    };
    observe(limits, body)
}

/// Runs the calling test once more, with tracing disabled.
fn also_untraced() {
    if is_case() {
        return;
    }
    if let Some(output) = rerun(|command| {
        command.env("JUDGE_NO_PTRACE", "1");
    }) {
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "without ptrace: {text}");
    }
}

/// Whether this process is a case's. The code before `observe` runs there, too.
fn is_case() -> bool {
    std::env::var_os("JUDGE_CHILD").is_some()
}

/// The process id of the judge, in the judge and in the first process of a case.
fn judge_id() -> u32 {
    match is_case() {
        true => judges().last(),
        false => Some(std::process::id()),
    }
    .expect("the judge")
}

/// In the first process of a case: the processes of the judge, which are its parent and, if the case is traced, the
/// parent's parent.
fn judges() -> impl Iterator<Item = u32> {
    let zygote = std::env::var_os("JUDGE_TRACED").is_some();
    let parent = std::os::unix::process::parent_id();
    let status = std::fs::read_to_string(format!("/proc/{parent}/status")).unwrap();
    let its_parent = status.lines().find_map(|line| line.strip_prefix("PPid:\t"));
    let its_parent = its_parent.unwrap().parse().unwrap();
    std::iter::once(parent).chain(zygote.then_some(its_parent))
}

fn call(number: libc::c_long, args: [libc::c_long; 4]) -> io::Result<libc::c_long> {
    let [a, b, c, d] = args;
    // SAFETY: the tests pass numbers, null, or addresses of locals that outlive the call.
    let result = unsafe { libc::syscall(number, a, b, c, d) };
    Errno::result(result).map_err(Into::into)
}

fn refused(result: io::Result<libc::c_long>) {
    let error = result.err().and_then(|error| error.raw_os_error());
    judge::check!(
        error == Some(libc::EPERM),
        "The call was not refused: {error:?}."
    );
}

/// Like `refused`, for a call about a thread of the judge, which may have ended meanwhile: another test's, for example.
fn refused_if_it_runs(result: io::Result<libc::c_long>) {
    if result.as_ref().err().and_then(io::Error::raw_os_error) != Some(libc::ESRCH) {
        refused(result);
    }
}

fn signal_number(signal: libc::c_int) -> libc::c_long {
    signal.into()
}

#[test]
fn a_failed_fork_that_is_signalled_reaches_nobody() {
    let sentence = "Your code called kill(-1, SIGKILL), which signals every process of your user. The judge refused the call. If the -1 came from fork, check its result before you use it.";
    also_untraced();
    let got = sentence_of(|| {
        harmless();
        let _ = call(libc::SYS_kill, [-1, signal_number(libc::SIGKILL), 0, 0]);
    });
    assert_eq!(got.as_deref(), Some(sentence));
}

/// The judge refuses the call, and stops the case.
#[track_caller]
fn does_not_reach_the_judge(name: &str, send: impl FnOnce(libc::c_long, libc::c_long)) {
    also_untraced();
    let judge = judge_id();
    let got = sentence_of(|| send(judge.into(), signal_number(libc::SIGSTOP)));
    let expected = format!(
        "Your code called {name}({judge}, SIGSTOP), but process {judge} is the judge. The judge refused the call. Signal only processes that fork returned."
    );
    assert_eq!(got, Some(expected));
}

#[test]
fn kill_does_not_reach_the_judge() {
    does_not_reach_the_judge("kill", |judge, signal| {
        refused(call(libc::SYS_kill, [judge, signal, 0, 0]));
    });
}

/// The parent of a traced case is the judge's zygote.
#[test]
fn kill_does_not_reach_the_parent() {
    also_untraced();
    let outcome = outcome_of(|| {
        let parent = std::os::unix::process::parent_id();
        println!("{parent}");
        let _ = call(
            libc::SYS_kill,
            [parent.into(), signal_number(libc::SIGKILL), 0, 0],
        );
    });
    let parent = &outcome.output[0];
    let expected = format!(
        "Your code called kill({parent}, SIGKILL), but process {parent} is the judge. The judge refused the call. Signal only processes that fork returned."
    );
    assert_eq!(outcome.sentence(), Some(expected));
}

#[test]
fn tkill_does_not_reach_the_judge() {
    does_not_reach_the_judge("tkill", |judge, signal| {
        refused(call(libc::SYS_tkill, [judge, signal, 0, 0]));
    });
}

#[test]
fn tgkill_does_not_reach_the_judge() {
    does_not_reach_the_judge("tgkill", |judge, signal| {
        refused(call(libc::SYS_tgkill, [judge, judge, signal, 0]));
    });
}

#[test]
fn sigqueue_does_not_reach_the_judge() {
    does_not_reach_the_judge("sigqueue", |judge, signal| {
        let info = [0_u64; 16];
        let info = info.as_ptr() as libc::c_long;
        refused(call(libc::SYS_rt_sigqueueinfo, [judge, signal, info, 0]));
    });
}

#[test]
fn a_pidfd_does_not_reach_the_judge() {
    does_not_reach_the_judge("pidfd_send_signal", |judge, signal| {
        let process = call(libc::SYS_pidfd_open, [judge, 0, 0, 0]).unwrap();
        refused(call(libc::SYS_pidfd_send_signal, [process, signal, 0, 0]));
    });
}

#[test]
fn a_folder_of_proc_does_not_signal_the_judge() {
    also_untraced();
    let judge = judge_id();
    let got = sentence_of(|| {
        let folder = std::fs::File::open(format!("/proc/{judge}")).unwrap();
        let fd = libc::c_long::from(std::os::fd::AsRawFd::as_raw_fd(&folder));
        refused(call(
            libc::SYS_pidfd_send_signal,
            [fd, signal_number(libc::SIGKILL), 0, 0],
        ));
    });
    let text = got.expect("a failure");
    assert!(
        text.starts_with("Your code called pidfd_send_signal("),
        "{text}"
    );
}

#[test]
fn the_judges_group_is_not_signalled() {
    also_untraced();
    let judge = nix::unistd::Pid::from_raw(judge_id() as i32);
    let group = nix::unistd::getpgid(Some(judge)).unwrap();
    let got = sentence_of(move || {
        // The case cannot join the group either, to signal it as its own.
        let joined = nix::unistd::setpgid(nix::unistd::Pid::from_raw(0), group);
        judge::check!(joined.is_err(), "The case joined the judge's group.");
        let target = -libc::c_long::from(group.as_raw());
        refused(call(
            libc::SYS_kill,
            [target, signal_number(libc::SIGTERM), 0, 0],
        ));
    });
    let text = got.expect("a failure");
    assert!(text.contains(&format!("process group {group}")), "{text}");
}

/// What a case may do with signals.
#[test]
fn a_case_signals_its_own_processes() {
    also_untraced();
    let got = sentence_of(|| {
        let pause = || {
            loop {
                // SAFETY: the call takes nothing.
                unsafe { libc::pause() };
            }
        };
        let ended = |pid: nix::unistd::Pid| waitpid(pid, None).unwrap();
        for group in [false, true] {
            let child = child(pause);
            if group {
                nix::unistd::setpgid(child, child).unwrap();
            }
            let target = if group {
                -child.as_raw()
            } else {
                child.as_raw()
            };
            let sent = call(
                libc::SYS_kill,
                [target.into(), signal_number(libc::SIGTERM), 0, 0],
            );
            judge::check!(sent.is_ok(), "kill({target}): {sent:?}.");
            ended(child);
        }
        // A zombie, and one that was waited for.
        let child = child(|| ());
        let info = nix::sys::wait::WaitPidFlag::WEXITED | nix::sys::wait::WaitPidFlag::WNOWAIT;
        nix::sys::wait::waitid(nix::sys::wait::Id::Pid(child), info).unwrap();
        let signal = signal_number(libc::SIGTERM);
        let sent = call(libc::SYS_kill, [child.as_raw().into(), signal, 0, 0]);
        judge::check!(sent.is_ok(), "A zombie: {sent:?}.");
        ended(child);
        let sent = call(libc::SYS_kill, [child.as_raw().into(), signal, 0, 0]);
        let error = sent.err().and_then(|error| error.raw_os_error());
        judge::check!(error == Some(libc::ESRCH), "No process: {error:?}.");
        // Whether the parent lives, and the own group.
        let parent = nix::unistd::getppid().as_raw().into();
        let asked = call(libc::SYS_kill, [parent, 0, 0, 0]);
        judge::check!(asked.is_ok(), "Signal 0: {asked:?}.");
        // SAFETY: the signal is ignored from here on.
        let before = unsafe { libc::signal(libc::SIGUSR1, libc::SIG_IGN) };
        judge::check!(before != libc::SIG_ERR, "signal.");
        let sent = call(libc::SYS_kill, [0, signal_number(libc::SIGUSR1), 0, 0]);
        judge::check!(sent.is_ok(), "The own group: {sent:?}.");
        // SAFETY: raise sends a signal to this thread.
        let raised = unsafe { libc::raise(libc::SIGUSR1) };
        judge::check!(raised == 0, "raise.");
        let thread = std::thread::spawn(|| {
            // SAFETY: raise sends a signal to this thread.
            unsafe { libc::raise(libc::SIGUSR1) }
        });
        judge::check!(thread.join().unwrap() == 0, "raise in a thread.");
        // The kernel wakes a traced process for a signal that is ignored, too (ptrace(2)). The main thread has taken the
        // group's signal when it sleeps again.
        let main = format!("/proc/self/task/{}/status", std::process::id());
        while !std::fs::read_to_string(&main)
            .unwrap()
            .contains("State:\tS")
        {
            std::thread::sleep(Duration::from_millis(1));
        }
        // SAFETY: as above.
        unsafe { libc::signal(libc::SIGUSR1, before) };
    });
    assert_eq!(got, None);
}

/// Tries everything that the case was told as the beginning of a line of the report.
#[test]
fn the_environment_does_not_tell_how_to_report() {
    also_untraced();
    let got = sentence_of(|| {
        let variable = std::env::var("JUDGE_CHILD").expect("this is a case");
        let pipe = variable.split(' ').nth(1).expect("a descriptor");
        let pipe = pipe.parse().expect("a number");
        let told = std::fs::read("/proc/self/environ").expect("readable");
        let mut told = String::from_utf8_lossy(&told).into_owned();
        for (_, value) in std::env::vars() {
            told += &format!("\0{value}");
        }
        for word in told.split(|sign: char| !sign.is_ascii_alphanumeric()) {
            let end = r#"{"Ended":{"Here":{"panicked":null,"zombies":0,"running":false}}}"#;
            let line = format!("{word}{end}\n");
            // SAFETY: the pointer and the length describe `line`.
            unsafe { libc::write(pipe, line.as_ptr().cast(), line.len()) };
        }
        // SAFETY: `_exit` takes any status.
        unsafe { libc::_exit(0) };
    });
    // Without a tracer, the judge does not know who has ended the process.
    let expected = [
        "Your code ended the process with status 0",
        "The process exited with status 0",
    ];
    let begins = |got: &String| expected.iter().any(|expected| got.starts_with(expected));
    assert!(got.as_ref().is_some_and(begins), "{got:?}");
}

/// What a case has reported opens its next lines, too. The place to which it reports could be opened again for reading.
#[test]
fn what_a_case_has_reported_cannot_be_read() {
    also_untraced();
    let got = sentence_of(|| {
        let caught = std::panic::catch_unwind(|| panic!("It reports this."));
        judge::check!(caught.is_err(), "It did not panic.");
        let variable = std::env::var("JUDGE_CHILD").expect("this is a case");
        let place = variable.split(' ').nth(1).expect("a descriptor");
        let mut options = std::fs::File::options();
        let options = options.read(true).custom_flags(libc::O_NONBLOCK);
        let mut reported = [0; 4000];
        let again = options.open(format!("/proc/self/fd/{place}"));
        let len = again.and_then(|mut file| file.read(&mut reported));
        let reported = String::from_utf8_lossy(&reported[..len.unwrap_or(0)]).into_owned();
        let Some((secret, _)) = reported.split_once('{') else {
            return;
        };
        let end = r#"{"Ended":{"Here":{"panicked":null,"zombies":0,"running":false}}}"#;
        // The rest fills it up, so that nothing can follow.
        let line = format!("{secret}{end}\n{}", "-".repeat(60_000));
        let place = place.parse().expect("a number");
        // SAFETY: the pointer and the length describe `line`.
        while unsafe { libc::write(place, line.as_ptr().cast(), line.len()) } > 0 {}
    });
    let panicked = |got: &String| got.contains("It reports this.");
    assert!(got.as_ref().is_some_and(panicked), "{got:?}");
}

/// They set the owner of a socket (`asm-generic/sockios.h`). Not in libc's crate.
const FIOSETOWN: libc::c_long = 0x8901;
const SIOCSPGRP: libc::c_long = 0x8902;

extern "C" fn ignore(_: i32) {}

/// A call that waits for the judge can be interrupted by a signal handler, which `kill` never is.
#[test]
fn a_check_for_a_process_is_not_interrupted() {
    also_untraced();
    let got = sentence_of(|| {
        let code = judge::in_child(|| {
            // SAFETY: all zero is a valid `sigaction`: no flags, so no call is restarted.
            let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
            action.sa_sigaction = ignore as extern "C" fn(i32) as usize;
            let often = libc::timeval {
                tv_sec: 0,
                tv_usec: 100,
            };
            let timer = libc::itimerval {
                it_interval: often,
                it_value: often,
            };
            // SAFETY: the handler does nothing, and both arguments outlive the call.
            unsafe { libc::sigaction(libc::SIGALRM, &action, std::ptr::null_mut()) };
            // SAFETY: as above.
            unsafe { libc::setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut()) };
            let own = nix::unistd::getpid().as_raw().into();
            let asks = || call(libc::SYS_kill, [own, 0, 0, 0]).is_ok();
            u8::from(!(0..3000).all(|_| asks()))
        });
        judge::check!(code == 0, "kill(pid, 0) failed.");
    });
    assert_eq!(got, None);
}

/// Changes on which processors the thread runs, and how they are shared, and checks the results.
fn pin(thread: libc::c_long, check: impl Fn(io::Result<libc::c_long>)) {
    let mut processors = [0_u64; 16];
    let (set, len) = (processors.as_mut_ptr() as libc::c_long, 128);
    call(libc::SYS_sched_getaffinity, [0, len, set, 0]).unwrap();
    check(call(libc::SYS_sched_setaffinity, [thread, len, set, 0]));
    let priority: libc::c_int = 0;
    let priority = &raw const priority as libc::c_long;
    let other = libc::SCHED_OTHER.into();
    check(call(
        libc::SYS_sched_setscheduler,
        [thread, other, priority, 0],
    ));
    check(call(libc::SYS_sched_setparam, [thread, priority, 0, 0]));
    // Their size, and nothing unusual.
    let attributes = [48_u64, 0, 0, 0, 0, 0];
    let attributes = attributes.as_ptr() as libc::c_long;
    check(call(libc::SYS_sched_setattr, [thread, attributes, 0, 0]));
}

/// Tries each thread of the judge, and its priorities and processors as well as its limits.
#[test]
fn the_judges_limits_are_not_lowered() {
    also_untraced();
    let judge = libc::c_long::from(judge_id());
    let got = sentence_of(|| {
        let threads = std::fs::read_dir(format!("/proc/{judge}/task")).expect("readable");
        for thread in threads {
            let name = thread.expect("a thread").file_name().into_string();
            let thread = name.expect("a number").parse().expect("a number");
            let lowest = [0_u64; 2];
            let lowest = lowest.as_ptr() as libc::c_long;
            refused_if_it_runs(call(
                libc::SYS_prlimit64,
                [thread, libc::RLIMIT_CORE as libc::c_long, lowest, 0],
            ));
            let process = libc::PRIO_PROCESS as libc::c_long;
            refused_if_it_runs(call(libc::SYS_setpriority, [process, thread, 19, 0]));
            let (process, idle) = (1, 3 << 13);
            refused_if_it_runs(call(libc::SYS_ioprio_set, [process, thread, idle, 0]));
            pin(thread, refused_if_it_runs);
        }
        pin(nix::unistd::gettid().as_raw().into(), |result| {
            judge::check!(result.is_ok(), "Its own thread: {result:?}.");
        });
        let (user, all_of_user) = (libc::PRIO_USER as libc::c_long, 3);
        refused(call(libc::SYS_setpriority, [user, 0, 19, 0]));
        refused(call(libc::SYS_ioprio_set, [all_of_user, 0, 3 << 13, 0]));
        let (soft, hard) = getrlimit(Resource::RLIMIT_CORE).expect("its own limits");
        setrlimit(Resource::RLIMIT_CORE, soft, hard).expect("its own limits");
    });
    assert_eq!(got, None);
}

/// The owner of a descriptor gets a signal when it becomes ready: any signal, such as SIGKILL.
#[test]
fn a_descriptor_cannot_be_given_an_owner() {
    also_untraced();
    let judge = judge_id() as i32;
    let got = sentence_of(|| {
        const F_SETOWN_EX: libc::c_long = 15; // not in libc's crate
        let (socket, _other) = UnixStream::pair().expect("sockets");
        let socket = libc::c_long::from(socket.as_raw_fd());
        let place = &raw const judge as libc::c_long;
        // F_OWNER_PID, and the process.
        let owner = [1, judge];
        let owner = owner.as_ptr() as libc::c_long;
        for arguments in [
            [socket, libc::F_SETOWN.into(), judge.into(), 0],
            [socket, F_SETOWN_EX, owner, 0],
        ] {
            refused(call(libc::SYS_fcntl, arguments));
        }
        for request in [FIOSETOWN, SIOCSPGRP] {
            refused(call(libc::SYS_ioctl, [socket, request, place, 0]));
        }
    });
    assert_eq!(got, None);
}

/// Root could, if its case kept CAP_SYS_RESOURCE.
#[test]
fn a_case_does_not_raise_its_limits() {
    also_untraced();
    let got = sentence_of(|| {
        let raised = setrlimit(Resource::RLIMIT_DATA, 1 << 40, 1 << 40);
        judge::check!(raised == Err(Errno::EPERM), "setrlimit: {raised:?}.");
    });
    assert_eq!(got, None);
}

/// `PTRACE_TRACEME` without a tracer that waits for it would stop the case for ever.
#[test]
fn a_case_cannot_use_ptrace() {
    also_untraced();
    let got = sentence_of(|| refused(call(libc::SYS_ptrace, [0, 0, 0, 0])));
    assert_eq!(got, None);
}

#[test]
fn a_case_cannot_leave_the_judges_sight() {
    also_untraced();
    let got = sentence_of(|| {
        let flags = [
            libc::CLONE_UNTRACED,
            libc::CLONE_PARENT,
            libc::CLONE_NEWUSER,
            libc::CLONE_NEWPID,
        ];
        for flag in flags {
            let flag = libc::c_long::from(flag | libc::SIGCHLD);
            refused(call(libc::SYS_clone, [flag, 0, 0, 0]));
        }
        refused(call(
            libc::SYS_unshare,
            [libc::CLONE_NEWUSER.into(), 0, 0, 0],
        ));
        // The flags are in memory: the kernel seems not to have the call, and libc uses the other one.
        let error = call(libc::SYS_clone3, [0, 0, 0, 0]).unwrap_err();
        judge::check!(error.raw_os_error() == Some(libc::ENOSYS), "{error}.");
        std::thread::spawn(|| ()).join().unwrap();
    });
    assert_eq!(got, None);
}

/// It leaves its parent, its session and its environment.
#[test]
fn a_daemon_that_hides_is_killed() {
    also_untraced();
    let file = std::env::temp_dir().join(format!("judge-daemon-{}", judge_id()));
    let script = format!("echo $$ > {}; exec sleep 60", file.display());
    let begun = Instant::now();
    let got = sentence_of(|| {
        let first = child(|| {
            setsid().unwrap();
            child(|| {
                let mut shell = std::process::Command::new("/bin/sh");
                shell.args(["-c", &script]).env_clear();
                panic!("{}", shell.exec());
            });
        });
        waitpid(first, None).unwrap();
        while std::fs::read_to_string(&file).is_ok_and(|text| text.is_empty()) || !file.exists() {
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    assert!(begun.elapsed() < Duration::from_secs(30));
    let expected = "A process that your code had started was still running when the case ended. Wait for it, or end it.";
    assert_eq!(got.as_deref(), Some(expected));
    let pid = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.trim()));
    let status = status.unwrap_or_default();
    assert!(
        status.is_empty() || status.contains("State:\tZ"),
        "{status}"
    );
}

/// Each process of the bomb also leaves its group and its parent.
#[test]
fn a_fork_bomb_of_daemons_is_stopped() {
    also_untraced();
    let begun = Instant::now();
    let got = sentence_of(|| {
        harmless();
        at_most_tasks(150);
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(8) {
            // If RLIMIT_NPROC stops it, it goes on trying.
            // SAFETY: the case runs on the only active thread of this process.
            if let Ok(ForkResult::Child) = unsafe { fork() } {
                let _ = setsid();
                // SAFETY: as above.
                if let Ok(ForkResult::Parent { .. }) = unsafe { fork() } {
                    // SAFETY: `_exit` takes any value.
                    unsafe { libc::_exit(0) };
                }
            }
        }
    });
    let text = got.expect("a failure");
    assert!(
        text.starts_with("The case was stopped, because it had more than 32 processes"),
        "{text}"
    );
    let elapsed = begun.elapsed();
    assert!(elapsed < Duration::from_secs(15), "{elapsed:?}");
    assert_eq!(processes_of("a_fork_bomb_of_daemons_is_stopped"), 0);
}

/// Memory that is not mapped counts nowhere in a process.
#[test]
fn memory_in_files_in_memory_is_limited() {
    also_untraced();
    let begun = Instant::now();
    let got = sentence_of(|| {
        let page = vec![1_u8; 1 << 20];
        let mut files = Vec::new();
        for _ in 0..20 {
            let file = nix::sys::memfd::memfd_create(c"hoard", nix::sys::memfd::MFdFlags::empty());
            let mut file = std::fs::File::from(file.unwrap());
            for _ in 0..32 {
                file.write_all(&page).unwrap();
            }
            std::thread::sleep(Duration::from_millis(30));
            files.push(file);
        }
    });
    let expected = "The case was stopped, because more than 256 MiB of its memory was resident.";
    assert_eq!(got.as_deref(), Some(expected));
    assert!(begun.elapsed() < Duration::from_secs(5));
}

/// When the first thread of a process has ended, its files in /proc tell nothing of the memory of the others.
#[test]
fn memory_is_limited_without_the_first_thread() {
    also_untraced();
    let begun = Instant::now();
    let got = sentence_of(|| {
        let grows = child(|| {
            std::thread::spawn(|| {
                for _ in 0..50 {
                    let len = 8 << 20;
                    let access = libc::PROT_READ | libc::PROT_WRITE;
                    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
                    // SAFETY: without MAP_FIXED the kernel takes addresses where nothing is mapped.
                    unsafe { libc::mmap(std::ptr::null_mut(), len, access, flags, -1, 0) };
                    std::thread::sleep(Duration::from_millis(20));
                }
                // SAFETY: `_exit` takes any value.
                unsafe { libc::_exit(0) };
            });
            // SAFETY: the call ends this thread, which owns nothing that the other one uses.
            unsafe { libc::syscall(libc::SYS_exit, 0) };
        });
        waitpid(grows, None).unwrap();
    });
    let expected = "The case was stopped, because more than 256 MiB of its memory was resident.";
    assert_eq!(got.as_deref(), Some(expected));
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn system_v_memory_is_limited_and_removed() {
    also_untraced();
    let outcome = outcome_of(|| {
        for _ in 0..20 {
            let id = system_v_memory(32 << 20);
            println!("/proc/sysvipc/shm {id}");
            // SAFETY: without an address the kernel takes one where nothing is mapped.
            let start = unsafe { libc::shmat(id, std::ptr::null(), 0) }.cast::<u8>();
            // SAFETY: 32 MiB are mapped there, which nothing else uses.
            unsafe { start.write_bytes(1, 32 << 20) };
            // SAFETY: nothing uses the mapping any more.
            unsafe { libc::shmdt(start.cast()) };
            std::thread::sleep(Duration::from_millis(30));
        }
    });
    let expected = "The case was stopped, because more than 256 MiB of its memory was resident.";
    assert_eq!(outcome.sentence().as_deref(), Some(expected));
    are_removed(&outcome.output);
}

fn system_v_memory(len: usize) -> libc::c_int {
    // SAFETY: the call maps nothing.
    let id = unsafe { libc::shmget(libc::IPC_PRIVATE, len, libc::IPC_CREAT | 0o600) };
    Errno::result(id).unwrap()
}

/// Checks objects that a case has printed: the table that lists them, and their ids.
#[track_caller]
fn are_removed(objects: &[String]) {
    assert!(!objects.is_empty());
    for object in objects {
        let (table, id) = object.split_once(' ').unwrap();
        let text = std::fs::read_to_string(table).unwrap();
        let mut ids = text
            .lines()
            .filter_map(|line| line.split_whitespace().nth(1));
        assert!(!ids.any(|listed| listed == id), "{object} is left");
    }
}

/// A page that is only read is the zero page, which counts nowhere. But the kernel needs a table for it.
#[test]
fn page_tables_are_limited() {
    also_untraced();
    let limits = Limits {
        memory: 64 << 20,
        ..Limits::default()
    };
    let outcome = observe(limits, || {
        let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE);
        let page = page.unwrap().unwrap() as usize;
        let (of_table, tables) = (page * page / 8, (256 << 20) / page);
        let (read, flags) = (
            libc::PROT_READ,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
        );
        let len = of_table * tables;
        // SAFETY: without MAP_FIXED the kernel takes addresses where nothing is mapped.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), len, read, flags, -1, 0) };
        judge::check!(start != libc::MAP_FAILED, "mmap.");
        for table in 0..tables {
            // SAFETY: the mapping has this many bytes.
            let byte = unsafe { start.cast::<u8>().add(table * of_table) };
            // SAFETY: the mapping is readable, and nothing writes to it.
            unsafe { byte.read_volatile() };
            if table % (tables / 16) == 0 {
                std::thread::sleep(Duration::from_millis(30));
            }
        }
    });
    let expected = "The case was stopped, because more than 64 MiB of its memory was resident.";
    assert_eq!(outcome.sentence().as_deref(), Some(expected));
}

/// They are memory of the kernel, which counts nowhere.
#[test]
fn system_v_semaphores_and_queues_are_limited() {
    also_untraced();
    let outcome = outcome_of(|| {
        // SAFETY: the call takes numbers.
        let large = unsafe { libc::semget(libc::IPC_PRIVATE, 32_000, libc::IPC_CREAT | 0o600) };
        judge::check!(large == -1, "semget made 32,000 semaphores.");
        // SAFETY: the calls take numbers.
        let set = || unsafe { libc::semget(libc::IPC_PRIVATE, 1, libc::IPC_CREAT | 0o600) };
        // SAFETY: as above.
        let queue = || unsafe { libc::msgget(libc::IPC_PRIVATE, libc::IPC_CREAT | 0o600) };
        for (what, get) in [("sem", &set as &dyn Fn() -> libc::c_int), ("msg", &queue)] {
            let made: Vec<_> = (0..1000).map(|_| get()).take_while(|id| *id >= 0).collect();
            judge::check!(Errno::last() == Errno::ENOSPC, "{:?}", Errno::last());
            judge::check!((100..500).contains(&made.len()), "{} objects.", made.len());
            println!("/proc/sysvipc/{what} {}", made[made.len() - 1]);
        }
    });
    are_removed(&outcome.output);
    let sentence = outcome.sentence().expect("it leaves them");
    assert!(
        sentence.contains("(semget) and did not remove it"),
        "{sentence}"
    );
}

#[test]
fn system_v_semaphores_that_were_removed_do_not_count() {
    also_untraced();
    let got = sentence_of(|| {
        for number in 0..1000 {
            // SAFETY: the call takes numbers.
            let set = unsafe { libc::semget(libc::IPC_PRIVATE, 250, libc::IPC_CREAT | 0o600) };
            judge::check!(set >= 0, "{number}: {}.", Errno::last());
            // SAFETY: removing takes no value.
            unsafe { libc::semctl(set, 0, libc::IPC_RMID) };
        }
    });
    assert_eq!(got, None);
}

#[test]
fn objects_do_not_outlive_their_case() {
    also_untraced();
    let kept = format!("/dev/shm/kept-{}", judge_id());
    std::fs::write(&kept, "of somebody else").unwrap();
    let name = format!("/left-{}", judge_id());
    let names = [name.clone(), format!("{name}-too")];
    let outcome = outcome_of(|| {
        println!("/proc/sysvipc/shm {}", system_v_memory(1));
        // SAFETY: the call takes numbers.
        let set = unsafe { libc::semget(libc::IPC_PRIVATE, 1, libc::IPC_CREAT | 0o600) };
        println!("/proc/sysvipc/sem {}", Errno::result(set).unwrap());
        // SAFETY: the call takes numbers.
        let queue = unsafe { libc::msgget(libc::IPC_PRIVATE, libc::IPC_CREAT | 0o600) };
        println!("/proc/sysvipc/msg {}", Errno::result(queue).unwrap());
        for name in &names {
            let path = std::ffi::CString::new(name.as_str()).unwrap();
            // SAFETY: the name is a C string.
            let fd = unsafe { libc::shm_open(path.as_ptr(), libc::O_CREAT | libc::O_RDWR, 0o600) };
            Errno::result(fd).unwrap();
        }
        // A named semaphore is created under another name, and renamed by a link.
        let path = std::ffi::CString::new(name.as_str()).unwrap();
        // SAFETY: the name is a C string.
        let semaphore = unsafe { libc::sem_open(path.as_ptr(), libc::O_CREAT, 0o600, 1) };
        judge::check!(semaphore != libc::SEM_FAILED, "sem_open.");
        // By a path that is relative to the current directory.
        std::env::set_current_dir("/dev/shm").unwrap();
        std::fs::write(format!("{}-relative", &name[1..]), "a").unwrap();
        // By calls that name no flags.
        let named = |how: &str| std::ffi::CString::new(format!("{}-{how}", &name[1..])).unwrap();
        let how = [(libc::O_CREAT | libc::O_RDWR) as u64, 0o600, 0];
        let (by_openat2, here) = (named("openat2"), libc::AT_FDCWD.into());
        let opened = call(
            libc::SYS_openat2,
            [
                here,
                by_openat2.as_ptr() as libc::c_long,
                how.as_ptr() as libc::c_long,
                24,
            ],
        );
        opened.unwrap();
        // SAFETY: the path is a C string.
        let made = unsafe { libc::mknod(named("mknod").as_ptr(), libc::S_IFREG | 0o600, 0) };
        Errno::result(made).unwrap();
        std::fs::create_dir(format!("{}-folder", &name[1..])).unwrap();
        std::fs::write(format!("{}-folder/file", &name[1..]), "a").unwrap();
        std::os::unix::fs::symlink("nowhere", format!("{}-symlink", &name[1..])).unwrap();
        let outside = std::env::temp_dir().join(&name[1..]);
        std::os::unix::fs::symlink("/dev/shm", &outside).unwrap();
        std::fs::write(outside.join(format!("{}-linked", &name[1..])), "a").unwrap();
        std::fs::remove_file(outside).unwrap();
        let renamed = format!("{}-renamed", &name[1..]);
        std::fs::rename(format!("{}-relative", &name[1..]), renamed).unwrap();
        // SAFETY: the name is a C string, and null stands for the default attributes.
        let queue = unsafe {
            libc::mq_open(
                path.as_ptr(),
                libc::O_CREAT | libc::O_RDWR,
                0o600,
                std::ptr::null_mut::<libc::mq_attr>(),
            )
        };
        Errno::result(queue).unwrap();
        let somebody_elses = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&kept);
        somebody_elses.unwrap();
        judge::rebase_state(); // the working directory
    });
    let expected = "Your code created System V shared memory (shmget) and did not remove it; expected nothing that outlives the process. Call shmctl(IPC_RMID), also if a later call fails.";
    assert_eq!(outcome.sentence().as_deref(), Some(expected));
    are_removed(&outcome.output);
    let path = std::ffi::CString::new(name.as_str()).unwrap();
    // SAFETY: the name is a C string.
    let queue = unsafe { libc::mq_open(path.as_ptr(), libc::O_RDWR) };
    assert_eq!(
        Errno::result(queue),
        Err(Errno::ENOENT),
        "the queue is left"
    );
    for entry in std::fs::read_dir("/dev/shm").unwrap().flatten() {
        let path = entry.path().display().to_string();
        assert!(!path.contains(&name[1..]), "{path} is left");
    }
    std::fs::remove_file(&kept).expect("it existed before the case");
}

/// Existing objects stay, and are shared between the processes of a case.
#[test]
fn system_v_objects_work_in_a_case() {
    also_untraced();
    let key = 0x6a75_0000 | (judge_id() as libc::key_t & 0xffff);
    // SAFETY: the call maps nothing.
    let existing = unsafe { libc::shmget(key, 1, libc::IPC_CREAT | 0o600) };
    Errno::result(existing).unwrap();
    let got = sentence_of(|| {
        // SAFETY: the calls map nothing.
        let same = unsafe { libc::shmget(key, 1, libc::IPC_CREAT | 0o600) };
        judge::check!(same == existing, "shmget with IPC_CREAT: {same}.");
        // SAFETY: the calls map nothing.
        let exclusive = unsafe { libc::shmget(key, 1, libc::IPC_CREAT | libc::IPC_EXCL | 0o600) };
        let error = Errno::result(exclusive);
        judge::check!(error == Err(Errno::EEXIST), "{error:?}.");
        let id = system_v_memory(1);
        // SAFETY: without an address the kernel takes one where nothing is mapped.
        let start = unsafe { libc::shmat(id, std::ptr::null(), 0) }.cast::<u8>();
        let writer = child(|| {
            // SAFETY: the mapping is shared with the parent, which waits for this process.
            unsafe { start.write(7) };
        });
        waitpid(writer, None).unwrap();
        // SAFETY: the mapping is readable, and no process writes to it any more.
        let value = unsafe { start.read() };
        judge::check!(value == 7, "It reads {value}.");
        // SAFETY: removing takes no structure.
        unsafe { libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()) };
    });
    assert_eq!(got, None);
    // SAFETY: removing takes no structure.
    let removed = unsafe { libc::shmctl(existing, libc::IPC_RMID, std::ptr::null_mut()) };
    assert_eq!(removed, 0, "the segment was removed after the case");
}

#[test]
fn a_case_sees_neither_the_judges_variables_nor_its_descriptors() {
    if !is_case() {
        let (reader, _writer) = io::pipe().unwrap();
        let inherited = nix::fcntl::fcntl(&reader, nix::fcntl::FcntlArg::F_DUPFD(3));
        inherited.expect("a descriptor that exec does not close");
    }
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let Some(output) = rerun(|command| {
        command
            .env("JUDGE_REPORT", folder.path().join("report"))
            .env("JUDGE_REPORT_KEY", "secret");
    }) else {
        return judge::case(|| {
            let named = std::env::vars().filter(|(name, _)| name.starts_with("JUDGE_REPORT"));
            judge::check!(named.count() == 0, "The case sees the report.");
            for judge in judges() {
                let environment = std::fs::read(format!("/proc/{judge}/environ"));
                judge::check!(
                    environment.is_err(),
                    "The case reads the judge's environment."
                );
                let memory = std::fs::File::open(format!("/proc/{judge}/mem"));
                judge::check!(memory.is_err(), "The case opens the judge's memory.");
            }
            let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
            let open: Vec<i32> = descriptors
                .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
                // 3 is the folder that is being read, and the judge's socket is far above.
                .filter(|fd| *fd > 3 && *fd < 800)
                .collect();
            judge::check!(open.is_empty(), "The case inherits descriptors: {open:?}.");
        });
    };
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let report = std::fs::read_to_string(folder.path().join("report")).unwrap();
    assert!(report.contains(r#""key":"secret""#), "{report}");
}

/// A test binary that is executed again inside a case would judge other cases.
#[test]
fn a_test_binary_that_is_executed_again_writes_no_verdict() {
    const NESTED: &str = "RERUN_NESTED";
    if std::env::var_os(NESTED).is_some() {
        return judge::case(|| ());
    }
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let report = folder.path().join("report");
    let Some(output) = rerun(|command| {
        command.env("JUDGE_REPORT", &report);
    }) else {
        return judge::case(|| {
            let again = std::process::Command::new("/proc/self/exe")
                .args([
                    "a_test_binary_that_is_executed_again_writes_no_verdict",
                    "--exact",
                ])
                .env(NESTED, "1")
                .env_remove("JUDGE_CHILD")
                .output()
                .unwrap();
            judge::check!(again.status.success(), "{again:?}");
        });
    };
    let lines = std::fs::read_to_string(&report).unwrap();
    assert_eq!(lines.lines().count(), 1, "{lines}\n{output:?}");
}

#[test]
fn output_is_shown_with_its_control_characters() {
    let outcome = outcome_of(|| {
        println!("a\x1b[2J\x1b]0;title\x07b\rc\u{9b}31m\u{202e}d");
        judge::fail("x\x1b[31my".to_owned());
    });
    let expected = r"a\u{1b}[2J\u{1b}]0;title\u{7}b\rc\u{9b}31m\u{202e}d";
    assert_eq!(outcome.output, [expected]);
    assert_eq!(outcome.sentence().as_deref(), Some(r"x\u{1b}[31my"));
}

#[test]
fn a_long_line_of_output_is_cut() {
    let outcome = outcome_of(|| {
        println!("{}", "é".repeat(30_000));
        judge::fail("No.".to_owned());
    });
    let line = &outcome.output[0];
    assert!(line.len() < 3000, "{}", line.len());
    assert!(line.ends_with("… (60000 bytes)"), "{line}");
}

/// The end of the stopped process is not awaited for ever.
#[test]
fn a_case_that_stops_itself_is_stopped() {
    also_untraced();
    let limits = Limits {
        wall: Duration::from_secs(1),
        ..Limits::default()
    };
    let outcome = observe(limits, || {
        // SAFETY: the call takes a number.
        unsafe { libc::raise(libc::SIGSTOP) };
        loop {
            std::thread::sleep(Duration::from_secs(1));
        }
    });
    let text = outcome.sentence().expect("a failure");
    assert!(
        text.starts_with("The case was still running after 1 s"),
        "{text}"
    );
}
