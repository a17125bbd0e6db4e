//! `workbook read`: starts the book's server, which cargo builds in a separate target directory.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use course::cargo::{self, NO_CARGO};
use course::process::Group;

use crate::warn;

/// The default port.
pub const PORT: u16 = 3000;

/// How long the server may take to end its own programs.
pub const GRACE: Duration = Duration::from_secs(3);

/// Printed before the first build.
pub const FIRST_BUILD: &str =
    "Building the book's server. The first time, this takes a minute or two.";

/// Serves the book until it is interrupted. The server ends with this process.
///
/// # Errors
/// Returns an error if the port is taken, or if the server cannot be built or started.
pub fn run(root: &Path, port: u16, open: bool) -> Result<ExitCode> {
    // Checked before a build that may take minutes.
    ensure!(
        port == 0 || is_free(port),
        "port {port} of 127.0.0.1 is taken, perhaps because the book is already open; `cargo run -- read --port 0` \
         chooses a free port"
    );
    if !is_built(root) {
        warn!("{FIRST_BUILD}");
    }
    // Not quiet: the server may have to be built again.
    let built = build(root).status().context(NO_CARGO)?;
    ensure!(built.success(), "the book's server does not build");
    let mut server = Group::spawn(&mut server(root, port, open))
        .context("the book's server cannot be started")?;
    // The server runs in a separate process group, so the terminal does not send it Ctrl-C.
    let killer = server.killer();
    ctrlc::set_handler(move || killer.terminate(GRACE))?;
    Ok(match server.wait()?.code() {
        // `None` if the handler had to kill it.
        Some(0) | None => ExitCode::SUCCESS,
        Some(_) => ExitCode::from(2),
    })
}

/// Returns whether the server has been built before, perhaps from older sources.
pub fn is_built(root: &Path) -> bool {
    program(root).exists()
}

/// Returns whether a server could listen on the port.
pub fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

fn program(root: &Path) -> PathBuf {
    cargo::separate_target(root).join("debug/reader")
}

/// The command that builds the server.
pub fn build(root: &Path) -> Command {
    let mut command = cargo::command();
    command
        .args(["build", "--package", "reader", "--manifest-path"])
        .arg(cargo::second_workspace(root))
        .arg("--target-dir")
        .arg(cargo::separate_target(root))
        // With this variable, cargo would put the program into another folder.
        .env_remove("CARGO_BUILD_TARGET")
        .current_dir(root)
        .stdin(Stdio::null());
    command
}

/// The command that starts the server.
pub fn server(root: &Path, port: u16, open: bool) -> Command {
    let mut command = Command::new(program(root));
    command.args(["serve", "--port", &port.to_string()]);
    if open {
        command.arg("--open");
    }
    command
        .env("WORKBOOK_ROOT", root)
        // The server builds the book's programs in its own target directory.
        .env_remove("CARGO_TARGET_DIR")
        .current_dir(root)
        .stdin(Stdio::null());
    command
}
