//! A page's section as a terminal can show it: programs in place of their includes, nothing that only a browser shows.

use std::fs;
use std::path::Path;

/// What the page folds away or draws.
const BLOCKS: [(&str, &str); 2] = [("<details", "</details>"), ("<figure", "</figure>")];

/// The fences that the reader makes something else of: the drill has questions of its own.
const ELEMENTS: [&str; 5] = ["trace", "quiz", "predict", "grade", "progress"];

/// That section. Its includes are paths from `folder`, where the page lies.
pub fn plain(section: &str, folder: &Path) -> String {
    let mut told: Vec<String> = Vec::new();
    let mut lines = section.lines();
    while let Some(line) = lines.next() {
        let block = BLOCKS.iter().find(|(begin, _)| line.starts_with(begin));
        let info = line.strip_prefix("```").map(str::trim).unwrap_or_default();
        let element = info.split(' ').next().unwrap_or_default();
        if let Some((_, end)) = block {
            lines.by_ref().find(|line| line.contains(end));
        } else if ELEMENTS.contains(&element) {
            lines.by_ref().find(|line| line.starts_with("```"));
        } else if let Some(code) = included(line, folder) {
            told.push(code);
        } else if !(line.is_empty() && told.last().is_some_and(|before| before.is_empty())) {
            told.push(line.to_owned());
        }
    }
    told.join("\n").trim_end().to_owned()
}

/// What a line includes: a file, or what stands in it between anchors.
fn included(line: &str, folder: &Path) -> Option<String> {
    let place = line.strip_prefix("{{#include ")?.strip_suffix("}}")?;
    let (file, anchor) = place.split_once(':').unwrap_or((place, ""));
    let text = fs::read_to_string(folder.join(file)).ok()?;
    match anchor {
        "" => Some(text.trim_end().to_owned()),
        _ => between_anchors(&text, anchor),
    }
}

/// What stands between the anchors of that name, without other anchors, moved to the left edge.
pub fn between_anchors(text: &str, name: &str) -> Option<String> {
    let anchor = |line: &str| {
        let line = line.trim();
        let line = line.trim_start_matches("// ").trim_start_matches("/* ");
        let line = line.trim_end_matches("*/").trim_end();
        let (word, name) = line.split_once(": ")?;
        ["ANCHOR", "ANCHOR_END"]
            .contains(&word)
            .then(|| (word == "ANCHOR", name.to_owned()))
    };
    let is = |line: &&str, begins: bool| anchor(line) == Some((begins, name.to_owned()));
    let mut lines = text.lines().skip_while(|line| !is(line, true));
    lines.next()?;
    let inside: Vec<_> = lines
        .take_while(|line| !is(line, false))
        .filter(|line| anchor(line).is_none())
        .collect();
    let inside = textwrap::dedent(&inside.join("\n"));
    let inside = inside.trim_end();
    (!inside.is_empty()).then(|| inside.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_stand_in_place_of_their_includes() {
        let folder = tempfile::tempdir().expect("a folder");
        let program = "fn no() {}\n    // ANCHOR: main\n    yes(\n    // ANCHOR: deep\n        1,\n    // ANCHOR_END: deep\n    );\n    // ANCHOR_END: main\nno();\n";
        fs::write(folder.path().join("a.rs"), program).expect("a file");
        let section = "## Run\n\n```predict id=x\nHow many?\nanswer: 2\n```\n\n```rust,ignore\n{{#include a.rs:main}}\n```\n\n<details><summary>C</summary>\n\n```c\nno\n```\n\n</details>\n\n- [x] `{{#include b}}`\n{{#include b.rs}}\n\n";
        assert_eq!(
            plain(section, folder.path()),
            "## Run\n\n```rust,ignore\nyes(\n    1,\n);\n```\n\n- [x] `{{#include b}}`\n{{#include b.rs}}"
        );
    }
}
