//! Checks the book's pages against the programs behind them: code, output, links.

#[allow(dead_code, reason = "nothing is graded here")]
mod answers;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use answers::Expected;
use course::cargo::{self, Message};
use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

fn root() -> PathBuf {
    course::root::find().expect("a clone")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns the pages' sources by file name. Includes are not expanded.
fn pages() -> BTreeMap<String, String> {
    let mut pages = BTreeMap::new();
    for entry in fs::read_dir(root().join("book/src"))
        .expect("pages")
        .flatten()
    {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".md") && name != "SUMMARY.md" {
            pages.insert(name, read(&entry.path()));
        }
    }
    assert!(!pages.is_empty());
    pages
}

fn events(text: &str) -> Parser<'_> {
    let options =
        Options::ENABLE_TABLES | Options::ENABLE_FOOTNOTES | Options::ENABLE_HEADING_ATTRIBUTES;
    Parser::new_ext(text, options)
}

/// Returns the info string and the text of each fenced code block.
fn fences(text: &str) -> Vec<(String, String)> {
    let mut fences = Vec::new();
    let mut open: Option<(String, String)> = None;
    for event in events(text) {
        match event {
            Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(info))) => {
                open = Some((info.to_string(), String::new()));
            }
            Event::Text(text) => {
                if let Some((_, code)) = &mut open {
                    code.push_str(&text);
                }
            }
            Event::End(TagEnd::CodeBlock) => fences.extend(open.take()),
            _ => {}
        }
    }
    fences
}

/// Code that is written only on a page is never compiled.
#[test]
fn code_on_a_page_is_included_from_a_program() {
    let mut included = 0;
    for (page, text) in pages() {
        for (info, code) in fences(&text) {
            if !info.starts_with("rust") && info != "c" {
                continue;
            }
            let include = code
                .trim()
                .strip_prefix("{{#include ../")
                .and_then(|code| code.strip_suffix("}}"))
                .unwrap_or_else(|| {
                    panic!("{page}: expected one include and nothing else:\n{code}")
                });
            let (file, anchor) = include.split_once(':').expect("a file and an anchor");
            let program = read(&root().join("book").join(file));
            let begin = format!("// ANCHOR: {anchor}\n");
            let end = format!("// ANCHOR_END: {anchor}\n");
            assert!(
                program.contains(&begin) && program.contains(&end),
                "{page}: {file} has no anchor {anchor}"
            );
            included += 1;
        }
    }
    assert!(included > 0);
}

/// Returns the page and the output that it shows, by the program's name.
fn shown() -> BTreeMap<String, (String, String)> {
    let mut shown = BTreeMap::new();
    for (page, text) in pages() {
        for (info, fence) in fences(&text) {
            if info != "console" {
                continue;
            }
            let (command, output) = fence.split_once('\n').unwrap_or((&fence, ""));
            let Some(name) = command.strip_prefix("$ cargo run -q -p lab --example ") else {
                panic!("{page}: a console fence must run a program of the lab; found {command}");
            };
            let before = shown.insert(name.to_owned(), (page.clone(), output.to_owned()));
            if let Some((_, before)) = before {
                assert_eq!(
                    before, output,
                    "{page}: {name} is shown with two different outputs"
                );
            }
        }
    }
    shown
}

fn stems(folder: &str) -> BTreeSet<String> {
    fs::read_dir(root().join(folder))
        .expect("programs")
        .flatten()
        .filter_map(|entry| Some(entry.path().file_stem()?.to_string_lossy().into_owned()))
        .collect()
}

/// Every program of the lab is shown with its output. A program fails by itself if its claim does not hold.
#[test]
fn a_program_prints_what_its_page_says() {
    let shown = shown();
    let names: BTreeSet<String> = shown.keys().cloned().collect();
    assert_eq!(stems("book/lab/examples"), names);
    let programs = programs();
    for (name, (page, output)) in shown {
        let mut program = Command::new(&programs[&name]);
        if let Some(printed) = printed(program.current_dir(root()), &name) {
            assert_eq!(printed, output, "{page}: {name}");
        }
    }
}

