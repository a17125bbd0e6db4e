//! Benchmarks `ThresholdAlloc` against other allocators. Each measurement runs in a separate process.
//!
//! `cargo run -- bench` in the clone starts it.

mod allocators;
mod child;
mod history;
mod output;
mod report;
mod run;

use std::fs;
use std::path::{Path, PathBuf};

use anstream::println;
use anyhow::{Context, Result};
use clap::Parser;

use allocators::subject::Lacks;
use child::Job;
use history::{History, Run};
use output::{chart, table};
use run::plan::Plan;

/// Benchmarks ThresholdAlloc against other allocators.
#[derive(Parser)]
struct Arguments {
    /// Number of rounds; in each, every allocator is timed.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
    /// Write the chart to this file.
    #[arg(long)]
    svg: Option<PathBuf>,
    /// Bonus stages that the answer does not solve.
    #[arg(long, value_delimiter = ',')]
    lacks: Vec<String>,
    /// Finish within a minute, with less work and as many rounds as fit.
    #[arg(long)]
    quick: bool,
    /// Do as little work as possible, to test the benchmark itself.
    #[arg(long, hide = true, conflicts_with = "quick")]
    smoke: bool,
    /// The file in which earlier runs are recorded, and this one will be.
    #[arg(long)]
    history: Option<PathBuf>,
    /// The measurement to run in this process, as JSON.
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
    let plan = match (arguments.smoke, arguments.quick) {
        (true, _) => Plan::smoke(rounds),
        (_, true) => Plan::quick(rounds),
        _ => Plan::full(rounds),
    };
    let report = report::run(&plan, Lacks(arguments.lacks))?;
    if let Some(path) = arguments.svg {
        write(&path, &chart::svg(&report))?;
    }
    let runs = arguments.history.map_or(Vec::new(), |path| {
        let run = Run::of(&report, arguments.quick);
        History::at(&path).add(run).unwrap_or_else(|error| {
            eprintln!("{error:#}");
            Vec::new()
        })
    });
    match arguments.json {
        true => println!("{}", serde_json::to_string_pretty(&report)?),
        false => table::print(&report, &runs),
    }
    Ok(())
}

/// Writes a file. Missing folders are created.
fn write(path: &Path, text: &str) -> Result<()> {
    let write = || {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(path, text)
    };
    write().with_context(|| format!("{} cannot be written", path.display()))
}
