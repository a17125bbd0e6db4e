//! `workbook hint`: the hints for a stage, one at a time.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use course::exercise::Exercise;
use course::log::{self, Log, Record};

use crate::progress::Progress;
use crate::terminal::{FAINT, Prompt, indented, styled};
use crate::{say, warn};

/// Shows the next hint for a stage, or the hint with that number, from 1.
///
/// Without a name, it chooses the first exercise that is not solved. Without a stage, it chooses the first stage that
/// failed when the exercise was last graded, or else the first that was not started.
///
/// # Errors
/// Returns an error if there is no such exercise, stage or hint.
pub fn run(
    root: &Path,
    name: Option<&str>,
    stage: Option<&str>,
    number: Option<usize>,
    prompt: Prompt,
) -> Result<()> {
    let progress = Progress::read(root)?;
    let exercise = match name {
        Some(name) => Exercise::find(root, name)?,
        None => {
            let mut all = Exercise::all(root)?.into_iter();
            let unsolved = all.find(|exercise| !progress.is_solved(&exercise.name));
            unsolved.context(
                "every exercise is solved; name one, as in `cargo run -- hint private-alloc`",
            )?
        }
    };
    let name = exercise.name.as_str();
    let unsolved = progress.first_unsolved_stage(name);
    let first = exercise.about.stages.first();
    let stage = stage
        .or(unsolved)
        .or(first.map(|stage| stage.name.as_str()));
    let stage = &exercise.stage(stage.unwrap_or_default())?.name;
    let path = exercise.folder().join("hints.md");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let hints = hints_for(&text, stage);
    ensure!(
        !hints.is_empty(),
        "{} has no hints for {stage}",
        path.display()
    );
    let shown = progress.hints_shown(name, stage);
    let number = number.unwrap_or((shown + 1).min(hints.len()));
    let Some(hint) = number.checked_sub(1).and_then(|index| hints.get(index)) else {
        bail!(
            "the hints for {stage} are numbered from 1 to {}",
            hints.len()
        );
    };
    say!("{}", styled(FAINT, &format!("{name}, {stage}:")));
    for line in hint.lines() {
        // Code is indented, and must not be wrapped.
        match line.starts_with(' ') {
            true => say!("{line}"),
            false => say!("{}", indented(0, line)),
        }
    }
    if number < hints.len() {
        let next = format!("\nMore: {}", prompt.hint(name, stage));
        say!("{}", styled(FAINT, &next));
    } else {
        let next = format!(
            "\nThis was the last hint. The solution: {}",
            prompt.spoil(name)
        );
        say!("{}", styled(FAINT, &next));
    }
    let record = Record::Hint {
        at: log::now(),
        exercise: name.to_owned(),
        stage: stage.clone(),
        rung: number,
    };
    if let Err(error) = Log::of(root).append(&record) {
        warn!("The hint could not be recorded and will be shown again: {error:#}.");
    }
    Ok(())
}

/// Returns the hints below the heading `## stage`; each begins with a heading `### …`.
pub fn hints_for(text: &str, stage: &str) -> Vec<String> {
    let heading = format!("## {stage}");
    let mut lines = text.lines().skip_while(|line| *line != heading);
    lines.next();
    let mut hints: Vec<String> = Vec::new();
    for line in lines.take_while(|line| !line.starts_with("## ")) {
        if let Some(title) = line.strip_prefix("### ") {
            hints.push(format!("{title}\n"));
        } else if let Some(hint) = hints.last_mut() {
            hint.push_str(line);
            hint.push('\n');
        }
    }
    let trimmed = hints.iter().map(|hint| hint.trim_end().to_owned());
    trimmed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_end_at_the_next_stage() {
        let text =
            "# Hints\n## a\n### 1 nudge\nlook\n### 2 concept\nthink\n\n## b\n### 1 nudge\nno\n";
        assert_eq!(hints_for(text, "a"), ["1 nudge\nlook", "2 concept\nthink"]);
        assert_eq!(hints_for(text, "b"), ["1 nudge\nno"]);
        assert!(hints_for(text, "c").is_empty());
    }
}
