//! The conventions of the house, as tests: each says what breaks where it is not kept.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use workbook::exercise::Exercise;
use workbook::hint;

fn exercises() -> Vec<Exercise> {
    let all = workbook::root::find().and_then(|root| Exercise::all(&root));
    all.expect("every exercise has a manifest")
}

fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Files of the repository with that ending, without what is built or generated.
fn files(ending: &str) -> Vec<PathBuf> {
    let root = workbook::root::find().expect("a clone");
    let mut found = Vec::new();
    let mut folders = vec![root];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder").flatten() {
            let path = entry.path();
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if !name.starts_with('.') && !["target", "wip"].contains(&&*name) {
                    folders.push(path);
                }
            } else if name.ends_with(ending) {
                found.push(path);
            }
        }
    }
    assert!(!found.is_empty(), "no file ends with {ending}");
    found
}

/// Code beside the judge's call would run twice: in the judge, and in the case's own process.
#[test]
fn a_graders_test_is_one_call_of_the_judge() {
    for path in exercises().iter().flat_map(graders_files) {
        let file = syn::parse_file(&read(&path)).expect("the grader compiles");
        let mut waiting: Vec<&syn::Item> = file.items.iter().collect();
        while let Some(item) = waiting.pop() {
            match item {
                syn::Item::Mod(module) => {
                    waiting.extend(module.content.iter().flat_map(|(_, items)| items));
                }
                syn::Item::Fn(function) if is_test(function) => {
                    assert!(
                        is_one_call(function),
                        "{}: {} does more than call the judge",
                        path.display(),
                        function.sig.ident
                    );
                }
                _ => {}
            }
        }
    }
}

/// `grader.rs`, and the modules beside it.
fn graders_files(exercise: &Exercise) -> Vec<PathBuf> {
    let files = fs::read_dir(exercise.tests()).expect("a grader").flatten();
    let files = files.map(|entry| entry.path());
    files
        .filter(|path| path.extension().is_some_and(|ending| ending == "rs"))
        .collect()
}

/// The grader's modules that hold cases: in `grader.rs`, or each in a file of its own.
fn modules_with_cases(exercise: &Exercise) -> Result<Vec<String>> {
    let holds_cases = |items: &[syn::Item]| {
        let case = |item: &syn::Item| matches!(item, syn::Item::Fn(function) if is_test(function));
        items.iter().any(case)
    };
    let mut modules = Vec::new();
    for path in graders_files(exercise) {
        let file = syn::parse_file(&read(&path))?;
        if holds_cases(&file.items) {
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            modules.push(name.into_owned());
        }
        for item in &file.items {
            if let syn::Item::Mod(module) = item
                && let Some((_, items)) = &module.content
                && holds_cases(items)
            {
                modules.push(module.ident.to_string());
            }
        }
    }
    Ok(modules)
}

fn is_test(function: &syn::ItemFn) -> bool {
    let test = |attribute: &syn::Attribute| attribute.path().is_ident("test");
    function.attrs.iter().any(test)
}

fn is_one_call(function: &syn::ItemFn) -> bool {
    let [syn::Stmt::Expr(syn::Expr::Call(call), None)] = function.block.stmts.as_slice() else {
        return false;
    };
    let syn::Expr::Path(path) = &*call.func else {
        return false;
    };
    let name = path.path.segments.last().map(|last| last.ident.to_string());
    matches!(name.as_deref(), Some("case" | "watched"))
}

/// A stage is found by its name: the cases' module, the compile-fail cases' folder, the ladder of hints.
#[test]
fn a_stage_has_cases_and_three_hints() -> Result<()> {
    for exercise in exercises() {
        let modules = modules_with_cases(&exercise)?;
        let hints = read(exercise.folder().join("hints.md"));
        let readme = read(exercise.folder().join("README.md"));
        for stage in &exercise.about.stages {
            let name = &stage.name;
            assert!(modules.contains(name), "the grader has no cases for {name}");
            assert_eq!(hint::ladder(&hints, name).len(), 3, "hints for {name}");
            let minutes = match stage.bonus {
                true => format!("bonus, {} minutes", stage.minutes),
                false => format!("{} minutes", stage.minutes),
            };
            let heading = format!("`{name}` ({minutes})");
            assert!(readme.contains(&heading), "the README has no {heading}");
        }
        for name in modules {
            let is_stage = exercise.about.stages.iter().any(|stage| stage.name == name);
            assert!(is_stage, "{name} is no stage");
        }
    }
    Ok(())
}

/// One name finds everything that belongs to an exercise.
#[test]
fn an_exercise_is_complete() -> Result<()> {
    for exercise in exercises() {
        let page = exercise.root.join("book/src").join(&exercise.about.page);
        let include = format!("exercises/{}/README.md}}}}", exercise.name);
        assert!(
            read(&page).contains(&include),
            "{} does not include the task",
            page.display()
        );
        assert!(exercise.solution().is_file(), "no solution");
        for kind in ["right", "wrong"] {
            let folder = exercise.tests().join("answers").join(kind);
            let count = fs::read_dir(&folder).context("answers")?.count();
            assert!(count > 3, "{}: {count} answers", folder.display());
        }
        let link = exercise.folder().join("compile_fail");
        if let Ok(folder) = fs::read_link(&link) {
            let same = fs::canonicalize(exercise.folder().join(folder))?;
            assert_eq!(same, exercise.tests().join("compile_fail").canonicalize()?);
        }
    }
    Ok(())
}

/// The members' features are united when the workspace is built: a feature that only one member names would let an
/// answer build with `cargo test` that `cargo check` refuses.
#[test]
fn only_the_workspace_names_features() -> Result<()> {
    for path in files("Cargo.toml") {
        let manifest: toml::Table = read(&path).parse()?;
        if manifest.contains_key("workspace") {
            continue;
        }
        for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let Some(dependencies) = manifest.get(kind).and_then(toml::Value::as_table) else {
                continue;
            };
            for (name, dependency) in dependencies {
                assert_eq!(
                    dependency.get("workspace"),
                    Some(&toml::Value::Boolean(true)),
                    "{}: {name} stands in [workspace.dependencies], and nowhere else",
                    path.display()
                );
            }
        }
    }
    Ok(())
}

/// A file says in its first line what it is for; a case that must not compile says what it shows.
#[test]
fn a_source_file_begins_with_what_it_is_for() {
    for path in files(".rs") {
        let legal = path.components().any(|part| part.as_os_str() == "legal");
        let text = read(&path);
        assert!(
            legal || text.starts_with("//! "),
            "{} does not begin with //!",
            path.display()
        );
    }
}

/// Not every machine has pages of 4 KiB: the size is asked for, and never written down.
#[test]
fn no_code_knows_the_page_size() {
    for path in files(".rs") {
        for (number, line) in read(&path).lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let digits = concat!("40", "96");
            assert!(
                !code.contains(digits),
                "{}:{}: {line}",
                path.display(),
                number + 1
            );
        }
    }
}
