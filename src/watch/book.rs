//! The book beside the verdicts: its server is built through cargo, then started, and ends with this session.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result, bail};

use super::kill_group;
use crate::read;

/// What is told of the book.
#[derive(Debug)]
pub enum News {
    /// So many parts of its server are built, of so many.
    Built(usize, usize),
    /// It is served there.
    Served(String),
    /// A line for the reader.
    Said(String),
}

/// The book's server, as it is built or as it runs. Ends with this value.
pub struct Book {
    group: Arc<Mutex<Group>>,
}

/// The process that is to be ended, if there is one; and whether none may be started any more.
#[derive(Default)]
struct Group {
    process: Option<u32>,
    over: bool,
}

impl Book {
    /// Builds and serves it, and tells of that.
    pub fn start(root: &Path, open: bool, tell: impl Fn(News) + Send + Sync + 'static) -> Book {
        let group = Arc::new(Mutex::new(Group::default()));
        let serving = Serving {
            root: root.to_owned(),
            open,
            tell: Arc::new(tell),
            group: Arc::clone(&group),
        };
        thread::spawn(move || {
            if let Err(error) = serving.run() {
                (serving.tell)(News::Said(format!("The book is not served: {error:#}.")));
            }
        });
        Book { group }
    }
}

impl Drop for Book {
    fn drop(&mut self) {
        let mut group = lock(&self.group);
        group.over = true;
        if let Some(process) = group.process.take() {
            kill_group(process);
        }
    }
}

fn lock(group: &Mutex<Group>) -> std::sync::MutexGuard<'_, Group> {
    group.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Serving {
    root: PathBuf,
    open: bool,
    tell: Arc<dyn Fn(News) + Send + Sync>,
    group: Arc<Mutex<Group>>,
}

impl Serving {
    fn run(&self) -> Result<()> {
        if !read::is_built(&self.root) {
            (self.tell)(News::Said(format!("{} Go on meanwhile.", read::FIRST)));
        }
        let mut build = read::build(&self.root);
        // Into a pipe it would not write it by itself.
        build.env("CARGO_TERM_PROGRESS_WHEN", "always");
        build.env("CARGO_TERM_PROGRESS_WIDTH", "80");
        build.env("CARGO_TERM_COLOR", "never");
        let Some(mut build) = self.spawn(build)? else {
            return Ok(());
        };
        let said = self.follow_build(build.stderr.take().expect("a pipe was asked for"));
        if !self.wait(build)? {
            bail!("cargo does not build its server:\n{said}");
        }
        let port = if read::is_free(read::PORT) {
            read::PORT
        } else {
            0
        };
        let Some(mut server) = self.spawn(read::server(&self.root, port, self.open))? else {
            return Ok(());
        };
        let stderr = server.stderr.take().expect("a pipe was asked for");
        let tell = Arc::clone(&self.tell);
        let words = thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                tell(News::Said(line));
            }
        });
        let stdout = server.stdout.take().expect("a pipe was asked for");
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let mut words = line.split_whitespace();
            if let Some(address) = words.find(|word| word.starts_with("http://")) {
                (self.tell)(News::Served(address.to_owned()));
            }
        }
        self.wait(server)?;
        let _ = words.join();
        // Where it was ended from here, nobody listens any more.
        bail!("its server has ended. To start it again: cargo run -- read");
    }

    /// Starts it as the first of a process group; none where the session is over.
    fn spawn(&self, mut command: Command) -> Result<Option<Child>> {
        let mut group = lock(&self.group);
        if group.over {
            return Ok(None);
        }
        command.stdin(Stdio::null()).process_group(0);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let name = command.get_program().to_owned();
        let child = command.spawn();
        let child = child.with_context(|| format!("{} does not start", name.display()))?;
        group.process = Some(child.id());
        Ok(Some(child))
    }

    /// Whether it ended well.
    fn wait(&self, mut child: Child) -> Result<bool> {
        let status = child.wait();
        // From now on the number may be another process's.
        lock(&self.group).process = None;
        Ok(status?.success())
    }

    /// Tells of each tenth that cargo has built. Returns what else it has said.
    fn follow_build(&self, stderr: impl Read) -> String {
        let mut said = String::new();
        let mut told = 0;
        // It writes its progress over and over, without ending the line.
        let pieces = BufReader::new(stderr).split(b'\r').map_while(Result::ok);
        for piece in pieces {
            let piece = String::from_utf8_lossy(&piece);
            match progress(&piece) {
                Some((done, of)) => {
                    let tenth = done * 10 / of;
                    if tenth > told {
                        told = tenth;
                        (self.tell)(News::Built(done, of));
                    }
                }
                None => said.push_str(&piece),
            }
        }
        let words = said.lines().map(str::trim_end);
        let words = words.filter(|line| !line.is_empty() && !line.starts_with("   Compiling "));
        words.collect::<Vec<_>>().join("\n")
    }
}

/// `    Building [=====>    ] 8/97: libc, quote`: 8 of 97.
fn progress(said: &str) -> Option<(usize, usize)> {
    let (_, counts) = said
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
    fn cargos_progress_is_read() {
        let said = "    Building [=====>                     ] 8/97: libc, quote";
        assert_eq!(progress(said), Some((8, 97)));
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