/// Builds the programs of the lab and returns their paths by name. `cargo run` takes longer than most of them.
fn programs() -> BTreeMap<String, PathBuf> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args(["build", "-q", "-p", "lab", "--examples"])
        .arg("--message-format=json");
    let built = cargo.current_dir(root()).output().expect("cargo starts");
    let stderr = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "{stderr}");
    let programs = cargo::messages(built.stdout.as_slice()).filter_map(|message| match message {
        Message::Artifact {
            target,
            executable: Some(program),
            ..
        } => Some((target.name, program)),
        _ => None,
    });
    programs.collect()
}

/// Returns what a program of the lab prints, or `None` if it says that it cannot show its claim on this machine.
fn printed(command: &mut Command, name: &str) -> Option<String> {
    const CANNOT: i32 = 77;
    let ran = command.output().expect("the program starts");
    let stdout = String::from_utf8_lossy(&ran.stdout).into_owned();
    if ran.status.code() == Some(CANNOT) {
        let why = stdout.lines().last().unwrap_or_default();
        eprintln!("{name}: skipped: {why}");
        return None;
    }
    let stderr = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{name}: {stderr}");
    Some(stdout)
}

/// Interviews are in C, so every program also exists in C.
#[test]
fn the_c_program_prints_the_same() {
    let shown = shown();
    let names: BTreeSet<String> = shown.keys().cloned().collect();
    assert_eq!(stems("book/lab/c"), names);
    let folder = tempfile::tempdir().expect("a folder");
    for (name, (page, expected)) in shown {
        let program = folder.path().join(&name);
        let mut compiler = Command::new("cc");
        compiler
            .args(["-std=c17", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread"])
            .args(["-D_GNU_SOURCE", "-o"])
            .arg(&program)
            .arg(root().join(format!("book/lab/c/{name}.c")));
        output(&mut compiler, &name);
        if let Some(printed) = printed(&mut Command::new(&program), &name) {
            assert_eq!(printed, expected, "{page}: {name}.c");
        }
    }
}

/// A figure shows what a program in `tests/figures` asserts.
#[test]
fn the_programs_behind_the_figures_agree_with_them() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in stems("tests/figures") {
        let figure = format!("book/src/figures/{name}.svg");
        assert!(root().join(&figure).is_file(), "there is no {figure}");
        let program = folder.path().join(&name);
        let mut compiler = Command::new("cc");
        compiler
            .args([
                "-std=c17",
                "-Wall",
                "-Wextra",
                "-Werror",
                "-Wno-use-after-free",
                "-pthread",
            ])
            .args(["-D_GNU_SOURCE", "-o"])
            .arg(&program)
            .arg(root().join(format!("tests/figures/{name}.c")));
        output(&mut compiler, &name);
        eprint!("{}", output(&mut Command::new(&program), &name));
    }
}

/// The figure splits an address of four levels, with pages of 4 KiB.
#[test]
fn the_figure_of_a_walk_splits_its_address() {
    const ADDRESS: u64 = 0x7f12_3456_7abc;
    let figure = read(&root().join("book/src/figures/translation.svg"));
    let mut expected = vec![format!("virtual address {ADDRESS:#x}<")];
    expected.extend([39, 30, 21, 12].map(|bit| format!(">{}<", ADDRESS >> bit & 511)));
    expected.push(format!(">{:#x}<", ADDRESS & 4095));
    expected.push(format!(">page {:#x}<", ADDRESS >> 12));
    for text in expected {
        assert!(figure.contains(&text), "the figure does not contain {text}");
    }
}

/// Returns the figures of the pages and of `book/src/figures`, with the file of each.
fn figures() -> Vec<(String, String)> {
    let mut files: Vec<(String, String)> = pages().into_iter().collect();
    for entry in fs::read_dir(root().join("book/src/figures")).expect("figures") {
        let path = entry.expect("a figure").path();
        let name = path.file_name().expect("a name").to_string_lossy();
        files.push((name.into_owned(), read(&path)));
    }
    let mut figures = Vec::new();
    for (file, text) in files {
        for figure in text.split("<svg ").skip(1) {
            let (figure, _) = figure.split_once("</svg>").expect("its end");
            figures.push((file.clone(), figure.to_owned()));
        }
    }
    figures
}

/// A figure has a title and a description, and the page's colours, with other ones for when it is opened by itself.
#[test]
fn figures_are_described_and_have_the_colours_of_the_page() {
    let figures = figures();
    assert!(figures.len() > 4);
    let mut ids = BTreeSet::new();
    for (file, figure) in &figures {
        for part in ["title", "desc"] {
            let id = figure
                .split_once(&format!("<{part} id=\""))
                .map(|(_, id)| id);
            let id = id.and_then(|id| id.split('"').next());
            let id = id.unwrap_or_else(|| panic!("{file}: a figure has no <{part} id=…>"));
            let label = figure
                .split_once("aria-labelledby=\"")
                .map(|(_, label)| label);
            let label = label
                .and_then(|label| label.split('"').next())
                .unwrap_or_default();
            assert!(
                label.split(' ').any(|named| named == id),
                "{file}: {id} is unused"
            );
        }
        for id in figure.split(" id=\"").skip(1) {
            let id = id.split('"').next().expect("an id");
            assert!(
                ids.insert(id),
                "{file}: the id {id} exists twice in the printed book"
            );
        }
        for variable in figure.split("var(").skip(1) {
            let variable = variable.split(')').next().expect("a variable");
            assert!(variable.contains(','), "{file}: {variable} has no fallback");
        }
        // A fallback may be black or white; a colour by itself cannot be read in each theme.
        let tags = figure.split('<');
        for tag in tags.filter(|tag| !tag.contains("var(")) {
            for attribute in ["fill=\"", "stroke=\""] {
                let Some((_, colour)) = tag.split_once(attribute) else {
                    continue;
                };
                let colour = colour.split('"').next();
                assert!(
                    matches!(colour, Some("none" | "currentColor")),
                    "{file}: {colour:?} does not follow the theme"
                );
            }
        }
    }
}

/// The tasks show what they ask for as C prototypes.
#[test]
fn the_prototypes_of_the_tasks_compile() {
    let folder = tempfile::tempdir().expect("a folder");
    for exercise in course::exercise::Exercise::all(&root()).expect("exercises") {
        let task = read(&exercise.folder().join("README.md"));
        let c = fences(&task).into_iter().filter(|(info, _)| info == "c");
        let prototypes: String = c.map(|(_, code)| code).collect();
        assert!(prototypes.contains(");"), "{} has none", exercise.name);
        let file = folder.path().join(format!("{}.c", exercise.name));
        fs::write(&file, prototypes).expect("a file");
        let mut compiler = Command::new("cc");
        compiler
            .args(["-std=c17", "-pedantic", "-Wall", "-Wextra", "-Werror"])
            .args(["-Wstrict-prototypes", "-fsyntax-only"])
            .arg(&file);
        output(&mut compiler, &exercise.name);
    }
}

fn output(command: &mut Command, name: &str) -> String {
    printed(command, name).unwrap_or_else(|| panic!("{name} was skipped"))
}

/// The page of memory errors shows what each tool reports. A tool that is not installed is skipped.
#[test]
fn the_tools_report_what_the_page_says() {
    const COMMAND: &str = "$ book/lab/memory_tools\n";
    let page = &pages()["memory-errors.md"];
    let fences = fences(page).into_iter();
    let mut shown = fences.filter_map(|(_, code)| Some(code.strip_prefix(COMMAND)?.to_owned()));
    let shown = shown.next().expect("the page shows the script's output");
    let mut script = Command::new(root().join("book/lab/memory_tools"));
    let printed = output(&mut script, "memory_tools");
    assert_eq!(printed.lines().count(), shown.lines().count());
    for (printed, shown) in printed.lines().zip(shown.lines()) {
        if !printed.ends_with("skipped: not installed") {
            assert_eq!(printed, shown);
        }
    }
}

/// Returns the statements that a program of the lab proves, from its line `//! Claims: 13, 14.`
fn claims(name: &str) -> BTreeSet<u32> {
    let text = read(&root().join(format!("book/lab/examples/{name}.rs")));
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("//! Claims: "));
    let numbers = line.unwrap_or_default().trim_end_matches('.').split(", ");
    let numbers = numbers.filter(|number| !number.is_empty());
    numbers
        .map(|number| number.parse().expect("a number"))
        .collect()
}

