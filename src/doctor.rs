//! `workbook doctor`: what this machine is, and what that means for grading.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anstream::println;
use anyhow::Result;
use nix::sys::ptrace;
use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::{Pid, SysconfVar, sysconf};
use serde::Serialize;

use crate::root;
use crate::words::{FAINT, STRONG, styled};

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    what: &'static str,
    found: String,
    /// What it means; empty where it is as it should be.
    means: String,
}

/// Looks at everything, and tells.
///
/// # Errors
/// If the findings cannot be written as JSON.
pub fn run(clone: &Path, json: bool) -> Result<()> {
    let findings = [
        kernel(),
        page_size(),
        huge_pages(),
        overcommit(),
        tracing(),
        memory(),
        sandbox(),
        place(clone),
        record(clone),
        toolchain(clone),
        tool(
            "cc",
            "--version",
            "Rust links with it, and cargo test compiles the book's programs in C: install a C compiler",
        ),
        tool(
            "valgrind",
            "--version",
            "workbook bench does not count instructions",
        ),
    ];
    if json {
        println!("{}", serde_json::to_string_pretty(&findings)?);
        return Ok(());
    }
    for Finding { what, found, means } in &findings {
        println!("{} {found}", styled(STRONG, &format!("{what:<12}")));
        if !means.is_empty() {
            println!("{:<12} {}", "", styled(FAINT, means));
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

/// A file's text without its last newline; empty where there is none.
fn text(path: &str) -> String {
    fs::read_to_string(path)
        .unwrap_or_default()
        .trim_end()
        .to_owned()
}

/// `[always] madvise never`: what stands in brackets.
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
        version if version < (5, 10) => "the graders are made for Linux 5.10 and later",
        version if version < (5, 14) => {
            "there is no MADV_POPULATE_WRITE before 5.14: prefault is graded by its other way"
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
            "the exam's sentences were recorded with 4 KiB pages: cargo test may differ in numbers, grading does not"
        }
    };
    finding("page size", format!("{} KiB", size >> 10), means)
}

fn huge_pages() -> Finding {
    let setting = chosen("/sys/kernel/mm/transparent_hugepage/enabled");
    match setting.as_str() {
        "" => finding("huge pages", "not in this kernel", ""),
        "always" => finding(
            "huge pages",
            "always",
            "graded cases switch them off for themselves; your own programs will take fewer faults than the book says",
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
            "mmap refuses nothing for its size: the book's page on overcommit says what you will see instead",
        ),
        "2" => finding(
            "overcommit",
            "2, never",
            "every promise is counted: large mappings can fail where the book says they succeed",
        ),
        other => finding("overcommit", other, ""),
    }
}

/// Tries it on a process of its own.
fn tracing() -> Finding {
    let sleeper = Command::new("sleep").arg("5").stdin(Stdio::null()).spawn();
    let Ok(mut sleeper) = sleeper else {
        return finding("ptrace", "not tried: there is no sleep(1)", "");
    };
    let pid = Pid::from_raw(sleeper.id() as i32);
    let traced = ptrace::seize(pid, ptrace::Options::empty());
    let _ = sleeper.kill();
    let _ = sleeper.wait();
    match traced {
        Ok(()) => finding("ptrace", "allowed", ""),
        Err(error) => finding(
            "ptrace",
            format!("refused: {error}"),
            "system calls cannot be seen, and the cases that ask about them are skipped; in a container: \
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
        true => "below 1 GiB: cases that map much may fail for want of it",
        false => "",
    };
    match found.is_empty() {
        true => finding("memory", "no limit", ""),
        false => finding("memory", found.join(", "), means),
    }
}

/// gVisor, an emulator, WSL: kernels that are not what they seem.
fn sandbox() -> Finding {
    let version = text("/proc/version");
    if fs::read_to_string("/proc/sys/kernel/ostype").is_err() || version.contains("gVisor") {
        return finding(
            "sandbox",
            "perhaps gVisor",
            "its page tables are not Linux's: cases about resident pages and faults are skipped",
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
            "QEMU without hardware support, it seems",
            "everything is slow, nothing is wrong",
        );
    }
    finding("sandbox", "none seen", "")
}

fn place(clone: &Path) -> Finding {
    let found = clone.display().to_string();
    match root::is_on_a_network(clone) {
        true => finding(
            "clone",
            found,
            "on a network or a foreign file system: saves are found by looking, and builds are slow",
        ),
        false => finding("clone", found, ""),
    }
}

/// Where verdicts and hints are recorded; tried with a file that nobody sees.
fn record(clone: &Path) -> Finding {
    let home = root::home(clone);
    let there = home.ancestors().find(|folder| folder.is_dir());
    let written = there.map(|folder| {
        let mut file = tempfile::tempfile_in(folder)?;
        file.write_all(b"tried")
    });
    match written {
        Some(Ok(())) => finding("progress", home.display().to_string(), ""),
        _ => finding(
            "progress",
            format!("{} cannot be written", home.display()),
            "you are graded, and no verdict or hint is remembered: WORKBOOK_HOME can name another folder",
        ),
    }
}

/// The first line that a program prints.
fn says(program: &str, argument: &str, folder: &Path) -> Option<String> {
    let output = Command::new(program)
        .arg(argument)
        .current_dir(folder)
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    output
        .status
        .success()
        .then(|| text.lines().next().unwrap_or_default().to_owned())
}

fn toolchain(clone: &Path) -> Finding {
    match says("rustc", "--version", clone) {
        Some(version) => finding("toolchain", version, ""),
        None => finding("toolchain", "no rustc", "install Rust: https://rustup.rs"),
    }
}

fn tool(name: &'static str, argument: &str, without: &str) -> Finding {
    match says(name, argument, Path::new("/")) {
        Some(version) => finding(name, version, ""),
        None => finding(name, "not here", without),
    }
}
