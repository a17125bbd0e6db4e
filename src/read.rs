//! `workbook read`: starts the book's server, which cargo builds into a target directory of its own.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anstream::eprintln;
use anyhow::{Context, Result, ensure};

use crate::cargo::{self, NO_CARGO};
use crate::state::Log;

/// Where the book is, if nothing else is there.
pub const PORT: u16 = 3000;

/// Said before the first build.
pub const FIRST: &str = "The book's server is built first; that takes a minute or two, once.";

/// Serves the book until it is interrupted.
///
/// # Errors
/// If the port is taken, or cargo cannot be started.
pub fn run(root: &Path, port: u16, open: bool) -> Result<ExitCode> {
    // Said now, and not after minutes.
    ensure!(
        port == 0 || is_free(port),
        "port {port} of 127.0.0.1 is taken: is the book open already? For any port that is free: cargo run -- read \
         --port 0"
    );
    let mut build = build(root);
    if is_built(root) {
        build.arg("--quiet");
    } else {
        eprintln!("{FIRST}");
    }
    let built = build.status().context(NO_CARGO)?;
    ensure!(built.success(), "cargo does not build the book's server");
    let status = server(root, port, open).status();
    let status = status.context("the book's server does not start")?;
    Ok(match status.code() {
        Some(0) => ExitCode::SUCCESS,
        _ => ExitCode::from(2),
    })
}

/// Whether it has been built, though perhaps of older sources.
pub fn is_built(root: &Path) -> bool {
    program(root).exists()
}

/// Whether a server could listen there.
pub fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

fn program(root: &Path) -> PathBuf {
    cargo::target_apart(root).join("debug/reader")
}

/// What builds the server.
pub fn build(root: &Path) -> Command {
    let mut command = cargo::command();
    command
        .args(["build", "--package", "reader", "--target-dir"])
        .arg(cargo::target_apart(root))
        // A setting of the reader's could put the program elsewhere.
        .env_remove("CARGO_BUILD_TARGET")
        .current_dir(root)
        .stdin(Stdio::null());
    command
}

/// The server.
pub fn server(root: &Path, port: u16, open: bool) -> Command {
    let mut command = Command::new(program(root));
    command.args(["serve", "--port", &port.to_string()]);
    if open {
        command.arg("--open");
    }
    command
        .arg("--events")
        .arg(Log::of(root).path())
        // The lab's programs are built where the server was.
        .env_remove("CARGO_TARGET_DIR")
        .current_dir(root)
        .stdin(Stdio::null());
    command
}
