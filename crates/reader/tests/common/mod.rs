//! What the reader's tests share: the clone, small books, a server, and one way to be skipped.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use reader::serve::{Limits, Options, Server};
use tempfile::TempDir;

/// The clone that is tested.
pub fn clone() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("book/reader is in a clone")
}

/// The real book, built once.
pub fn built() -> &'static Path {
    static BUILT: OnceLock<TempDir> = OnceLock::new();
    let folder = BUILT.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let built = reader::book::build(&clone().join("book"), folder.path());
        built.unwrap_or_else(|error| panic!("the book is not built: {error:#}"));
        folder
    });
    folder.path()
}

/// Says that a test did not run, and why; where CI runs it, that is a failure.
pub fn skipped(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "CI skips nothing: {why}");
    eprintln!("skipped: {why}");
}

/// Whether there is such a program.
pub fn there_is(program: &str) -> bool {
    let asked = Command::new(program).arg("--version").output();
    asked.is_ok_and(|output| output.status.success())
}

/// A clone with one page, one exercise and one program of the lab: what is tested on it may break.
pub struct Small {
    folder: TempDir,
}

impl Small {
    pub fn new(page: &str) -> Small {
        let folder = tempfile::tempdir().expect("a folder");
        let small = Small { folder };
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
        ] {
            small.write(
                file,
                &fs::read_to_string(clone().join(file)).expect("a file"),
            );
        }
        small
    }

    pub fn root(&self) -> PathBuf {
        self.folder.path().canonicalize().expect("it is there")
    }

    pub fn write(&self, file: &str, text: &str) {
        let path = self.folder.path().join(file);
        fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("a folder");
        fs::write(path, text).expect("it can be written");
    }

    /// What the page says, as HTML without blank lines; or what is wrong.
    pub fn build(&self) -> Result<String, String> {
        let into = tempfile::tempdir().expect("a folder");
        let built = reader::book::build(&self.root().join("book"), into.path());
        built.map_err(|error| format!("{error:#}"))?;
        let html = fs::read_to_string(into.path().join("page.html")).expect("a page");
        let (_, main) = html.split_once("<main>").expect("it has a main part");
        let (main, _) = main.split_once("</main>").expect("which ends");
        let lines = main.lines().filter(|line| !line.trim().is_empty());
        Ok(lines.collect::<Vec<_>>().join("\n"))
    }
}

/// A server in this process, for as long as the process runs.
pub struct Served {
    pub address: SocketAddr,
    pub token: String,
    pub events: PathBuf,
}

/// As the tests serve a clone: at any port, with a log of its own.
pub fn options(clone: &Path, limits: Limits) -> Options {
    let home = tempfile::tempdir().expect("a folder").keep();
    Options {
        clone: clone.to_owned(),
        port: 0,
        events: home.join("log.jsonl"),
        cargo: std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()),
        target: None,
        limits,
    }
}

pub fn serve(clone: &Path, limits: Limits) -> Served {
    serve_with(options(clone, limits))
}

pub fn serve_with(options: Options) -> Served {
    let events = options.events.clone();
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let server = Server::start(options).await.expect("a server");
            let told = sender.send((server.address(), server.token().to_owned()));
            told.expect("the test waits");
            server.run().await.expect("it serves");
        });
    });
    let (address, token) = receiver.recv().expect("it starts");
    Served {
        address,
        token,
        events,
    }
}

/// Waits until it holds.
pub fn until(what: &str, holds: impl FnMut() -> bool) {
    within(Duration::from_secs(30), what, holds);
}

pub fn within(time: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + time;
    while !holds() {
        assert!(Instant::now() < end, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
