//! Removes the common indentation of listings. Lines that a page includes from the middle of a program keep the
//! indentation that they have there.

use pulldown_cmark::{CodeBlockKind, Event, Parser, Tag};

/// Returns the page with the common indentation of each fenced code block removed.
pub fn page(text: &str) -> String {
    let mut page = String::with_capacity(text.len());
    let mut done = 0;
    for (event, range) in Parser::new(text).into_offset_iter() {
        // In a list, the indentation belongs to the list.
        let at_line_start = text[..range.start]
            .chars()
            .next_back()
            .is_none_or(|before| before == '\n');
        if at_line_start && let Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(_))) = event {
            page += &text[done..range.start];
            page += &dedent(&text[range.clone()]);
            done = range.end;
        }
    }
    page += &text[done..];
    page
}

fn dedent(block: &str) -> String {
    let lines: Vec<&str> = block.split_inclusive('\n').collect();
    let [first, inner @ .., last] = lines.as_slice() else {
        return block.to_owned();
    };
    let is_blank = |line: &&&str| line.trim().is_empty();
    let indentation = |line: &&str| line.len() - line.trim_start_matches(' ').len();
    let filled = inner.iter().filter(|line| !is_blank(line));
    let common = filled.map(indentation).min().unwrap_or(0);
    let inner = inner.iter().map(|line| match is_blank(&line) {
        true => "\n",
        false => &line[common..],
    });
    format!("{first}{}{last}", inner.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_indentation_is_removed() {
        let text = "A.\n\n```rust,ignore\n        let x = 1;\n\n        if x {\n            y\n        }\n```\n\nB.\n";
        let moved = "A.\n\n```rust,ignore\nlet x = 1;\n\nif x {\n    y\n}\n```\n\nB.\n";
        assert_eq!(page(text), moved);
    }

    #[test]
    fn blocks_without_common_indentation_are_unchanged() {
        let text = "```console\n$ run\n  1 page\n```\n\n    not fenced\n\n- in a list:\n\n  ```c\n  x\n  ```\n\n```c\n```\n";
        assert_eq!(page(text), text);
    }
}
