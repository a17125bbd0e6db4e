//! `workbook list`: the exercises, their stages, and how long each takes.

use std::path::Path;

use anstream::println;
use anyhow::Result;

use crate::exercise::Exercise;
use crate::words::{FAINT, STRONG, styled};

/// Lists them all.
///
/// # Errors
/// If a manifest cannot be read.
pub fn run(root: &Path) -> Result<()> {
    for exercise in Exercise::all(root)? {
        let stages = &exercise.about.stages;
        let minutes: u32 = stages.iter().map(|stage| stage.minutes).sum();
        println!(
            "{}  {} {}",
            styled(STRONG, &exercise.name),
            exercise.about.title,
            styled(FAINT, &format!("({minutes} minutes, estimated)"))
        );
        for stage in stages {
            println!(
                "  {:<10} {:>3} min  {}",
                stage.name, stage.minutes, stage.title
            );
        }
    }
    Ok(())
}
