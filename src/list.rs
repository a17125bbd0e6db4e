//! `workbook list`: the exercises, their stages, how long each takes, and what was solved when it was graded last.

use std::path::Path;

use anstream::println;
use anyhow::Result;

use crate::exercise::Exercise;
use crate::grader::Verdict;
use crate::progress::Progress;
use crate::words::{FAINT, STRONG, sign, styled};

/// Lists them all.
///
/// # Errors
/// If a manifest cannot be read.
pub fn run(root: &Path) -> Result<()> {
    let progress = Progress::read(root)?;
    for exercise in Exercise::all(root)? {
        let graded = progress.last_graded(&exercise.name);
        let solved = match progress.is_solved(&exercise.name) {
            true => format!("{} ", sign(Verdict::Passed)),
            false => String::new(),
        };
        let stages = &exercise.about.stages;
        let core = stages.iter().filter(|stage| !stage.bonus);
        let minutes: u32 = core.map(|stage| stage.minutes).sum();
        println!(
            "{solved}{}  {} {}",
            styled(STRONG, &exercise.name),
            exercise.about.title,
            styled(FAINT, &format!("({minutes} minutes, estimated)"))
        );
        for stage in stages {
            let bonus = if stage.bonus { "  (bonus)" } else { "" };
            let counts = graded.map_or(&[][..], |graded| &graded.stages);
            let mut counts = counts.iter().filter(|count| count.name == stage.name);
            let verdict = counts.next().map(|stage| stage.count.verdict());
            println!(
                "  {} {:<10} {:>3} min  {}{bonus}",
                sign(verdict.unwrap_or(Verdict::NotStarted)),
                stage.name,
                stage.minutes,
                stage.title
            );
        }
    }
    Ok(())
}
