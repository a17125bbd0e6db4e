//! `workbook doctor`: describes this machine, and what that means for grading.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Result;
use nix::sys::ptrace;
use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::{Pid, SysconfVar, sysconf};
use serde::Serialize;

use course::process::{self, Limits};
use course::root;

use crate::say;
use crate::terminal::{FAINT, STRONG, styled};

#[derive(Debug, Serialize)]
struct Finding {
    what: &'static str,
    found: String,
    /// The consequence for the learner; empty if there is none.
    means: String,
}

/// Examines this machine and prints the findings.
///
/// # Errors
/// Returns an error if the findings cannot be represented as JSON.
pub fn run(clone: &Path, json: bool) -> Result<()> {
    let findings = [
        kernel(),
        page_size(),
        huge_pages(),
        overcommit(),
        tracing(),
        memory(),
        sandbox(),
        location(clone),
        progress(clone),
        toolchain(clone),
        tool(
            "cc",
            "--version",
            "rustc needs it as a linker, and `cargo test` compiles the book's C programs: install a C compiler",
        ),
        tool(
            "valgrind",
            "--version",
            "`bench` does not count instructions",
        ),
        bubblewrap(),
    ];
    if json {
        say!("{}", serde_json::to_string_pretty(&findings)?);
        return Ok(());
    }
    for Finding { what, found, means } in &findings {
        say!("{} {found}", styled(STRONG, &format!("{what:<12}")));
        if !means.is_empty() {
            say!("{:<12} {}", "", styled(FAINT, means));
        }
    }
    Ok(())
}

fn finding(what: &'static str, found: impl Into<String>, means: impl Into<String>) -> Finding {
    Finding {
        what,
        found: found.into(),
        means: means.into(),
    }
}

/// Returns a file's text without its last newline; empty if the file cannot be read.
fn text(path: &str) -> String {
    fs::read_to_string(path)
        .unwrap_or_default()
        .trim_end()
        .to_owned()
}

/// Returns the word in brackets, as in `[always] madvise never`.
fn chosen(path: &str) -> String {
    let text = text(path);
    let chosen = text
        .split_once('[')
        .and_then(|(_, rest)| rest.split_once(']'));
    chosen.map_or(text.clone(), |(chosen, _)| chosen.to_owned())
}

fn kernel() -> Finding {
    let release = text("/proc/sys/kernel/osrelease");
    let found = format!("Linux {release}, {}", std::env::consts::ARCH);
    let mut numbers = release
        .split(['.', '-'])
        .map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let means = match version {
        version if version < (5, 10) => "the graders need Linux 5.10 or later",
        version if version < (5, 14) => {
            "MADV_POPULATE_WRITE exists since Linux 5.14: `prefault` is graded by its fallback"
        }
        _ => "",
    };
    finding("kernel", found, means)
}

fn page_size() -> Finding {
    let size = sysconf(SysconfVar::PAGE_SIZE).ok().flatten().unwrap_or(0);
    let means = match size >> 10 {
        4 => "",
        _ => {
            "the exam was recorded with 4 KiB pages: numbers in `cargo test` may differ, gradings do not"
        }
    };
    finding("page size", format!("{} KiB", size >> 10), means)
}

fn huge_pages() -> Finding {
    let setting = chosen("/sys/kernel/mm/transparent_hugepage/enabled");
    match setting.as_str() {
        "" => finding("huge pages", "not supported by this kernel", ""),
        "always" => finding(
            "huge pages",
            "always",
            "graded cases disable them; your own programs will take fewer page faults than the book says",
        ),
        _ => finding("huge pages", setting, ""),
    }
}

fn overcommit() -> Finding {
    match text("/proc/sys/vm/overcommit_memory").as_str() {
        "0" => finding("overcommit", "0, heuristic", ""),
        "1" => finding(
            "overcommit",
            "1, always",
            "mmap never fails because of the size: see the book's page on overcommit",
        ),
        "2" => finding(
            "overcommit",
            "2, never",
            "commit charge is limited: large mappings can fail where the book says that they succeed",
        ),
        other => finding("overcommit", other, ""),
    }
}

/// Tries to trace a child process.
fn tracing() -> Finding {
    let sleeper = Command::new("sleep").arg("5").stdin(Stdio::null()).spawn();
    let Ok(mut sleeper) = sleeper else {
        return finding("ptrace", "not tested: sleep(1) cannot be started", "");
    };
    let pid = Pid::from_raw(sleeper.id() as i32);
    let traced = ptrace::seize(pid, ptrace::Options::empty());
    let _ = sleeper.kill();
    let _ = sleeper.wait();
    match traced {
        Ok(()) => finding("ptrace", "allowed", ""),
        Err(error) => finding(
            "ptrace",
            format!("not permitted: {error}"),
            "system calls cannot be traced, and the cases that need them are skipped; in a container, add \
             --cap-add=SYS_PTRACE",
        ),
    }
}

