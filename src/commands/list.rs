//! `workbook list`: the exercises and their stages, how long each takes, and the last verdicts.

use std::path::Path;

use anyhow::Result;
use course::exercise::Exercise;
use course::log::Verdict;

use crate::progress::Progress;
use crate::say;
use crate::terminal::{FAINT, STRONG, sign, styled};

/// # Errors
/// Returns an error if a manifest or the log cannot be read.
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
        say!(
            "{solved}{}  {} {}",
            styled(STRONG, &exercise.name),
            exercise.about.title,
            styled(FAINT, &format!("(about {minutes} minutes)"))
        );
        for stage in stages {
            let bonus = if stage.bonus { "  (bonus)" } else { "" };
            let counts = graded.map_or(&[][..], |graded| &graded.stages);
            let count = counts.iter().find(|count| count.name == stage.name);
            let verdict = count.map_or(Verdict::NotStarted, |stage| stage.count.verdict());
            say!(
                "  {} {:<11} {:>3} min  {}{bonus}",
                sign(verdict),
                stage.name,
                stage.minutes,
                stage.title
            );
        }
    }
    Ok(())
}
