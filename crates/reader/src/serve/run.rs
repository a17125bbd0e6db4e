//! Runs the lab's programs by name, one at a time and within limits.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use course::cargo::{Message, messages};
use course::process::{self, Killer, run_merged_with, run_with};
use serde::Serialize;

use super::Options;

/// What one request may use.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub build: process::Limits,
    pub run: process::Limits,
}

impl Default for Limits {
    fn default() -> Limits {
        let limits = |seconds, output| process::Limits {
            time: Duration::from_secs(seconds),
            output,
        };
        Limits {
            build: limits(300, 8 << 20),
            run: limits(10, 64 << 10),
        }
    }
}

#[derive(Debug)]
pub struct Runner {
    clone: PathBuf,
    cargo: OsString,
    cc: OsString,
    target: Option<PathBuf>,
    limits: Limits,
    /// Locked while a program is built or runs.
    busy: Mutex<()>,
    current: Mutex<Current>,
}

#[derive(Debug, Default)]
struct Current {
    /// Ends the program that was started last.
    program: Option<Killer>,
    /// Whether the server is ending.
    stopped: bool,
}

/// The result of a program.
#[derive(Debug, Serialize)]
pub struct Ran {
    /// Whether it was built and exited with status 0.
    pub ok: bool,
    /// Its output, followed by the reason if it failed.
    pub output: String,
}

/// Why no program was run.
#[derive(Debug, Clone, Copy)]
pub enum Refusal {
    UnknownName,
    Busy,
}

impl Runner {
    pub fn new(options: &Options) -> Runner {
        Runner {
            clone: options.clone.clone(),
            cargo: options.cargo.clone(),
            cc: options.cc.clone(),
            target: options.target.clone(),
            limits: options.limits,
            busy: Mutex::default(),
            current: Mutex::default(),
        }
    }

    /// Runs the example with that name.
    pub fn example(&self, name: &str) -> Result<Ran, Refusal> {
        if !self.names("book/lab/examples", "rs").contains(name) {
            return Err(Refusal::UnknownName);
        }
        self.build_and_run(|| self.build(&["--example", name]), &[])
    }

    /// Runs the C program with that name.
    pub fn c_program(&self, name: &str) -> Result<Ran, Refusal> {
        if !self.names("book/lab/c", "c").contains(name) {
            return Err(Refusal::UnknownName);
        }
        // The target directory allows programs to be executed. On some machines, the one for temporary files does not.
        let folder = match &self.target {
            Some(target) => tempfile::tempdir_in(target),
            None => tempfile::tempdir(),
        };
        let compile = || {
            let folder = folder.as_ref();
            let folder =
                folder.map_err(|error| format!("no temporary folder can be created: {error}"))?;
            self.compile(name, folder.path())
        };
        self.build_and_run(compile, &[])
    }

    /// Records the trace with that name on this machine.
    pub fn trace(&self, name: &str) -> Result<Ran, Refusal> {
        if !self.names("book/src/traces", "json").contains(name) {
            return Err(Refusal::UnknownName);
        }
        self.build_and_run(|| self.build(&["--bin", "record"]), &[name])
    }

    /// Kills the running program, waits until nothing of it is left, and starts no other.
    pub fn stop(&self) {
        let program = {
            let mut current = self.current();
            current.stopped = true;
            current.program.take()
        };
        if let Some(program) = program {
            program.kill();
        }
        drop(self.busy.lock());
    }

    /// Returns the names of the files with that extension. A request is looked up among them and never becomes a path.
    fn names(&self, folder: &str, extension: &str) -> BTreeSet<String> {
        let entries = fs::read_dir(self.clone.join(folder));
        let paths = entries.into_iter().flatten().flatten();
        let paths = paths.map(|entry| entry.path());
        let paths = paths.filter(|path| path.extension().is_some_and(|found| found == extension));
        paths
            .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
            .collect()
    }

    fn build_and_run(
        &self,
        build: impl FnOnce() -> Result<PathBuf, String>,
        arguments: &[&str],
    ) -> Result<Ran, Refusal> {
        let _busy = match self.busy.try_lock() {
            Ok(lock) => lock,
            Err(TryLockError::Poisoned(lock)) => lock.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(Refusal::Busy),
        };
        let failed = |output| Ok(Ran { ok: false, output });
        let program = match build() {
            Ok(program) => program,
            Err(output) => return failed(output),
        };
        let mut command = Command::new(&program);
        command
            .args(arguments)
            .current_dir(&self.clone)
            .stdin(Stdio::null());
        let started = |killer| self.started(killer);
        match run_merged_with(&mut command, self.limits.run, started) {
            Ok(ran) if ran.success() => Ok(Ran {
                ok: true,
                output: ran.stdout,
            }),
            Ok(ran) => failed(format!("{}\n(The program {}.)", ran.stdout, ran.describe())),
            Err(error) => failed(format!("{} cannot be started: {error}", program.display())),
        }
    }

    /// Builds a program of the lab. Returns its path, or the reason why there is none.
    fn build(&self, which: &[&str]) -> Result<PathBuf, String> {
        let mut command = Command::new(&self.cargo);
        command
            .args(["build", "--quiet", "--package", "lab"])
            .arg("--message-format=json-render-diagnostics")
            .args(which)
            .current_dir(&self.clone)
            .stdin(Stdio::null());
        if let Some(target) = &self.target {
            command.arg("--target-dir").arg(target);
        }
        let started = |killer| self.started(killer);
        let ran = run_with(&mut command, self.limits.build, started)
            .map_err(|error| format!("{} cannot be started: {error}", self.cargo.display()))?;
        let programs = messages(ran.stdout.as_bytes()).filter_map(|message| match message {
            Message::Artifact { executable, .. } => executable,
            _ => None,
        });
        let program = programs.last().filter(|_| ran.success());
        program.ok_or_else(|| format!("{}\n(The build {}.)", ran.stderr, ran.describe()))
    }

    /// Compiles a C program of the lab into `folder`. Returns its path, or the reason why there is none.
    fn compile(&self, name: &str, folder: &Path) -> Result<PathBuf, String> {
        let program = folder.join(name);
        let mut command = Command::new(&self.cc);
        command
            .args(["-std=c17", "-O1", "-Wall", "-Wextra", "-pthread"])
            .args(["-D_GNU_SOURCE", "-o"])
            .arg(&program)
            .arg(format!("book/lab/c/{name}.c"))
            .current_dir(&self.clone);
        let started = |killer| self.started(killer);
        let ran = run_with(&mut command, self.limits.build, started).map_err(|error| {
            let cc = self.cc.display();
            match error.kind() {
                io::ErrorKind::NotFound => {
                    format!("There is no C compiler: {cc} was not found. Install gcc or clang.")
                }
                _ => format!("{cc} cannot be started: {error}"),
            }
        })?;
        match ran.success() {
            true => Ok(program),
            false => Err(format!(
                "{}\n(The compiler {}.)",
                ran.stderr,
                ran.describe()
            )),
        }
    }

    /// Remembers how to end a program that has just been started.
    fn started(&self, killer: Killer) {
        let mut current = self.current();
        match current.stopped {
            true => killer.kill(),
            false => current.program = Some(killer),
        }
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
