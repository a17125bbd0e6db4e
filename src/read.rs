//! `workbook read`: starts the book's server, which cargo builds into a target directory of its own.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};

use anstream::eprintln;
use anyhow::{Context, Result};

use crate::cargo::{self, NO_CARGO};
use crate::state::Log;

/// Where the book is, if nothing else is there.
pub const PORT: u16 = 3000;

const FIRST: &str = "The book's server is built first; that takes a few minutes, once.";

/// Serves the book until it is interrupted.
///
/// # Errors
/// If cargo cannot be started.
pub fn run(root: &Path, port: u16, open: bool) -> Result<ExitCode> {
    let built = is_built(root);
    if !built {
        eprintln!("{FIRST}");
    }
    let status = server(root, port, open, built).status().context(NO_CARGO)?;
    Ok(match status.code() {
        Some(0) => ExitCode::SUCCESS,
        _ => ExitCode::from(2),
    })
}

/// Starts the server in a process group of its own, to run beside something else: it says where the book is, and nothing
/// of how it is built.
///
/// # Errors
/// If cargo cannot be started.
pub fn beside(root: &Path) -> Result<Child> {
    if !is_built(root) {
        eprintln!("{FIRST} Go on meanwhile.");
    }
    let free = TcpListener::bind(("127.0.0.1", PORT)).is_ok();
    let mut command = server(root, if free { PORT } else { 0 }, false, true);
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command.stderr(Stdio::null()).spawn().context(NO_CARGO)
}

fn is_built(root: &Path) -> bool {
    cargo::target_apart(root).join("debug/reader").exists()
}

fn server(root: &Path, port: u16, open: bool, quiet: bool) -> Command {
    let mut command = cargo::command();
    command.args(["run", "--package", "reader", "--target-dir"]);
    command.arg(cargo::target_apart(root));
    if quiet {
        command.arg("--quiet");
    }
    command.args(["--", "serve", "--port", &port.to_string()]);
    if open {
        command.arg("--open");
    }
    command
        .arg("--events")
        .arg(Log::of(root).path())
        // For this command cargo is told where to build; the lab's programs are built there too.
        .env_remove("CARGO_TARGET_DIR")
        .current_dir(root)
        .stdin(Stdio::null());
    command
}
