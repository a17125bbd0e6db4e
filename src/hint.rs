//! `workbook hint`: a stage's ladder of hints, one rung at a time.

use std::fs;
use std::path::Path;

use anstream::{eprintln, println};
use anyhow::{Context, Result, bail, ensure};

use crate::exercise::Exercise;
use crate::progress::Progress;
use crate::state::{self, Log, Record};
use crate::words::{FAINT, Prompt, indented, styled};

/// Shows the next rung of a stage's ladder, or the one with that number, from 1. Without a name: of the first exercise
/// that is not solved. Without a stage: of the first that failed when the exercise was graded last, or else of the first
/// that was not begun.
///
/// # Errors
/// If there is no such exercise, stage or rung.
pub fn run(
    root: &Path,
    name: Option<&str>,
    stage: Option<&str>,
    rung: Option<usize>,
    prompt: Prompt,
) -> Result<()> {
    let progress = Progress::read(root)?;
    let exercise = match name {
        Some(name) => Exercise::find(root, name)?,
        None => {
            let mut all = Exercise::all(root)?.into_iter();
            let unsolved = all.find(|exercise| !progress.is_solved(&exercise.name));
            unsolved.context("every exercise is solved: name the one that you mean")?
        }
    };
    let name = exercise.name.as_str();
    let unsolved = progress.first_unsolved_stage(name).map(str::to_owned);
    let stages = &exercise.about.stages;
    let first = stages.first().map(|stage| stage.name.clone());
    let asked = stage.map(str::to_owned).or(unsolved).or(first);
    let stage = &exercise.stage(&asked.unwrap_or_default())?.name;
    let path = exercise.folder().join("hints.md");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let rungs = ladder(&text, stage);
    ensure!(
        !rungs.is_empty(),
        "{} has no hints for {stage}",
        path.display()
    );
    let shown = progress.hints_shown(name, stage);
    let rung = rung.unwrap_or((shown + 1).min(rungs.len()));
    let Some(words) = rung.checked_sub(1).and_then(|index| rungs.get(index)) else {
        bail!(
            "the hints for {stage} are numbered from 1 to {}",
            rungs.len()
        );
    };
    println!("{}", styled(FAINT, &format!("{name}, {stage}:")));
    for line in words.lines() {
        // What is indented is code.
        match line.starts_with(' ') {
            true => println!("{line}"),
            false => println!("{}", indented(0, line)),
        }
    }
    if rung < rungs.len() {
        let next = format!("\nMore: {}", prompt.hint(name, stage));
        println!("{}", styled(FAINT, &next));
    }
    let record = Record::Hint {
        at: state::now(),
        exercise: name.to_owned(),
        stage: stage.clone(),
        rung,
    };
    if let Err(error) = Log::of(root).append(&record) {
        eprintln!("The hint could not be recorded, and will be shown again: {error:#}.");
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
