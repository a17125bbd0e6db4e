//! The elements that show verdicts: the stages of one exercise, and the progress through all exercises.

use std::fmt::Write;

use anyhow::{Result, bail, ensure};
use course::exercise::Exercise;

use super::Fence;
use super::html::escape;

pub fn html(exercises: &[Exercise], fence: &Fence) -> Result<String> {
    let name = fence.argument;
    let Some(exercise) = exercises.iter().find(|exercise| exercise.name == name) else {
        let names: Vec<_> = exercises.iter().map(|known| known.name.as_str()).collect();
        bail!(
            "there is no exercise {name:?}; the exercises are {}",
            names.join(", ")
        );
    };
    check_command(fence, &format!("cargo run -- grade {name}"))?;
    let mut stages = String::new();
    for stage in &exercise.about.stages {
        let bonus = if stage.bonus { "bonus, " } else { "" };
        writeln!(
            stages,
            "<li data-stage=\"{}\">{} <small>{bonus}{} minutes</small></li>",
            escape(&stage.name),
            escape(&stage.title),
            stage.minutes
        )?;
    }
    Ok(format!(
        "<wb-grade data-exercise=\"{name}\">\n\
         <p class=\"wb-head\">Grade it in your clone:</p>\n\
         <pre><code class=\"language-text\">cargo run -- grade {name}</code></pre>\n\
         <ol>\n{stages}</ol>\n\
         </wb-grade>"
    ))
}

pub fn progress(exercises: &[Exercise], fence: &Fence) -> Result<String> {
    ensure!(
        fence.argument.is_empty(),
        "the fence has an argument; write ```progress"
    );
    check_command(fence, "cargo run")?;
    let mut rows = String::new();
    for exercise in exercises {
        let about = &exercise.about;
        let (bonus, core): (Vec<_>, Vec<_>) = about.stages.iter().partition(|stage| stage.bonus);
        let minutes: u32 = core.iter().map(|stage| stage.minutes).sum();
        let bonus = match bonus.len() {
            0 => String::new(),
            more => format!(", {more} bonus stages"),
        };
        let stages = match core.len() {
            1 => "1 stage".to_owned(),
            more => format!("{more} stages"),
        };
        let page = about.page.strip_suffix(".md").unwrap_or(&about.page);
        writeln!(
            rows,
            "<li data-exercise=\"{}\"><a href=\"{}.html\">{}</a> <small>{stages}, {minutes} minutes{bonus}</small></li>",
            escape(&exercise.name),
            escape(page),
            escape(&about.title),
        )?;
    }
    Ok(format!(
        "<wb-progress>\n\
         <p class=\"wb-head\">Grade all exercises in your clone:</p>\n\
         <pre><code class=\"language-text\">cargo run</code></pre>\n\
         <ol>\n{rows}</ol>\n\
         </wb-progress>"
    ))
}

/// Without the preprocessor a page shows the fence itself, so it must contain the command to copy.
fn check_command(fence: &Fence, command: &str) -> Result<()> {
    let text = fence.lines.join("\n");
    ensure!(
        text.trim() == command,
        "the text of this fence must be the command to copy: {command}"
    );
    Ok(())
}
