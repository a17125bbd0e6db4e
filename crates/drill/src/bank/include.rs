//! mdBook's `{{#include FILE}}` and `{{#include FILE:ANCHOR}}`.

use std::fs;
use std::path::Path;

/// Returns the text that `line` includes, or `None` if it includes nothing. Paths are relative to `folder`.
pub fn included(line: &str, folder: &Path) -> Option<String> {
    let target = line.strip_prefix("{{#include ")?.strip_suffix("}}")?;
    let (file, anchor) = target.split_once(':').unwrap_or((target, ""));
    let text = fs::read_to_string(folder.join(file)).ok()?;
    match anchor {
        "" => Some(text.trim_end().to_owned()),
        _ => between_anchors(&text, anchor),
    }
}

/// Returns the dedented text between `ANCHOR: name` and `ANCHOR_END: name`, without the lines of other anchors.
/// `None` if there is no such text.
pub fn between_anchors(text: &str, name: &str) -> Option<String> {
    let begin = ("ANCHOR", name);
    let end = ("ANCHOR_END", name);
    let mut lines = text.lines().skip_while(|line| anchor(line) != Some(begin));
    lines.next()?;
    let inside: Vec<_> = lines
        .take_while(|line| anchor(line) != Some(end))
        .filter(|line| anchor(line).is_none())
        .collect();
    let inside = textwrap::dedent(&inside.join("\n"));
    let inside = inside.trim_end();
    (!inside.is_empty()).then(|| inside.to_owned())
}

/// Parses a comment such as `// ANCHOR: main` or `/* ANCHOR_END: main */`.
fn anchor(line: &str) -> Option<(&str, &str)> {
    let comment = line.trim();
    let comment = comment.trim_start_matches("// ").trim_start_matches("/* ");
    let comment = comment.trim_end_matches("*/").trim_end();
    let anchor = comment.split_once(": ")?;
    ["ANCHOR", "ANCHOR_END"]
        .contains(&anchor.0)
        .then_some(anchor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anchors_nest() {
        let text = "fn no() {}\n    // ANCHOR: main\n    yes(\n    // ANCHOR: deep\n        1,\n    // ANCHOR_END: deep\n    );\n    // ANCHOR_END: main\nno();\n";
        assert_eq!(
            between_anchors(text, "main").as_deref(),
            Some("yes(\n    1,\n);")
        );
        assert_eq!(between_anchors(text, "deep").as_deref(), Some("1,"));
        assert_eq!(between_anchors(text, "missing"), None);
    }
}
