//! A page's section as a terminal can show it: programs in place of their includes, nothing that only a browser shows.

use std::path::Path;

use crate::bank::include::included;

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

#[cfg(test)]
mod tests {
    use std::fs;

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
