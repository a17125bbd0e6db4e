//! `workbook hint`: a stage's ladder of hints, one rung at a time.

use std::fs;
use std::path::Path;

use anstream::println;
use anyhow::{Context, Result, bail, ensure};

use crate::exercise::Exercise;
use crate::words::{FAINT, styled};

/// Shows a rung, from 1, of a stage's ladder; without a stage, says what stages there are.
///
/// # Errors
/// If there is no such exercise, stage or rung.
pub fn run(root: &Path, exercise: &str, stage: Option<&str>, rung: usize) -> Result<()> {
    let exercise = Exercise::find(root, exercise)?;
    let name = &exercise.name;
    let Some(stage) = stage else {
        println!("{name} has hints for each stage:");
        for stage in &exercise.about.stages {
            println!("  cargo run -- hint {name} {}", stage.name);
        }
        return Ok(());
    };
    let stage = &exercise.stage(stage)?.name;
    let path = exercise.folder().join("hints.md");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let rungs = ladder(&text, stage);
    ensure!(
        !rungs.is_empty(),
        "{} has no hints for {stage}",
        path.display()
    );
    let Some(words) = rung.checked_sub(1).and_then(|index| rungs.get(index)) else {
        bail!(
            "the hints for {stage} are numbered from 1 to {}",
            rungs.len()
        );
    };
    println!("{words}");
    if rung < rungs.len() {
        let next = format!("\nMore: cargo run -- hint {name} {stage} {}", rung + 1);
        println!("{}", styled(FAINT, &next));
    }
    Ok(())
}

/// The rungs below the heading `## stage`: each begins with a heading `### …`.
pub fn ladder(text: &str, stage: &str) -> Vec<String> {
    let heading = format!("## {stage}");
    let mut lines = text.lines().skip_while(|line| *line != heading);
    lines.next();
    let mut rungs: Vec<String> = Vec::new();
    for line in lines.take_while(|line| !line.starts_with("## ")) {
        if let Some(title) = line.strip_prefix("### ") {
            rungs.push(format!("{title}\n"));
        } else if let Some(rung) = rungs.last_mut() {
            rung.push_str(line);
            rung.push('\n');
        }
    }
    let trimmed = rungs.iter().map(|rung| rung.trim_end().to_owned());
    trimmed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ladder_ends_where_the_next_stage_begins() {
        let text =
            "# Hints\n## a\n### 1 nudge\nlook\n### 2 concept\nthink\n\n## b\n### 1 nudge\nno\n";
        assert_eq!(ladder(text, "a"), ["1 nudge\nlook", "2 concept\nthink"]);
        assert_eq!(ladder(text, "b"), ["1 nudge\nno"]);
        assert!(ladder(text, "c").is_empty());
    }
}