fn memory() -> Finding {
    let limit = |resource| match getrlimit(resource) {
        Ok((soft, _)) if soft != nix::libc::RLIM_INFINITY => Some(soft >> 20),
        _ => None,
    };
    let group = fs::read_to_string("/sys/fs/cgroup/memory.max").unwrap_or_default();
    let group = group.trim().parse::<u64>().ok().map(|bytes| bytes >> 20);
    let limits = [
        ("address space (ulimit -v)", limit(Resource::RLIMIT_AS)),
        ("data (ulimit -d)", limit(Resource::RLIMIT_DATA)),
        ("control group", group),
    ];
    let found: Vec<String> = limits
        .iter()
        .filter_map(|(what, mib)| Some(format!("{what} {} MiB", (*mib)?)))
        .collect();
    let means = match limits
        .iter()
        .any(|(_, mib)| mib.is_some_and(|mib| mib < 1 << 10))
    {
        true => "below 1 GiB: cases with large mappings may fail",
        false => "",
    };
    match found.is_empty() {
        true => finding("memory", "no limit", ""),
        false => finding("memory", found.join(", "), means),
    }
}

/// Detects gVisor, an emulator, or WSL.
fn sandbox() -> Finding {
    let version = text("/proc/version");
    if fs::read_to_string("/proc/sys/kernel/ostype").is_err() || version.contains("gVisor") {
        return finding(
            "sandbox",
            "probably gVisor",
            "its page tables differ from Linux's: cases about resident pages and page faults are skipped",
        );
    }
    if version.contains("icrosoft") {
        return finding(
            "sandbox",
            "WSL",
            "keep the clone in the Linux file system, not below /mnt",
        );
    }
    let cpu = text("/proc/cpuinfo");
    if cpu.contains("QEMU Virtual CPU") {
        return finding(
            "sandbox",
            "probably QEMU without hardware support",
            "everything is slow, but correct",
        );
    }
    finding("sandbox", "none detected", "")
}

fn location(clone: &Path) -> Finding {
    let found = clone.display().to_string();
    match root::is_on_a_network(clone) {
        true => finding(
            "clone",
            found,
            "on a network or Windows file system: saves are found by polling, and builds are slow",
        ),
        false => finding("clone", found, ""),
    }
}

/// Checks with a temporary file that verdicts and hints can be recorded.
fn progress(clone: &Path) -> Finding {
    let home = root::home(clone);
    let existing = home.ancestors().find(|folder| folder.is_dir());
    let written = existing.map(|folder| {
        let mut file = tempfile::tempfile_in(folder)?;
        file.write_all(b"test")
    });
    match written {
        Some(Ok(())) => finding("progress", home.display().to_string(), ""),
        _ => finding(
            "progress",
            format!("{} cannot be written", home.display()),
            "gradings work, but verdicts and hints are not remembered: WORKBOOK_HOME=FOLDER puts them elsewhere",
        ),
    }
}

/// Returns the first line that a program prints.
fn first_line(program: &str, argument: &str, folder: &Path) -> Option<String> {
    const LIMITS: Limits = Limits::time(Duration::from_secs(10));
    let mut command = Command::new(program);
    command
        .arg(argument)
        .current_dir(folder)
        .stdin(Stdio::null());
    let ran = process::run(&mut command, LIMITS).ok()?;
    let line = ran.stdout.lines().next().unwrap_or_default();
    ran.success().then(|| line.to_owned())
}

fn toolchain(clone: &Path) -> Finding {
    match first_line("rustc", "--version", clone) {
        Some(version) => finding("toolchain", version, ""),
        None => finding(
            "toolchain",
            "rustc not found",
            "install Rust from https://rustup.rs",
        ),
    }
}

fn tool(name: &'static str, argument: &str, without: &str) -> Finding {
    match first_line(name, argument, Path::new("/")) {
        Some(version) => finding(name, version, ""),
        None => finding(name, "not found", without),
    }
}

/// Whether `class` can grade strangers' answers.
fn bubblewrap() -> Finding {
    match crate::grade::sandbox::check() {
        Ok(()) => finding("bubblewrap", "works", ""),
        Err(error) => finding(
            "bubblewrap",
            "does not work",
            format!("`class` refuses to grade strangers' answers: {error:#}"),
        ),
    }
}