/// The errata list every statement of the chapter, with the programs that prove it and the pages that show them.
#[test]
fn the_errata_list_every_statement() {
    const STATEMENTS: u32 = 43;
    let mut expected: BTreeMap<u32, BTreeSet<String>> = (1..=STATEMENTS)
        .map(|number| (number, BTreeSet::new()))
        .collect();
    for (name, (page, _)) in shown() {
        for number in claims(&name) {
            let programs = expected.get_mut(&number).expect("a statement");
            programs.insert(format!("[{name}]({page})"));
        }
    }
    let errata = read(&root().join("book/src/errata.md"));
    let mut listed = BTreeMap::new();
    for line in errata.lines() {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [number, _, verdict, _, programs] = cells[..] else {
            continue;
        };
        let Ok(number) = number.parse::<u32>() else {
            continue;
        };
        assert!(
            ["true", "if", "false"].contains(&verdict),
            "{number}: {verdict}"
        );
        let programs = programs.split(", ").map(str::to_owned).collect();
        assert!(
            listed.insert(number, programs).is_none(),
            "{number} is listed twice"
        );
    }
    assert_eq!(listed, expected);
}

/// The pages of common mistakes are generated from the exam's wrong answers.
#[test]
fn the_pages_of_mistakes_match_the_exam() {
    for exercise in course::exercise::Exercise::all(&root()).expect("exercises") {
        let page = exercise.about.page.replace(".md", "-wrong.md");
        let path = root().join("book/src").join(&page);
        let expected = page_of_mistakes(&exercise);
        if std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
            fs::write(&path, &expected).expect("the page can be written");
        }
        assert!(
            read(&path) == expected,
            "{page} does not match the wrong answers; `.ci/accept exam` writes it"
        );
    }
}

