//! A question with one short answer. The reader commits to a prediction before seeing it.

use anyhow::{Result, ensure};

use super::at_line;
use super::html::{escape, inline};

pub fn html(id: &str, lines: &[&str]) -> Result<String> {
    let (mut question, mut answer, mut why) = (Vec::new(), None, Vec::new());
    for (number, line) in lines.iter().enumerate() {
        let line = line.trim();
        if let Some(text) = line.strip_prefix("answer:") {
            let text = text.trim();
            if answer.is_some() || text.is_empty() {
                return Err(at_line(
                    number,
                    "there must be exactly one answer, such as `answer: 256`",
                ));
            }
            answer = Some(text);
        } else if let Some(text) = line.strip_prefix("why:")
            && why.is_empty()
        {
            why.push(text.trim());
        } else if !why.is_empty() {
            why.push(line);
        } else if answer.is_none() {
            question.push(line);
        } else if !line.is_empty() {
            return Err(at_line(number, "expected `why: REASON` after the answer"));
        }
    }
    let (question, why) = (question.join(" "), why.join(" "));
    ensure!(
        !question.trim().is_empty(),
        "the prediction {id} has no question"
    );
    let Some(answer) = answer else {
        anyhow::bail!("the prediction {id} has no answer; add `answer: ANSWER`");
    };
    ensure!(
        !why.trim().is_empty(),
        "the prediction {id} has no reason; add `why: REASON`"
    );
    Ok(format!(
        "<wb-predict data-id=\"{id}\">\n\
         <p class=\"wb-ask\">{}</p>\n\
         <details><summary>Answer</summary>\n\
         <p><b>{}</b></p>\n\
         <p>{}</p>\n\
         </details>\n\
         </wb-predict>",
        inline(&question),
        escape(answer),
        inline(why.trim())
    ))
}
