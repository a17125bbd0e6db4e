//! The book's preprocessor, builder and server.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use reader::preprocess::{Listings, Workbook, speak};
use reader::serve::{Limits, Options, Server};

/// The workbook's book: `cargo run -- read` starts it.
#[derive(Parser)]
#[command(name = "reader", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Turn fences into elements: speak mdBook's preprocessor protocol.
    Preprocess {
        #[command(subcommand)]
        question: Option<Question>,
    },
    /// Take the listings' margins away: as above.
    Listings {
        #[command(subcommand)]
        question: Option<Question>,
    },
    /// Build the book; a warning is an error.
    Build {
        /// Where it goes.
        #[arg(long, default_value = "book/book")]
        into: PathBuf,
    },
    /// Serve the book on 127.0.0.1.
    Serve {
        /// 0 for any that is free.
        #[arg(long, default_value_t = 3000)]
        port: u16,
        /// Show it in the browser.
        #[arg(long)]
        open: bool,
        /// The log of verdicts.
        #[arg(long, default_value = ".workbook/log.jsonl")]
        events: PathBuf,
    },
}

#[derive(Subcommand)]
enum Question {
    /// Status 0 if pages for that renderer get their elements.
    Supports {
        /// As mdBook calls it.
        renderer: String,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The clone that this program was built in.
fn clone() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("book/reader is in a clone")
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Preprocess {
            question: Some(Question::Supports { renderer }),
        }
        | Command::Listings {
            question: Some(Question::Supports { renderer }),
        } => {
            let supported = renderer == "html";
            return Ok(ExitCode::from(u8::from(!supported)));
        }
        Command::Preprocess { question: None } => speak(&Workbook)?,
        Command::Listings { question: None } => speak(&Listings)?,
        Command::Build { into } => {
            reader::book::build(&clone().join("book"), &std::path::absolute(into)?)?;
        }
        Command::Serve { port, open, events } => serve(port, open, std::path::absolute(events)?)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn serve(port: u16, open: bool, events: PathBuf) -> Result<()> {
    // The lab's programs are built where this program was: cargo's lock there keeps no grader waiting.
    let program = std::env::current_exe()?;
    let options = Options {
        clone: clone().to_owned(),
        port,
        events,
        cargo: std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()),
        target: program.ancestors().nth(2).map(Path::to_owned),
        limits: Limits::default(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let server = Server::start(options).await?;
        let address = format!("http://{}", server.address());
        println!("The book: {address} (Ctrl-C ends it)");
        if open {
            let browser = if cfg!(target_os = "macos") {
                "open"
            } else {
                "xdg-open"
            };
            if let Err(error) = std::process::Command::new(browser).arg(&address).spawn() {
                eprintln!("{browser} does not start: {error}");
            }
        }
        server.run().await
    })
}
