//! The conventions of the repository. Each test reports what to do if one is violated.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use course::exercise::Exercise;
use workbook::commands::hint;

fn root() -> PathBuf {
    course::root::find().expect("the tests run in a clone")
}

fn exercises() -> Vec<Exercise> {
    Exercise::all(&root()).expect("every exercise has a manifest")
}

fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns the files of the repository whose names end like that, without generated ones.
fn files(ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root()];
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

/// Code outside of the judge's call would run twice: in the judge, and in the process of the case.
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

/// `main.rs` and the modules beside it.
fn graders_files(exercise: &Exercise) -> Vec<PathBuf> {
    let files = fs::read_dir(exercise.grader()).into_iter().flatten();
    let files = files.flatten().map(|entry| entry.path());
    files
        .filter(|path| path.extension().is_some_and(|ending| ending == "rs"))
        .collect()
}

fn has_cases(path: &Path) -> bool {
    let is_case = |item: &syn::Item| matches!(item, syn::Item::Fn(function) if is_test(function));
    let file = syn::parse_file(&read(path)).expect("the grader compiles");
    file.items.iter().any(is_case)
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
    const CALLS: [&str; 5] = ["case", "case_with", "watched", "watched_with", "refusals"];
    name.is_some_and(|name| CALLS.contains(&name.as_str()))
}

/// Everything that belongs to an exercise is found by its name, and everything that belongs to a stage by the stage's.
#[test]
fn an_exercise_is_complete() {
    let missing: Vec<_> = exercises().iter().flat_map(missing_parts).collect();
    assert!(
        missing.is_empty(),
        "CONTRIBUTING.md says what an exercise consists of. Still missing:\n  {}\n",
        missing.join("\n  ")
    );
}

/// Returns what an exercise still lacks: a path, and what is missing there.
fn missing_parts(exercise: &Exercise) -> Vec<String> {
    let root = root();
    let mut missing = Vec::new();
    let mut need = |path: PathBuf, met: bool, what: String| {
        if !met {
            let path = path.strip_prefix(&root).unwrap_or(&path);
            missing.push(format!("{}: {what}", path.display()));
        }
    };
    let text = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    let name = &exercise.name;

    for file in [
        exercise.answer(),
        exercise.stub(),
        exercise.solution(),
        exercise.solution_calls(),
        exercise.grader().join("main.rs"),
    ] {
        let met = file.is_file();
        need(file, met, "the file is missing".to_owned());
    }
    let manifest = exercise.folder().join("Cargo.toml");
    for line in ["build = \"../build.rs\"", "[lib]", "test = false"] {
        let met = text(&manifest).lines().any(|other| other == line);
        need(
            manifest.clone(),
            met,
            format!("the line `{line}` is missing"),
        );
    }
    for (profiles, profile) in [
        (
            "Cargo.toml",
            r#"opt-level = 1, debug = "line-tables-only", incremental = true"#,
        ),
        (".vscode/debugger.toml", r#"opt-level = 0, debug = "full""#),
    ] {
        let file = root.join(profiles);
        let line = format!("{name} = {{ {profile} }}");
        let met = text(&file).lines().any(|other| other == line);
        let what = format!("[profile.dev.package] has no line `{line}`");
        need(file, met, what);
    }
    let library = root.join("solutions/src/lib.rs");
    let module = format!("pub mod {};", exercise.library());
    let met = text(&library).contains(&module);
    need(library, met, format!("the line `{module}` is missing"));
    let page = root.join("book/src").join(&exercise.about.page);
    let include = format!("exercises/{name}/README.md}}}}");
    let met = text(&page).contains(&include);
    need(
        page,
        met,
        format!("it does not include {{{{#include ../../{include}"),
    );
    for list in ["SUMMARY.md", "map.md"] {
        let list = root.join("book/src").join(list);
        let link = format!("]({})", exercise.about.page);
        let met = text(&list).contains(&link);
        need(
            list,
            met,
            format!("it does not link to {}", exercise.about.page),
        );
    }
    let form = root.join(".github/ISSUE_TEMPLATE/wrong-verdict.yml");
    let option = format!("- {name}\n");
    let met = text(&form).contains(&option);
    need(form, met, format!("it does not offer {name}"));
    for kind in ["right", "wrong"] {
        let folder = exercise.answers().join(kind);
        let count = fs::read_dir(&folder).map_or(0, Iterator::count);
        need(
            folder,
            count > 3,
            format!("{count} answers; the exam needs at least 4"),
        );
    }

    let readme = exercise.folder().join("README.md");
    let hints = exercise.folder().join("hints.md");
    for stage in &exercise.about.stages {
        let module = exercise.grader().join(format!("{}.rs", stage.name));
        let met = module.is_file() && has_cases(&module);
        need(module, met, "the stage has no cases".to_owned());
        let count = hint::hints_for(&text(&hints), &stage.name).len();
        let what = format!("{count} hints for {}; each stage needs 3", stage.name);
        need(hints.clone(), count == 3, what);
        let minutes = match stage.bonus {
            true => format!("bonus, {} minutes", stage.minutes),
            false => format!("{} minutes", stage.minutes),
        };
        let heading = format!("`{}` ({minutes})", stage.name);
        let met = text(&readme).contains(&heading);
        need(readme.clone(), met, format!("no heading with {heading}"));
    }
    for module in graders_files(exercise) {
        let stage = module.file_stem().unwrap_or_default().to_string_lossy();
        let is_stage = exercise.stage(&stage).is_ok();
        let what = "it has cases, but the manifest has no such stage".to_owned();
        let met = is_stage || !has_cases(&module);
        need(module.clone(), met, what);
    }
    missing
}

/// Otherwise the stage would be graded before the learner has begun it.
#[test]
fn what_a_stage_begins_by_changing_is_in_the_stub() {
    for exercise in exercises() {
        let stub = read(exercise.stub());
        for stage in &exercise.about.stages {
            for code in &stage.begins_by_changing {
                let name = &exercise.name;
                assert!(
                    stub.contains(code),
                    "the stub of {name} does not contain `{code}`"
                );
            }
            for case in &stage.fails_until_changed {
                let module = exercise.grader().join(format!("{}.rs", stage.name));
                assert!(
                    read(module).contains(&format!("fn {case}()")),
                    "{} has no case {case}",
                    stage.name
                );
            }
        }
    }
}

/// The exam grades the stub, and `reset` restores it. This fails while you work on an exercise: it is for CI.
#[test]
#[ignore = "the learner's answers differ from the stubs"]
fn every_answer_is_the_stub() {
    for exercise in exercises() {
        let (answer, stub) = (exercise.answer(), exercise.stub());
        assert!(
            read(&answer) == read(&stub),
            "{} differs from {}",
            answer.display(),
            stub.display()
        );
    }
}

/// A symbolic link is a plain file in an archive, and on some file systems.
#[test]
fn there_are_no_symbolic_links() {
    let links: Vec<_> = files("")
        .into_iter()
        .filter(|path| path.is_symlink())
        .collect();
    assert!(links.is_empty(), "{links:?}");
}

/// Cargo unites the features of all members. A feature that one member names would let an answer pass `cargo test` that
/// fails `cargo check`.
#[test]
fn features_are_named_by_the_workspace_only() -> Result<()> {
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
                    "{}: {name} must be declared in [workspace.dependencies], and used with `workspace = true`",
                    path.display()
                );
            }
        }
    }
    Ok(())
}

