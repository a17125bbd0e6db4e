//! The book's builder and its server.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use course::{cargo, log::Log, root};
use reader::report;
use reader::serve::{IDLE, Limits, Options, Server};
use tokio::signal::unix::{SignalKind, signal};

/// Builds and serves the workbook's book. `cargo run -- read` starts the server.
#[derive(Parser)]
#[command(name = "reader", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build the book, and treat every warning as an error.
    Build {
        /// Output folder; by default book/book in the clone.
        #[arg(long)]
        into: Option<PathBuf>,
    },
    /// Serve the book on 127.0.0.1.
    Serve {
        /// Port; 0 chooses a free one.
        #[arg(long, default_value_t = 3000)]
        port: u16,
        /// Open the book in the browser.
        #[arg(long)]
        open: bool,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(format_args!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Build { into } => {
            let book = root::find()?.join("book");
            let into = into.unwrap_or_else(|| book.join("book"));
            reader::book::build(&book, &std::path::absolute(into)?)?;
        }
        Command::Serve { port, open } => serve(&root::find()?, port, open)?,
    }
    Ok(())
}

fn serve(clone: &Path, port: u16, open: bool) -> Result<()> {
    // The lab's programs are built into the same target directory as this program, so that no grading waits for cargo's
    // lock there.
    let target = cargo::target_of(clone, &std::env::current_exe()?)?;
    let options = Options {
        clone: clone.to_owned(),
        port,
        log: Log::of(clone).path().to_owned(),
        cargo: cargo::command().get_program().to_owned(),
        cc: "cc".into(),
        target: Some(target),
        limits: Limits::default(),
        idle: IDLE,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let server = Server::start(options).await?;
        let stop = stop_signal()?;
        let address = format!("http://{}", server.address());
        let printed = writeln!(io::stdout(), "The book: {address} (Ctrl-C stops it)");
        if let Err(error) = printed {
            report(format_args!(
                "The book is served at {address}, but standard output failed: {error}"
            ));
        }
        if open {
            open_browser(&address);
        }
        server.run(stop).await
    })
}

/// Returns a future that completes when the process is asked to end.
fn stop_signal() -> Result<impl Future<Output = ()>> {
    let handle = |kind| signal(kind).context("signals cannot be handled");
    let mut terminate = handle(SignalKind::terminate())?;
    let mut interrupt = handle(SignalKind::interrupt())?;
    let mut hangup = handle(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
        }
    })
}

fn open_browser(address: &str) {
    let started = std::process::Command::new("xdg-open").arg(address).spawn();
    match started {
        // Reap it, or it stays a zombie for as long as the server runs.
        Ok(mut child) => {
            thread::spawn(move || child.wait());
        }
        Err(error) => report(format_args!("xdg-open cannot be started: {error}")),
    }
}
