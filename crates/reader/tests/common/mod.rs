//! Shared by the reader's tests: the clone, small books, servers, and a way to skip a test.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{OnceLock, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use course::log::{Count, Graded, Log, Record, StageCount};
use reader::serve::{IDLE, Limits, Options, Server};
use tempfile::TempDir;
use tokio::sync::oneshot;

/// The clone that is tested.
pub fn clone() -> &'static Path {
    static CLONE: OnceLock<PathBuf> = OnceLock::new();
    CLONE.get_or_init(|| course::root::find().expect("the test runs in a clone"))
}

/// The folder of the real book, built once.
pub fn built() -> &'static Path {
    static BUILT: OnceLock<TempDir> = OnceLock::new();
    let folder = BUILT.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let built = reader::book::build(&clone().join("book"), folder.path());
        built.unwrap_or_else(|error| panic!("the book cannot be built: {error:#}"));
        folder
    });
    folder.path()
}

/// Reports that a test is skipped. On CI that is a failure.
pub fn skipped(reason: &str) {
    assert!(
        std::env::var_os("CI").is_none(),
        "skipped on CI, which must run every test: {reason}"
    );
    eprintln!("skipped: {reason}");
}

pub fn is_installed(program: &str) -> bool {
    let output = Command::new(program).arg("--version").output();
    output.is_ok_and(|output| output.status.success())
}

/// A clone with one page, one exercise and one program of the lab, which a test may change.
pub struct SmallClone {
    folder: TempDir,
}

impl SmallClone {
    pub fn new(page: &str) -> SmallClone {
        let folder = tempfile::tempdir().expect("a folder");
        let small = SmallClone { folder };
        let version = env!("CARGO_PKG_VERSION");
        small.write(
            "Cargo.toml",
            &format!("[workspace.package]\nversion = \"{version}\"\n"),
        );
        small.write(
            "book/book.toml",
            "[book]\ntitle = \"Small\"\nlanguage = \"en\"\n[output.html]\nsearch.enable = false\n\
             [preprocessor.workbook]\ncommand = \"false\"\nbefore = [\"links\"]\n",
        );
        small.write("book/src/SUMMARY.md", "# Summary\n\n- [A page](page.md)\n");
        small.write("book/src/page.md", page);
        small.write("book/theme/none.css", "");
        for file in [
            "exercises/private-alloc/Cargo.toml",
            "book/src/traces/zero-page.json",
            "book/lab/examples/zero_filled.rs",
            "book/lab/c/zero_filled.c",
        ] {
            let text = fs::read_to_string(clone().join(file)).expect("a file");
            small.write(file, &text);
        }
        small
    }

    pub fn root(&self) -> PathBuf {
        self.folder
            .path()
            .canonicalize()
            .expect("the folder exists")
    }

    pub fn write(&self, file: &str, text: &str) {
        let path = self.folder.path().join(file);
        fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("a folder");
        fs::write(path, text).expect("the file can be written");
    }

    /// Writes a shell script into the root and returns its path.
    pub fn script(&self, name: &str, text: &str) -> PathBuf {
        self.write(name, &format!("#!/bin/sh\n{text}\n"));
        let path = self.root().join(name);
        let permissions = fs::Permissions::from_mode(0o755);
        fs::set_permissions(&path, permissions).expect("permissions");
        path
    }

    /// Returns the page's main part as HTML without blank lines, or the error of the build.
    pub fn build(&self) -> Result<String, String> {
        let into = tempfile::tempdir().expect("a folder");
        let built = reader::book::build(&self.root().join("book"), into.path());
        built.map_err(|error| format!("{error:#}"))?;
        let html = fs::read_to_string(into.path().join("page.html")).expect("a page");
        let (_, main) = html.split_once("<main>").expect("a main part");
        let (main, _) = main
            .split_once("</main>")
            .expect("the end of the main part");
        let lines = main.lines().filter(|line| !line.trim().is_empty());
        Ok(lines.collect::<Vec<_>>().join("\n"))
    }
}

/// The line that cargo prints for a program that it has built.
pub fn artifact(program: &Path) -> String {
    let message = serde_json::json!({
        "reason": "compiler-artifact",
        "manifest_path": "/lab/Cargo.toml",
        "target": {"kind": ["example"], "name": "zero_filled", "edition": "2024"},
        "filenames": [program],
        "executable": program,
    });
    message.to_string()
}

/// A running server.
pub struct Served {
    pub address: SocketAddr,
    pub token: String,
    pub log: Log,
    /// `None` if the server is another process.
    pub here: Option<Here>,
}

/// A server in this process. It runs until it is stopped or the process ends.
pub struct Here {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Here {
    /// Stops the server and waits until it has ended.
    pub fn stop(self) {
        self.stop.send(()).expect("the server runs");
        self.thread.join().expect("the server ends cleanly");
    }
}

/// Options for a server of that clone, with any free port and a separate log.
pub fn options(clone: &Path, limits: Limits) -> Options {
    let home = tempfile::tempdir().expect("a folder").keep();
    Options {
        clone: clone.to_owned(),
        port: 0,
        log: Log::in_folder(&home).path().to_owned(),
        cargo: course::cargo::command().get_program().to_owned(),
        cc: "cc".into(),
        target: None,
        limits,
        idle: IDLE,
    }
}

pub fn serve(clone: &Path, limits: Limits) -> Served {
    serve_with(options(clone, limits))
}

pub fn serve_with(options: Options) -> Served {
    let log = Log::in_folder(options.log.parent().expect("a log is in a folder"));
    let (sender, receiver) = mpsc::channel();
    let (stop, stopped) = oneshot::channel();
    let thread = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let server = Server::start(options).await.expect("a server");
            let started = sender.send((server.address(), server.token().to_owned()));
            started.expect("the test waits");
            let stop = async {
                // A test that does not stop its server drops the sender at its end.
                if stopped.await.is_err() {
                    std::future::pending().await
                }
            };
            server.run(stop).await.expect("the book can be watched");
        });
    });
    let (address, token) = receiver.recv().expect("the server starts");
    Served {
        address,
        token,
        log,
        here: Some(Here { stop, thread }),
    }
}

/// Logs a grading of private-alloc. Each stage is a name and its numbers of passed and failed cases.
pub fn log_grading(log: &Log, stages: &[(&str, usize, usize)]) {
    let stages: Vec<_> = stages
        .iter()
        .map(|&(name, passed, failed)| StageCount {
            name: name.to_owned(),
            bonus: false,
            count: Count {
                passed,
                failed,
                skipped: 0,
                not_started: 0,
                possible: passed + failed,
            },
            failure: None,
        })
        .collect();
    let graded = Graded {
        at: course::log::now(),
        exercise: "private-alloc".to_owned(),
        solved: stages.iter().all(|stage| stage.count.failed == 0),
        stages,
    };
    log.append(&Record::Exercise(graded)).expect("a line");
}

/// Waits until the condition holds.
pub fn until(what: &str, condition: impl FnMut() -> bool) {
    within(Duration::from_secs(30), what, condition);
}

pub fn within(time: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + time;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {time:?}: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
