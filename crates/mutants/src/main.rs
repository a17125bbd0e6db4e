//! Prints the mutants of the source file that the argument names, as JSON.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mutants: {error:#}.");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<()> {
    let file = env::args_os().nth(1).map(PathBuf::from);
    let file = file.context("the argument must be a source file")?;
    let source = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let mutants = mutants::of(&source).with_context(|| file.display().to_string())?;
    println!("{}", serde_json::to_string(&mutants)?);
    Ok(())
}
