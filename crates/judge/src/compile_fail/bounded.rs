//! Runs the compiler with a time limit.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::supervise::kill_family;

/// The time limit. The first run builds trybuild's dependencies, which takes minutes on a slow machine.
const LIMIT: Duration = Duration::from_secs(20 * 60);

/// What a program has printed.
pub struct Output {
    pub stdout: String,
    pub stderr: String,
}

/// Runs `command` and what it starts, for at most `LIMIT`.
pub fn output(command: Command) -> io::Result<Output> {
    within(command, LIMIT)
}

/// The output goes to files in memory, because a process that the program leaves would keep a pipe open.
fn within(mut command: Command, limit: Duration) -> io::Result<Output> {
    let file = || memfd_create(c"output", MFdFlags::MFD_CLOEXEC).map(File::from);
    let (stdout, stderr) = (file()?, file()?);
    command
        .stdout(stdout.try_clone()?)
        .stderr(stderr.try_clone()?);
    let mut child = command.spawn()?;
    match wait(&mut child, limit)? {
        Some(_) => Ok(Output {
            stdout: text(stdout)?,
            stderr: text(stderr)?,
        }),
        None => {
            // Not by process group: the command that runs this grader ends the whole group.
            kill_family(child.id() as i32);
            child.wait()?;
            let error = format!("it did not end within {} s", limit.as_secs());
            Err(io::Error::new(io::ErrorKind::TimedOut, error))
        }
    }
}

fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let begun = Instant::now();
    while begun.elapsed() < limit {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(None)
}

fn text(mut file: File) -> io::Result<String> {
    file.seek(SeekFrom::Start(0))?;
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut file, &mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compiler_that_does_not_end_is_killed_with_what_it_started() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 60 & echo $! > $PID; wait"]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pid");
        command.env("PID", &path);
        let result = within(command, Duration::from_millis(300)).map(|output| output.stdout);
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::TimedOut);
        let pid = std::fs::read_to_string(path).unwrap();
        // A process that was killed takes a moment to end.
        let ended = (0..500).any(|_| {
            let status = std::fs::read_to_string(format!("/proc/{}/status", pid.trim()));
            let runs = status.is_ok_and(|text| !text.contains("State:\tZ"));
            std::thread::sleep(Duration::from_millis(10));
            !runs
        });
        assert!(ended);
    }

    #[test]
    fn both_streams_are_read() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo out; echo err >&2"]);
        let output = within(command, LIMIT).unwrap();
        assert_eq!((&*output.stdout, &*output.stderr), ("out\n", "err\n"));
    }
}
