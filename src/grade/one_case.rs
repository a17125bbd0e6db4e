//! Writes the source of a grader that has only one case, which compiles in a fraction of the time.
//!
//! The files are copies of the exercise's, without the other tests, and without modules that the rest does not name. The
//! rest keeps its line numbers. Rustfmt has formatted the original: an item ends with a line `}`.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use course::exercise::Exercise;

use crate::grade::compile_fail;

/// The end of an item.
const END: &str = "\n}\n";

/// Takes the place of an item that is left out, whose comment would otherwise belong to the next item.
const NOTHING: &str = "#[cfg(any())] mod nothing {}";

/// Writes the grader into `folder`, which it replaces, and returns the path of its `main.rs`. A compile-fail case is there
/// with all compile-fail cases.
///
/// # Errors
/// Returns an error if a file of the exercise's grader cannot be read, or a file cannot be written.
pub fn write(exercise: &Exercise, case: &str, folder: &Path) -> Result<PathBuf> {
    let (stage, test) = case
        .split_once("::")
        .context("the case is not STAGE::CASE")?;
    let original = exercise.grader();
    let is_compile_fail = exercise.folder().join(compile_fail::file(case)).is_file();
    let read = |module: &str| {
        let path = original.join(module).with_extension("rs");
        fs::read_to_string(&path).with_context(|| path.display().to_string())
    };
    let mut main = read("main")?;
    if !is_compile_fail {
        main = without(&main, "judge::compile_fail! {\n", |_| false);
    }
    let mut modules = BTreeMap::new();
    for module in main.lines().filter_map(declared) {
        let keep = |name: &str| module == stage && name == test;
        modules.insert(
            module.to_owned(),
            without(&read(module)?, "#[test]\n", keep),
        );
    }
    let mut needed = BTreeMap::new();
    let mut reached = vec![main.clone()];
    if !is_compile_fail {
        reached.extend(take(&mut modules, &mut needed, |module| module == stage));
    }
    while let Some(text) = reached.pop() {
        let is_named = |module: &str| text.contains(&format!("{module}::"));
        reached.extend(take(&mut modules, &mut needed, is_named));
    }
    for module in modules.keys() {
        main = main.replace(&format!("\nmod {module};\n"), "\n\n");
    }
    needed.insert("main".to_owned(), main);

    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    for (module, text) in needed {
        fs::write(folder.join(module).with_extension("rs"), text)?;
    }
    // The macro `compile_fail` includes the legal twins from there.
    symlink(original.join("compile_fail"), folder.join("compile_fail"))?;
    Ok(folder.join("main.rs"))
}

/// The name in `mod name;`.
fn declared(line: &str) -> Option<&str> {
    line.strip_prefix("mod ")?.strip_suffix(';')
}

/// Moves the modules that `is_wanted` from one map to the other, and returns their texts.
fn take(
    from: &mut BTreeMap<String, String>,
    to: &mut BTreeMap<String, String>,
    is_wanted: impl Fn(&str) -> bool,
) -> Vec<String> {
    let taken: Vec<_> = from.extract_if(.., |name, _| is_wanted(name)).collect();
    to.extend(taken.iter().cloned());
    taken.into_iter().map(|(_, text)| text).collect()
}

/// Leaves out the items that begin with `begin`, except functions that `keep` wants by their names.
fn without(text: &str, begin: &str, keep: impl Fn(&str) -> bool) -> String {
    let mut parts = text.split(begin);
    let mut left = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (item, rest) = part.split_once(END).unwrap_or((part, ""));
        let name = item
            .split_once("fn ")
            .and_then(|(_, rest)| rest.split_once('('));
        if name.is_some_and(|(name, _)| keep(name)) {
            left.extend([begin, item, END]);
        } else {
            let lines = [begin, item, END].map(|text| text.matches('\n').count());
            left += NOTHING;
            left += &"\n".repeat(lines.iter().sum());
        }
        left += rest;
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_keeps_its_place_and_what_it_uses() {
        let root = course::root::find().expect("the tests run in a clone");
        let exercise = Exercise::find(&root, "private-alloc").expect("an exercise");
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path().join("grader");
        let main = write(&exercise, "views::sent_to_a_thread", &folder);
        let read = |path: PathBuf| fs::read_to_string(path).expect("a file of the grader");
        let (main, original) = (
            read(main.expect("the grader is written")),
            read(exercise.grader().join("main.rs")),
        );
        assert_eq!(main.lines().count(), original.lines().count());
        assert!(original.contains("\nmod by_hand;\n") && original.contains("compile_fail!"));
        assert!(!main.contains("\nmod by_hand;\n") && !main.contains("compile_fail!"));
        assert!(main.contains("\nmod populate;\n"), "views uses populate");
        let views = read(folder.join("views.rs"));
        let original = read(exercise.grader().join("views.rs"));
        let tests = |text: &str| -> Vec<_> {
            let lines = text.lines().zip(1..);
            let tests = lines.filter(|(line, _)| *line == "#[test]");
            tests.map(|(_, number)| number).collect()
        };
        let kept = tests(&views);
        assert_eq!(kept.len(), 1);
        assert!(tests(&original).contains(&kept[0]));
    }
}
