//! Takes a listing's margin away: what a page includes from the middle of a program stands as far to the right as there.

use pulldown_cmark::{CodeBlockKind, Event, Parser, Tag};

/// The page, with each fenced block moved to the left as far as its lines allow.
pub fn page(text: &str) -> String {
    let mut page = String::with_capacity(text.len());
    let mut done = 0;
    for (event, range) in Parser::new(text).into_offset_iter() {
        // In a list the margin is the list's.
        let alone = text[..range.start]
            .chars()
            .next_back()
            .is_none_or(|before| before == '\n');
        if alone && let Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(_))) = event {
            page += &text[done..range.start];
            page += &without_margin(&text[range.clone()]);
            done = range.end;
        }
    }
    page += &text[done..];
    page
}

/// The block's lines between its marks lose the spaces that all of them begin with.
fn without_margin(block: &str) -> String {
    let lines: Vec<&str> = block.split_inclusive('\n').collect();
    let [first, inner @ .., last] = lines.as_slice() else {
        return block.to_owned();
    };
    format!("{first}{}{last}", textwrap::dedent(&inner.concat()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_begins_at_the_left() {
        let text = "A.\n\n```rust,ignore\n        let x = 1;\n\n        if x {\n            y\n        }\n```\n\nB.\n";
        let moved = "A.\n\n```rust,ignore\nlet x = 1;\n\nif x {\n    y\n}\n```\n\nB.\n";
        assert_eq!(page(text), moved);
    }

    #[test]
    fn what_begins_at_the_left_stays() {
        let text = "```console\n$ run\n  1 page\n```\n\n    not fenced\n\n- in a list:\n\n  ```c\n  x\n  ```\n\n```c\n```\n";
        assert_eq!(page(text), text);
    }
}
