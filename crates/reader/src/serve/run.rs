//! Runs a program of the lab by its name: one at a time, for so long, with so much output. No source is taken.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::{Read, pipe};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::Options;

/// What one program may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// To be built.
    pub build: Duration,
    /// To run.
    pub run: Duration,
    /// Bytes that it prints.
    pub output: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            build: Duration::from_secs(300),
            run: Duration::from_secs(10),
            output: 64 << 10,
        }
    }
}

#[derive(Debug)]
pub struct Runner {
    clone: PathBuf,
    cargo: OsString,
    target: Option<PathBuf>,
    limits: Limits,
    busy: Mutex<()>,
}

/// What came of a program.
#[derive(Debug, Serialize)]
pub struct Ran {
    /// Whether it was built, ran, and ended well.
    pub ok: bool,
    /// What it printed, or what went wrong.
    pub output: String,
}

/// Why nothing ran.
#[derive(Debug, Clone, Copy)]
pub enum Refused {
    /// There is no program of that name.
    Unknown,
    /// Another is running.
    Busy,
}

impl Runner {
    pub fn new(options: &Options) -> Runner {
        Runner {
            clone: options.clone.clone(),
            cargo: options.cargo.clone(),
            target: options.target.clone(),
            limits: options.limits,
            busy: Mutex::default(),
        }
    }

    /// Runs the program of a page.
    pub fn example(&self, name: &str) -> Result<Ran, Refused> {
        if !self.names("book/lab/examples", "rs").contains(name) {
            return Err(Refused::Unknown);
        }
        self.build_and_run(&["--example", name], &[])
    }

    /// Records the trace anew.
    pub fn trace(&self, name: &str) -> Result<Ran, Refused> {
        if !self.names("book/src/traces", "json").contains(name) {
            return Err(Refused::Unknown);
        }
        self.build_and_run(&["--bin", "record"], &[name])
    }

    /// The files of that kind, by name: a request is looked up among them, and never becomes a path.
    fn names(&self, folder: &str, ending: &str) -> BTreeSet<String> {
        let entries = fs::read_dir(self.clone.join(folder));
        let paths = entries.into_iter().flatten().flatten();
        let paths = paths.map(|entry| entry.path());
        let paths = paths.filter(|path| path.extension().is_some_and(|found| found == ending));
        paths
            .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
            .collect()
    }

    fn build_and_run(&self, which: &[&str], arguments: &[&str]) -> Result<Ran, Refused> {
        let _one_at_a_time = match self.busy.try_lock() {
            Ok(lock) => lock,
            Err(TryLockError::Poisoned(lock)) => lock.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(Refused::Busy),
        };
        let mut build = Command::new(&self.cargo);
        build
            .args(["build", "--quiet", "--package", "lab"])
            .arg("--message-format=json-render-diagnostics")
            .args(which);
        if let Some(target) = &self.target {
            build.arg("--target-dir").arg(target);
        }
        let built = self.run(build, self.limits.build, 8 << 20);
        let Some(program) = executable(&built.output).filter(|_| built.ok) else {
            let said = built.output.lines().filter(|line| !line.starts_with('{'));
            let output = format!(
                "cargo does not build it:\n{}",
                said.collect::<Vec<_>>().join("\n")
            );
            return Ok(Ran { ok: false, output });
        };
        let mut program = Command::new(program);
        program.args(arguments);
        Ok(self.run(program, self.limits.run, self.limits.output))
    }

    /// Runs the command in a process group of its own, and leaves none of it behind.
    fn run(&self, mut command: Command, time: Duration, size: u64) -> Ran {
        let failed = |output: String| Ran { ok: false, output };
        let (reader, writer) = match pipe() {
            Ok(ends) => ends,
            Err(error) => return failed(format!("there is no pipe for its output: {error}")),
        };
        let also = writer.try_clone();
        let child = also.and_then(|also| {
            command
                .current_dir(&self.clone)
                .stdin(Stdio::null())
                .stdout(also)
                .stderr(writer)
                .process_group(0)
                .spawn()
        });
        // It holds the pipe's other end, which closes when the last process with it is gone.
        let program = format!("{:?}", command.get_program());
        drop(command);
        let mut child = match child {
            Ok(child) => child,
            Err(error) => return failed(format!("{program} does not start: {error}")),
        };
        let (sender, printed) = mpsc::channel();
        thread::spawn(move || {
            let mut output = Vec::new();
            let _ = reader.take(size + 1).read_to_end(&mut output);
            let _ = sender.send(output);
        });
        let group = Pid::from_raw(child.id() as i32);
        let end = Instant::now() + time;
        // All it has printed, or more than it may.
        let mut output = printed.recv_timeout(time);
        let late = matches!(output, Err(RecvTimeoutError::Timeout));
        let full = output
            .as_ref()
            .is_ok_and(|output| output.len() as u64 > size);
        let mut status = None;
        while !late && !full && status.is_none() && Instant::now() < end {
            status = child.try_wait().ok().flatten();
            if status.is_none() {
                thread::sleep(Duration::from_millis(5));
            }
        }
        // What it started goes with it.
        let _ = killpg(group, Signal::SIGKILL);
        let _ = child.wait();
        if late {
            output = printed.recv_timeout(Duration::from_secs(1));
        }
        let mut bytes = output.unwrap_or_default();
        bytes.truncate(size as usize);
        let mut output = String::from_utf8_lossy(&bytes).into_owned();
        match status {
            Some(status) if status.success() => return Ran { ok: true, output },
            Some(status) => output += &format!("\n({status})"),
            None if full => output += &format!("\n(stopped: it printed more than {size} bytes)"),
            None => output += &format!("\n(stopped after {} seconds)", time.as_secs()),
        }
        failed(output)
    }
}

/// The program that cargo says it has built.
fn executable(messages: &str) -> Option<PathBuf> {
    #[derive(Deserialize)]
    struct Message {
        executable: Option<PathBuf>,
    }
    let messages = messages.lines().rev();
    let mut messages = messages.filter_map(|line| serde_json::from_str::<Message>(line).ok());
    messages.find_map(|message| message.executable)
}
