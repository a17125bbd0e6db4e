//! Reads the deck that `drill export --apkg` sends to standard input, and writes it as a package to the file that the
//! argument names.

use std::env;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use apkg::{Deck, package};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("apkg: {error:#}.");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<()> {
    let file = env::args_os().nth(1).map(PathBuf::from);
    let file = file.context("the argument must be a file; `drill export --apkg FILE` names it")?;
    let deck: Deck =
        serde_json::from_reader(io::stdin().lock()).context("standard input is not a deck")?;
    let written = fs::write(&file, package(&deck)?);
    written.with_context(|| format!("{} cannot be written", file.display()))
}
