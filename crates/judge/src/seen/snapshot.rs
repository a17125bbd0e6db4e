//! Compares with insta's stored snapshots, and reads them to explain a difference in a sentence.

use std::cell::Cell;
use std::path::Path;
use std::sync::Once;
use std::{fs, io, panic, thread};

use insta::Settings;

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Whether `got` is the snapshot `name` in `folder`. insta accepts a new text if its environment variables say so.
pub fn matches(folder: &Path, name: &str, got: &str) -> bool {
    let mut settings = Settings::clone_current();
    settings.set_snapshot_path(folder);
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    quietly(&mut || settings.bind(|| insta::assert_snapshot!(name, got))).is_ok()
}

/// The stored text of the snapshot `name` in `folder`.
pub fn stored(folder: &Path, name: &str) -> io::Result<String> {
    let text = fs::read_to_string(folder.join(format!("{name}.snap")))?;
    // The text follows a header between two lines of dashes.
    let body = text.splitn(3, "---\n").nth(2).unwrap_or(&text);
    Ok(body.trim_end().to_owned())
}

/// Both texts, line by line, with a label before each line.
pub fn difference(expected: &str, got: &str) -> String {
    let diff = similar::TextDiff::from_lines(expected.trim_end(), got.trim_end());
    let lines: Vec<String> = diff
        .iter_all_changes()
        .map(|change| {
            let label = match change.tag() {
                similar::ChangeTag::Equal => "  as expected   ",
                similar::ChangeTag::Delete => "  missing       ",
                similar::ChangeTag::Insert => "  not expected  ",
            };
            format!("{label}{}", change.value().trim_end())
        })
        .collect();
    lines.join("\n")
}

/// The result of `f`, whose panic prints nothing.
pub fn quietly(f: &mut dyn FnMut()) -> thread::Result<()> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let loud = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                loud(info);
            }
        }));
    });
    let outer = QUIET.replace(true);
    let result = panic::catch_unwind(panic::AssertUnwindSafe(f));
    QUIET.set(outer);
    result
}
