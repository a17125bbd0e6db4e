//! A multiple-choice question. Exactly one option is right, and every option has a reason.

use anyhow::{Result, ensure};

use super::at_line;
use super::html::inline;

struct Choice {
    right: bool,
    /// The index of its first line in the fence.
    line: usize,
    text: String,
}

pub fn html(id: &str, lines: &[&str]) -> Result<String> {
    let mut question = Vec::new();
    let mut choices: Vec<Choice> = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        let mark = |mark| line.strip_prefix(mark).map(str::trim);
        if let Some(text) = mark("- [ ]").or(mark("- [x]")) {
            choices.push(Choice {
                right: line.starts_with("- [x]"),
                line: number,
                text: text.to_owned(),
            });
        } else if let Some(choice) = choices.last_mut() {
            if line.trim().is_empty() {
                continue;
            }
            if !line.starts_with("  ") {
                return Err(at_line(
                    number,
                    "expected another option: `- [ ] OPTION > REASON`",
                ));
            }
            choice.text = format!("{} {}", choice.text, line.trim());
        } else {
            question.push(line.trim());
        }
    }
    let question = question.join(" ");
    ensure!(!question.trim().is_empty(), "the quiz {id} has no question");
    ensure!(
        choices.len() > 1,
        "the quiz {id} needs at least two options"
    );
    let right = choices.iter().filter(|choice| choice.right).count();
    ensure!(
        right == 1,
        "the quiz {id} has {right} right options `- [x]`; it needs exactly one"
    );
    let (mut options, mut reasons) = (String::new(), String::new());
    for choice in &choices {
        let Some((option, reason)) = split(&choice.text) else {
            let option = choice.text.trim_end_matches('>').trim();
            let message = format!("the option has no reason; write `{option} > REASON`");
            return Err(at_line(choice.line, message));
        };
        let (class, verdict) = match choice.right {
            true => (" class=\"wb-right\"", "Right."),
            false => ("", "No."),
        };
        options += &format!("<li>{}</li>\n", inline(option));
        reasons += &format!("<li{class}><b>{verdict}</b> {}</li>\n", inline(reason));
    }
    Ok(format!(
        "<wb-quiz data-id=\"{id}\">\n\
         <p class=\"wb-ask\">{}</p>\n\
         <ol type=\"A\">\n{options}</ol>\n\
         <details><summary>Answer</summary>\n\
         <ol type=\"A\">\n{reasons}</ol>\n\
         </details>\n\
         </wb-quiz>",
        inline(&question)
    ))
}

/// Splits an option from its reason at the first ` > ` outside of code.
fn split(text: &str) -> Option<(&str, &str)> {
    let mut code = false;
    for (place, letter) in text.char_indices() {
        match letter {
            '`' => code = !code,
            '>' if !code && text[..place].ends_with(' ') => {
                let (option, reason) = (text[..place].trim(), text[place + 1..].trim());
                return (!option.is_empty() && !reason.is_empty()).then_some((option, reason));
            }
            _ => {}
        }
    }
    None
}
