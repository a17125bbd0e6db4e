//! Serves the book beside the verdicts: builds the server with cargo, starts it, and ends it when the session ends.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Context, Result, bail};
use course::process::{Group, Killer};

use crate::commands::read;

#[derive(Debug)]
pub enum News {
    /// Progress of the build: units that are built, and units in total.
    Built(usize, usize),
    /// The server's address.
    Served(String),
    /// A line for the learner.
    Message(String),
}

/// The book's server, while it is built and while it runs. Dropping it ends both.
pub struct Book {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    running: Option<Killer>,
    /// Set when the session ends: nothing may be started after that.
    ended: bool,
}

impl Book {
    /// Builds and starts the server in a thread, and passes its news to `report`.
    pub fn start(root: &Path, open: bool, report: impl Fn(News) + Send + Sync + 'static) -> Book {
        let state = Arc::new(Mutex::new(State::default()));
        let serving = Serving {
            root: root.to_owned(),
            open,
            report: Arc::new(report),
            state: Arc::clone(&state),
        };
        thread::spawn(move || {
            if let Err(error) = serving.run() {
                (serving.report)(News::Message(format!("The book is not served: {error:#}.")));
            }
        });
        Book { state }
    }
}

impl Drop for Book {
    fn drop(&mut self) {
        let running = {
            let mut state = lock(&self.state);
            state.ended = true;
            state.running.take()
        };
        if let Some(running) = running {
            running.terminate(read::GRACE);
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Serving {
    root: PathBuf,
    open: bool,
    report: Arc<dyn Fn(News) + Send + Sync>,
    state: Arc<Mutex<State>>,
}

impl Serving {
    fn run(&self) -> Result<()> {
        if !read::is_built(&self.root) {
            let message = format!("{} You can go on meanwhile.", read::FIRST_BUILD);
            (self.report)(News::Message(message));
        }
        let mut build = read::build(&self.root);
        // Without these, cargo shows no progress in a pipe.
        build.env("CARGO_TERM_PROGRESS_WHEN", "always");
        build.env("CARGO_TERM_PROGRESS_WIDTH", "80");
        build.env("CARGO_TERM_COLOR", "never");
        let Some(mut build) = self.spawn(build)? else {
            return Ok(());
        };
        let errors = self.follow_build(build.take_stderr().expect("a pipe was requested"));
        if !build.wait()?.success() {
            bail!("the server does not build:\n{errors}");
        }
        let port = match read::is_free(read::PORT) {
            true => read::PORT,
            false => 0,
        };
        let Some(mut server) = self.spawn(read::server(&self.root, port, self.open))? else {
            return Ok(());
        };
        let stderr = server.take_stderr().expect("a pipe was requested");
        let report = Arc::clone(&self.report);
        let errors = thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                report(News::Message(line));
            }
        });
        let stdout = server.take_stdout().expect("a pipe was requested");
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let mut words = line.split_whitespace();
            if let Some(address) = words.find(|word| word.starts_with("http://")) {
                (self.report)(News::Served(address.to_owned()));
            }
        }
        server.wait()?;
        let _ = errors.join();
        // If the session itself has ended the server, this error is not shown.
        bail!("the server has ended; `cargo run -- read` starts it again");
    }

    /// Starts a program, or returns `None` if the session has ended.
    fn spawn(&self, mut command: Command) -> Result<Option<Group>> {
        let mut state = lock(&self.state);
        if state.ended {
            return Ok(None);
        }
        command.stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let name = command.get_program().to_owned();
        let group = Group::spawn(&mut command)
            .with_context(|| format!("{} cannot be started", name.display()))?;
        state.running = Some(group.killer());
        Ok(Some(group))
    }

    /// Passes on each tenth of the build. Returns cargo's other output.
    fn follow_build(&self, stderr: impl Read) -> String {
        let mut output = String::new();
        let mut reported = 0;
        // Cargo overwrites its progress line, and does not end it.
        let pieces = BufReader::new(stderr).split(b'\r').map_while(Result::ok);
        for piece in pieces {
            let piece = String::from_utf8_lossy(&piece);
            match progress(&piece) {
                Some((done, of)) => {
                    let tenth = done * 10 / of;
                    if tenth > reported {
                        reported = tenth;
                        (self.report)(News::Built(done, of));
                    }
                }
                None => output.push_str(&piece),
            }
        }
        let lines = output.lines().map(str::trim_end);
        let lines = lines.filter(|line| !line.is_empty() && !line.starts_with("   Compiling "));
        lines.collect::<Vec<_>>().join("\n")
    }
}

/// Parses `    Building [=====>    ] 8/97: libc, quote` to (8, 97).
fn progress(line: &str) -> Option<(usize, usize)> {
    let (_, counts) = line
        .trim_start()
        .strip_prefix("Building [")?
        .split_once("] ")?;
    let (counts, _) = counts.split_once(':').unwrap_or((counts, ""));
    let (done, of) = counts.trim().split_once('/')?;
    let of = of.parse().ok().filter(|of| *of > 0)?;
    Some((done.parse().ok()?, of))
}

#[cfg(test)]
mod tests {
    use super::progress;

    #[test]
    fn cargos_progress_is_parsed() {
        let line = "    Building [=====>                     ] 8/97: libc, quote";
        assert_eq!(progress(line), Some((8, 97)));
        assert_eq!(progress("    Building [=====>     ] 96/97"), Some((96, 97)));
        for other in [
            "   Compiling libc v0.2.191\n",
            "",
            "Building [",
            "Building [=] 1/0",
        ] {
            assert_eq!(progress(other), None, "{other:?}");
        }
    }
}