/// Cargo compiles a crate once for each set of features. A learner waits for the command and then for the graders.
#[test]
fn the_command_and_the_graders_share_their_dependencies() -> Result<()> {
    let command = dependencies(&["--edges", "normal,build"])?;
    for exercise in exercises() {
        let edges = ["--edges", "normal,build,dev", "--package", &exercise.name];
        for (package, features) in dependencies(&edges)? {
            let others = command.get(&package);
            assert!(
                others.is_none_or(|others| *others == features),
                "{package} has the features {others:?} in the command, and {features:?} in {}",
                exercise.name
            );
        }
    }
    Ok(())
}

/// The features of each package that `cargo build` with these options compiles. Used in several ways, it has several sets.
fn dependencies(options: &[&str]) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let mut cargo = Command::new(env!("CARGO"));
    let form = ["--prefix", "none", "--no-dedupe", "--format", "{p}\t{f}"];
    cargo
        .args(["tree", "--locked", "--offline"])
        .args(form)
        .args(options);
    let output = cargo.current_dir(root()).output()?;
    ensure!(output.status.success(), "{output:?}");
    let mut found = BTreeMap::<_, BTreeSet<_>>::new();
    for line in String::from_utf8(output.stdout)?.lines() {
        if let Some((package, features)) = line.split_once('\t') {
            let features = features.to_owned();
            found
                .entry(package.to_owned())
                .or_default()
                .insert(features);
        }
    }
    Ok(found)
}

/// A fork changes `repository` in the root's `Cargo.toml`. This test names the other lines to change.
#[test]
fn links_to_the_repository_match_the_manifest() -> Result<()> {
    const HOST: &str = "https://github.com/";
    let manifest: toml::Table = read(root().join("Cargo.toml")).parse()?;
    let repository = manifest["workspace"]["package"]["repository"].as_str();
    let name = repository.and_then(|url| url.strip_prefix(HOST));
    let name = name.context("Cargo.toml names a repository on GitHub")?;
    let mut foreign = Vec::new();
    for file in [
        "book/book.toml",
        "crates/Cargo.toml",
        ".github/ISSUE_TEMPLATE/config.yml",
        ".github/ISSUE_TEMPLATE/wrong-verdict.yml",
        "SECURITY.md",
        "CHANGELOG.md",
    ] {
        for (number, line) in read(root().join(file)).lines().enumerate() {
            let is_ours = |link: &str| {
                let rest = link.strip_prefix(name);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '"', ')', '.']))
            };
            if !line.split(HOST).skip(1).all(is_ours) {
                foreign.push(format!("{file}:{}: {line}", number + 1));
            }
        }
    }
    assert!(
        foreign.is_empty(),
        "Cargo.toml says that the repository is {HOST}{name}, but these lines link to another one:\n{}",
        foreign.join("\n")
    );
    Ok(())
}

/// The first line of a file says what it is for; that of a compile-fail case is the sentence for the learner.
#[test]
fn a_source_file_begins_with_a_comment() {
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

/// Not every machine has pages of 4 KiB: code must ask sysconf(3).
#[test]
fn the_page_size_is_not_hard_coded() {
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
