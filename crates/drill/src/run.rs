//! Runs a program with a time limit, and keeps what it prints.

use std::io::{self, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// What became of it.
#[derive(Debug, Clone)]
pub struct Ran {
    /// How it ended; none where it was stopped at the limit.
    pub status: Option<ExitStatus>,
    /// What it printed.
    pub stdout: String,
    /// What it complained of.
    pub stderr: String,
    /// How long it might have taken.
    pub limit: Duration,
}

impl Ran {
    /// Whether it ended by itself and well.
    pub fn is_well(&self) -> bool {
        self.status.is_some_and(|status| status.success())
    }

    /// How it ended, for people: what it said last, or its status.
    pub fn end(&self) -> String {
        let Some(status) = self.status else {
            return format!("it did not end within {} seconds", self.limit.as_secs());
        };
        // A panic says where it is, and in the next line why.
        let mut lines = self.stderr.lines();
        let panicked = lines
            .find(|line| line.contains("panicked at"))
            .and(lines.next());
        let last = self.stderr.lines().rfind(|line| !line.trim().is_empty());
        let mut said = panicked.or(last).into_iter();
        match (status.signal(), said.next()) {
            (Some(signal), _) => {
                let name = Signal::try_from(signal).map_or("a signal", Signal::as_str);
                format!("it was killed by {name}")
            }
            (None, Some(said)) => said.to_owned(),
            (None, None) => format!("it ended with status {}", status.code().unwrap_or(0)),
        }
    }
}

/// Runs it to its end, or to the limit: then it is killed with all that it started.
///
/// # Errors
/// If it cannot be started.
pub fn run(command: &mut Command, limit: Duration) -> io::Result<Ran> {
    let mut child = command
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let stdout = child.stdout.take().expect("a pipe was asked for");
    let stderr = child.stderr.take().expect("a pipe was asked for");
    let stdout = thread::spawn(move || all(stdout));
    let stderr = thread::spawn(move || all(stderr));
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if begun.elapsed() > limit {
            break None;
        }
        thread::sleep(Duration::from_millis(2));
    };
    // What it left behind would keep the pipes open.
    let _ = killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
    child.wait()?;
    Ok(Ran {
        status,
        stdout: stdout.join().unwrap_or_default(),
        stderr: stderr.join().unwrap_or_default(),
        limit,
    })
}

/// All that it prints, up to a megabyte.
fn all(pipe: impl Read) -> String {
    const MOST: u64 = 1 << 20;
    let mut bytes = Vec::new();
    let _ = pipe.take(MOST).read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}
