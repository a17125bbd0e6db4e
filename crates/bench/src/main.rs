//! Runs `ThresholdAlloc` against other allocators, each measurement in a process of its own: counts first, then times.
//!
//! `cargo run -- bench` in the clone starts it.

mod allocators;
mod child;
mod output;
mod report;
mod run;

use std::fs;
use std::path::PathBuf;

use anstream::println;
use anyhow::{Context, Result};
use clap::Parser;

use child::Job;
use output::{chart, table};
use run::plan::Plan;

#[derive(Parser)]
struct Arguments {
    /// Rounds in which the allocators take turns.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
    /// Write the chart there.
    #[arg(long)]
    svg: Option<PathBuf>,
    /// Bonus stages that the answer does not solve.
    #[arg(long, value_delimiter = ',')]
    lacks: Vec<String>,
    /// Little of everything: to see that it works.
    #[arg(long)]
    quick: bool,
    /// What a child is to measure.
    #[arg(long, hide = true)]
    job: Option<String>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(job) = arguments.job {
        let job: Job = serde_json::from_str(&job)?;
        return job.run();
    }
    let rounds = usize::from(arguments.rounds);
    let plan = match arguments.quick {
        true => Plan::quick(rounds),
        false => Plan::full(rounds),
    };
    let report = report::run(&plan, arguments.lacks)?;
    if let Some(path) = arguments.svg {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        fs::write(&path, chart::svg(&report)).with_context(|| path.display().to_string())?;
    }
    match arguments.json {
        true => println!("{}", serde_json::to_string_pretty(&report)?),
        false => table::print(&report),
    }
    Ok(())
}