fn page_of_mistakes(exercise: &course::exercise::Exercise) -> String {
    let mut by_stage: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut count = 0;
    for answer in answers::answers(exercise).expect("answers") {
        if let Expected::Wrong {
            wrong,
            caught_by,
            sentence,
            ..
        } = answer.expected
        {
            let (stage, case) = caught_by.split_once("::").expect("a stage and a case");
            let [wrong, sentence] = [&wrong, &sentence].map(|text| without_tags(text));
            let entry = format!("- It {wrong}.\n\n  > {sentence}\n\n  (`{case}`)\n");
            by_stage.entry(stage.to_owned()).or_default().push(entry);
            count += 1;
        }
    }
    let title = &exercise.about.title;
    let mut page = format!(
        "# Common mistakes: {}\n\nSolve [the exercise]({}) first. Its grader is tested with these {count} wrong answers. \
         Each is listed under the stage that catches it, with what the answer does, the sentence that its author reads, \
         and the case. Try to predict the sentence before you read it.\n",
        title[..1].to_lowercase() + &title[1..],
        exercise.about.page
    );
    for stage in &exercise.about.stages {
        if let Some(entries) = by_stage.get(&stage.name) {
            let title = without_tags(&stage.title);
            page += &format!("\n## {title}\n\n{}", entries.join("\n"));
        }
    }
    page
}

/// Escapes what Markdown would take for an HTML tag, as in `Shared<T>`. Code spans need no escape.
fn without_tags(text: &str) -> String {
    let parts = text.split('`').enumerate();
    let escaped = parts.map(|(number, part)| match number % 2 {
        0 => part.replace('<', "\\<"),
        _ => part.to_owned(),
    });
    escaped.collect::<Vec<_>>().join("`")
}

