//! Traced cases are forked by a process that waits before `main`. They must find the same state as in a
//! program that was started for them alone.

mod common {
    pub mod rerun;
}

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::parent_id;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use common::rerun::rerun;
use judge::{Limits, observe};
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpid, getsid};

/// The process in which the constructor ran.
static CONSTRUCTED_IN: AtomicU32 = AtomicU32::new(0);

extern "C" fn construct() {
    CONSTRUCTED_IN.store(std::process::id(), Ordering::Relaxed);
}

// It comes before all constructors without a number, such as those of an answer.
// SAFETY: libc calls each function of this section once, before `main`. `construct` ignores the arguments.
#[used]
#[unsafe(link_section = ".init_array.00001")]
static CONSTRUCTOR: extern "C" fn() = construct;

/// The output of a case that passes.
fn output_of(body: impl FnOnce()) -> Vec<String> {
    let outcome = observe(Limits::default(), body);
    assert_eq!(outcome.sentence(), None, "{outcome:#?}");
    outcome.output
}

/// The parent of a case that prints it.
fn zygote_of(output: &[String]) -> Pid {
    Pid::from_raw(output[0].parse().unwrap())
}

fn print_the_parent() {
    println!("{}", parent_id());
}

/// The parent of a process, and its state.
fn status_of(pid: Pid) -> Option<(i32, String)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name| status.lines().find_map(|line| line.strip_prefix(name));
    let parent = field("PPid:\t")?.parse().unwrap();
    Some((parent, field("State:\t")?.to_owned()))
}

#[test]
fn cases_are_forked_by_one_process() {
    let zygote = zygote_of(&output_of(print_the_parent));
    assert_ne!(zygote, getpid());
    assert_eq!(status_of(zygote).unwrap().0, getpid().as_raw());
    assert_eq!(zygote_of(&output_of(print_the_parent)), zygote);
}

#[test]
fn constructors_run_in_each_case() {
    output_of(|| {
        let constructed_in = CONSTRUCTED_IN.load(Ordering::Relaxed);
        judge::check!(
            constructed_in == std::process::id(),
            "The constructor ran in process {constructed_in}."
        );
    });
}

#[test]
fn a_killed_zygote_is_replaced_and_its_cases_go_on() {
    // In a process of its own, because other tests expect one zygote.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let configure = |command: &mut Command| {
        command.env("BEGUN", folder.path().join("begun"));
    };
    if let Some(output) = rerun(configure) {
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}");
        return;
    }
    let begun = PathBuf::from(std::env::var_os("BEGUN").unwrap());
    let run = || {
        let body = || {
            print_the_parent();
            fs::write(&begun, "").unwrap();
            thread::sleep(Duration::from_millis(200));
        };
        zygote_of(&output_of(body))
    };
    let mut zygote = run();
    for _ in 0..3 {
        fs::remove_file(&begun).unwrap();
        let during = thread::scope(|scope| {
            scope.spawn(|| {
                while !begun.exists() {
                    thread::sleep(Duration::from_millis(1));
                }
                kill(zygote, Signal::SIGKILL).unwrap();
            });
            run()
        });
        assert_eq!(during, zygote);
        zygote = run();
        assert_ne!(zygote, during);
    }
}

/// What a case finds, in lines.
fn found() -> Vec<String> {
    let mut found: Vec<String> = std::env::args().skip(1).collect();
    let variables = std::env::vars().filter(|(name, _)| !name.starts_with("JUDGE_"));
    found.extend(variables.map(|(name, value)| format!("{name}={value}")));
    found.push(format!("{:?}", std::env::current_exe()));
    found.push(format!("{:?}", std::env::current_dir()));
    found.push(format!("its own session: {}", getsid(None) == Ok(getpid())));
    let lines = |file, which: fn(&str) -> bool| {
        let text = fs::read_to_string(file).unwrap();
        let lines: Vec<String> = text
            .lines()
            .filter(|line| which(line))
            .map(str::to_owned)
            .collect();
        lines
    };
    // The limit on processes depends on the tracer.
    found.extend(lines("/proc/self/limits", |line| {
        !line.starts_with("Max processes")
    }));
    found.extend(lines("/proc/thread-self/status", |line| {
        let fields = [
            "Name", "Umask", "Uid", "Gid", "Threads", "Sig", "Cap", "NoNew",
        ];
        fields.iter().any(|field| line.starts_with(field)) && !line.starts_with("SigQ")
    }));
    let heaps = lines("/proc/self/maps", |line| line.ends_with("[heap]"));
    found.push(format!("heaps: {}", heaps.len()));
    for option in [
        libc::PR_GET_DUMPABLE,
        libc::PR_GET_THP_DISABLE,
        libc::PR_GET_TIMERSLACK,
    ] {
        // SAFETY: the options take no arguments, and access no memory.
        let value = unsafe { libc::prctl(option, 0_u64, 0_u64, 0_u64, 0_u64) };
        found.push(format!("prctl {option}: {value}"));
    }
    for number in 0..1000 {
        let [status, descriptor] = [libc::F_GETFL, libc::F_GETFD].map(|flags| {
            // SAFETY: the call accesses no memory.
            unsafe { libc::fcntl(number, flags) }
        });
        if let Ok(about) = fs::metadata(format!("/proc/self/fd/{number}")) {
            let mode = about.mode();
            found.push(format!("{number}: {mode:o} {status:o} {descriptor}"));
        }
    }
    found
}

#[test]
fn a_forked_case_finds_what_an_executed_one_finds() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let file = folder.path().join("found");
    let found_by = |configure: fn(&mut Command)| {
        let output = rerun(|command| {
            command.env("FOUND", &file);
            configure(command);
        })?;
        assert!(output.status.success(), "{output:?}");
        Some(fs::read_to_string(&file).unwrap())
    };
    let Some(forked) = found_by(|_| ()) else {
        output_of(|| {
            let file = std::env::var_os("FOUND").unwrap();
            fs::write(&file, found().join("\n")).unwrap();
        });
        return;
    };
    // Without a tracer, the case is executed.
    let executed = found_by(|command| {
        command.env("JUDGE_NO_PTRACE", "1");
    });
    let executed = executed.unwrap();
    assert_eq!(forked.lines().count(), executed.lines().count());
    for (forked, executed) in forked.lines().zip(executed.lines()) {
        assert_eq!(forked, executed);
    }
}