/// The map lists every page with its minutes. An exercise's minutes are those of its stages, bonus stages aside.
#[test]
fn the_map_has_every_page_and_its_minutes() {
    let map = read(&root().join("book/src/map.md"));
    let mut listed = BTreeMap::new();
    for line in map.lines() {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [link, _, minutes] = cells[..] else {
            continue;
        };
        if let (Some((_, page)), Ok(minutes)) = (link.split_once("]("), minutes.parse::<u32>()) {
            listed.insert(page.trim_end_matches(')').to_owned(), minutes);
        }
    }
    let mut pages: BTreeSet<String> = pages().into_keys().collect();
    pages.retain(|page| page != "map.md" && !page.ends_with("-wrong.md"));
    assert_eq!(listed.keys().cloned().collect::<BTreeSet<_>>(), pages);
    for exercise in course::exercise::Exercise::all(&root()).expect("exercises") {
        let stages = exercise.about.stages.iter();
        let core: u32 = stages
            .filter(|stage| !stage.bonus)
            .map(|stage| stage.minutes)
            .sum();
        assert_eq!(listed[&exercise.about.page], core, "{}", exercise.name);
    }
    let sum: u32 = listed.values().sum();
    assert!(
        map.contains(&format!("The total is {sum} minutes.")),
        "the sum is {sum}"
    );
}

/// A link whose text is a program, such as `[first_touch](demand-paging.md)`, leads to the page that shows it.
#[test]
fn a_link_to_a_program_leads_to_its_page() {
    let shown = shown();
    for (page, text) in pages() {
        for (name, (shown_on, _)) in &shown {
            for (found, _) in text.match_indices(&format!("[{name}](")) {
                let target = text[found + name.len() + 3..].split([')', '#']).next();
                assert_eq!(target, Some(shown_on.as_str()), "{page} links {name}");
            }
        }
    }
}

#[test]
fn no_link_is_broken() {
    let pages = pages();
    let mut links = 0;
    for (page, text) in &pages {
        for event in events(text) {
            let Event::Start(Tag::Link { dest_url, .. }) = event else {
                continue;
            };
            if dest_url.starts_with("https://") {
                continue;
            }
            let (target, fragment) = dest_url.split_once('#').unwrap_or((&dest_url, ""));
            let target = if target.is_empty() { page } else { target };
            let Some(text) = pages.get(target) else {
                panic!("{page} links to {dest_url}, but there is no such page");
            };
            assert!(
                fragment.is_empty() || headings(text).contains(fragment),
                "{page} links to {dest_url}, but {target} has no such heading"
            );
            links += 1;
        }
    }
    assert!(links > 0);
}

/// Returns the anchors of a page's headings: the attribute as in `{#anchor}`, or what mdBook generates.
fn headings(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut heading: Option<String> = None;
    for event in events(text) {
        match event {
            Event::Start(Tag::Heading { id: Some(id), .. }) => {
                found.insert(id.to_string());
            }
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::Text(text) | Event::Code(text) => {
                if let Some(heading) = &mut heading {
                    heading.push_str(&text);
                }
            }
            Event::End(TagEnd::Heading(_)) => {
                let Some(text) = heading.take() else {
                    continue;
                };
                let text = text.to_lowercase();
                let kept = text.chars().filter_map(|letter| match letter {
                    ' ' => Some('-'),
                    '-' | '_' => Some(letter),
                    letter if letter.is_alphanumeric() => Some(letter),
                    _ => None,
                });
                found.insert(kept.collect());
            }
            _ => {}
        }
    }
    found
}

#[test]
fn every_page_is_in_the_summary() {
    let summary = read(&root().join("book/src/SUMMARY.md"));
    let listed: BTreeSet<String> = events(&summary)
        .filter_map(|event| match event {
            // The drill's pages are generated and tested by crates/drill.
            Event::Start(Tag::Link { dest_url, .. }) if dest_url.starts_with("drill/") => None,
            Event::Start(Tag::Link { dest_url, .. }) if !dest_url.is_empty() => {
                Some(dest_url.to_string())
            }
            _ => None,
        })
        .collect();
    let written: BTreeSet<String> = pages().into_keys().collect();
    assert_eq!(listed, written);
}
