//! The HTML of the real book: links, external resources, scripts, the search index, and builds by plain mdBook.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use common::{built, clone, is_installed, skipped};
use scraper::{Html, Node, Selector};

/// Returns every page by its path in the book.
fn pages() -> BTreeMap<PathBuf, Html> {
    let pages: BTreeMap<_, _> = files("html")
        .into_iter()
        .map(|(path, text)| (path, Html::parse_document(&text)))
        .collect();
    assert!(pages.len() > 3, "the book has pages");
    pages
}

/// Returns the text of every built file with that extension.
fn files(extension: &str) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![built().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                let text = fs::read_to_string(&path).expect("text");
                let path = path.strip_prefix(built()).expect("it is in the book");
                found.insert(path.to_owned(), text);
            }
        }
    }
    found
}

fn select(html: &Html, selector: &str, attribute: &str) -> Vec<String> {
    let selector = Selector::parse(selector).expect("a selector");
    let elements = html.select(&selector);
    let values = elements.filter_map(|element| element.value().attr(attribute));
    values.map(str::to_owned).collect()
}

/// Returns the path in the book that a page's link leads to, or `None` if it leads out of the book.
fn target(page: &Path, link: &str) -> Option<PathBuf> {
    if link.is_empty() {
        return Some(page.to_owned());
    }
    let mut path = page.parent()?.to_owned();
    for part in Path::new(link).components() {
        match part {
            Component::Normal(name) => path.push(name),
            Component::ParentDir if !path.pop() => return None,
            Component::CurDir | Component::ParentDir => {}
            _ => return None,
        }
    }
    Some(path)
}

#[test]
fn every_link_and_fragment_resolves() {
    let pages = pages();
    let ids: BTreeMap<&PathBuf, BTreeSet<String>> = pages
        .iter()
        .map(|(path, html)| (path, select(html, "[id]", "id").into_iter().collect()))
        .collect();
    let (mut links, mut broken) = (0, Vec::new());
    for (page, html) in &pages {
        // Its links start at the site's root, which is unknown here.
        if page == Path::new("404.html") {
            continue;
        }
        for link in select(html, "a[href], link[href]", "href") {
            if external(&link) {
                continue;
            }
            links += 1;
            let (path, fragment) = link.split_once('#').unwrap_or((&link, ""));
            let resolves = target(page, path).is_some_and(|target| {
                let known = fragment.is_empty()
                    || ids.get(&target).is_some_and(|ids| ids.contains(fragment));
                known && built().join(&target).is_file()
            });
            if !resolves {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(links > 50, "only {links} links were found");
    assert!(broken.is_empty(), "{broken:#?}");
}

fn external(link: &str) -> bool {
    link.contains("://") || link.starts_with("//") || link.starts_with("mailto:")
}

/// A page may link to other sites, but must not load anything from them.
#[test]
fn nothing_is_loaded_from_other_sites() {
    for (page, html) in pages() {
        let mut needed = select(&html, "[src]", "src");
        needed.extend(select(&html, "link[href]", "href"));
        needed.extend(select(&html, "object[data]", "data"));
        for needs in needed {
            assert!(!external(&needs), "{} needs {needs}", page.display());
            let path = target(&page, &needs);
            let exists = path.is_some_and(|path| built().join(path).is_file());
            assert!(
                exists || page == Path::new("404.html"),
                "{} needs {needs}, which does not exist",
                page.display()
            );
        }
    }
    for (sheet, text) in files("css") {
        for import in ["url(http", "url(\"http", "url('http", "url(//", "@import"] {
            assert!(!text.contains(import), "{} has {import}", sheet.display());
        }
    }
    for (script, text) in our_scripts() {
        for far in [
            "http://",
            "https://",
            "import(",
            "importScripts",
            "sendBeacon",
        ] {
            assert!(!text.contains(far), "{} has {far}", script.display());
        }
    }
}

fn our_scripts() -> BTreeMap<PathBuf, String> {
    let mut scripts = files("js");
    scripts.retain(|path, _| path.starts_with("theme"));
    assert_eq!(scripts.len(), 5, "{:?}", scripts.keys());
    // mdBook copies it into each page.
    let head = clone().join("book/theme/head.hbs");
    let text = fs::read_to_string(&head).expect("the script in each page's head");
    scripts.insert(head, text);
    scripts
}

#[test]
fn the_books_scripts_are_small() {
    // Comments do not count: they should not be short.
    let code = |line: &&str| !line.trim_start().starts_with("//");
    let scripts = our_scripts();
    let lines = scripts.values().flat_map(|text| text.split_inclusive('\n'));
    let size: usize = lines.filter(code).map(str::len).sum();
    assert!(size < 20 << 10, "{size} bytes");
}

/// Without scripts, on paper and for a reader who has not chosen a language, each pair has both listings.
#[test]
fn every_pair_of_listings_has_both_with_captions() {
    let summary = Selector::parse("main summary").expect("a selector");
    let mut pairs = 0;
    for (page, html) in pages() {
        let count = |selector: &str| {
            let selector = Selector::parse(selector).expect("a selector");
            html.select(&selector).count()
        };
        let found = count("wb-languages");
        for inside in [
            "wb-languages > figure:first-child[data-language=rust] > pre > code.language-rust",
            "wb-languages > figure:last-child[data-language=c] > pre > code.language-c",
            "wb-languages > figure[data-language=rust] > figcaption > code",
            "wb-languages > figure[data-language=c] > figcaption > code",
        ] {
            assert_eq!(count(inside), found, "{}: {inside}", page.display());
        }
        let folded = html
            .select(&summary)
            .filter(|summary| summary.inner_html().contains("in C"));
        assert_eq!(folded.count(), 0, "{}", page.display());
        pairs += found;
    }
    assert!(pairs > 0, "the book has listings in C");
}

/// mdBook would show such a fence with its answers.
#[test]
fn no_element_is_left_as_a_fence() {
    let mut elements = 0;
    for (page, html) in pages() {
        for word in ["quiz", "predict", "trace", "grade", "progress"] {
            let left = select(&html, &format!("code.language-{word}"), "class");
            assert!(left.is_empty(), "{}: {left:?}", page.display());
        }
        let ours = "wb-quiz, wb-predict, wb-languages, vm-lab, wb-grade, wb-progress";
        let ours = Selector::parse(ours).expect("a selector");
        elements += html.select(&ours).count();
    }
    assert!(elements > 0, "the book has elements");
}

/// Returns what the search knows of each page, without white space.
fn search_texts() -> BTreeMap<PathBuf, String> {
    let mut scripts = files("js");
    scripts.retain(|path, _| path.to_string_lossy().starts_with("searchindex"));
    let script = scripts.into_values().next().expect("the book has an index");
    let (_, json) = script.split_once("JSON.parse('").expect("JSON in a string");
    let (json, _) = json.rsplit_once("'))").expect("the end of the string");
    let json = json.replace("\\'", "'").replace("\\\\", "\\");
    let index: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let links = index["doc_urls"].as_array().expect("links").iter();
    let mut texts = BTreeMap::new();
    for (number, link) in links.enumerate() {
        let page = link.as_str().expect("a link").split('#').next();
        let text = &index["index"]["documentStore"]["docs"][number.to_string()]["body"];
        let all: &mut String = texts.entry(page.expect("a page").into()).or_default();
        *all += &letters(text.as_str().expect("a text"));
    }
    texts
}

fn letters(text: &str) -> String {
    text.split_whitespace().collect()
}

#[test]
fn the_search_finds_every_page_that_does_not_consist_of_answers() {
    let expected = pages().into_keys().filter(|page| {
        let name = page.to_string_lossy();
        let is_answers = page.starts_with("drill") || name.ends_with("-wrong.html");
        // The first page exists twice, and the last ones are not chapters.
        !is_answers && !["index.html", "404.html", "print.html", "toc.html"].contains(&&*name)
    });
    let found = search_texts().into_keys();
    assert_eq!(found.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
}

#[test]
fn folded_answers_are_not_in_the_search_index() {
    let texts = search_texts();
    assert!(texts[Path::new("fork.html")].contains("copy-on-write"));
    let folded = Selector::parse("main details").expect("a selector");
    let summary = Selector::parse("summary").expect("a selector");
    let (mut answers, mut revealed) = (0, Vec::new());
    for (page, html) in pages() {
        let Some(indexed) = texts.get(&page) else {
            continue;
        };
        for answer in html.select(&folded) {
            let text = letters(&answer.text().collect::<String>());
            let title = answer.select(&summary).flat_map(|summary| summary.text());
            let title = letters(&title.collect::<String>());
            let text = text.strip_prefix(&title).unwrap_or(&text);
            assert!(
                text.len() > 20,
                "{}: {text} may be elsewhere",
                page.display()
            );
            answers += 1;
            if indexed.contains(text) {
                revealed.push(format!("{}: {text}", page.display()));
            }
        }
    }
    assert!(answers > 0, "the book has answers");
    assert!(revealed.is_empty(), "{revealed:#?}");
}

/// It is shown without scripts and on paper.
#[test]
fn every_element_has_a_static_text() {
    for (page, html) in pages() {
        for (element, inside) in [
            ("wb-quiz", "ol > li"),
            ("wb-quiz", "details > ol > li"),
            ("wb-predict", "details > p"),
            ("vm-lab", "table tbody td"),
            ("wb-grade", "pre > code"),
            ("wb-progress", "pre > code"),
        ] {
            let all = Selector::parse(element).expect("a selector");
            let within = Selector::parse(inside).expect("a selector");
            for element in html.select(&all) {
                assert!(
                    element.select(&within).next().is_some(),
                    "{}: {inside} in {}",
                    page.display(),
                    element.html()
                );
            }
        }
    }
}

/// Pages to consult, not to read.
const REFERENCE: [&str; 3] = ["errata.html", "field-guide.html", "glossary.html"];

/// Pages that still have more than 900 words. With `--nocapture`, the test prints how many.
const TOO_LONG: [&str; 5] = [
    "map.html",
    "mutex-counter.html",
    "private-alloc.html",
    "shared-ipc.html",
    "threshold-alloc.html",
];

/// A page is short enough to read in one sitting. Answers and tasks count; code, figures, recordings, verdicts and
/// footnotes do not.
#[test]
fn a_page_has_at_most_900_words() {
    let words = Selector::parse("main").expect("a selector");
    let uncounted = "pre, svg, vm-lab, wb-grade, wb-progress, .footnote-definition";
    let uncounted = Selector::parse(uncounted).expect("a selector");
    let mut wrong = Vec::new();
    // The first page exists twice.
    let others = ["index.html", "print.html"];
    for (page, html) in pages() {
        let name = page.to_string_lossy();
        let is_reference = REFERENCE.contains(&&*name) || name.ends_with("-wrong.html");
        if is_reference || page.starts_with("drill") || others.contains(&&*name) {
            continue;
        }
        let skipped: BTreeSet<_> = html
            .select(&uncounted)
            .flat_map(|element| element.descendants())
            .map(|node| node.id())
            .collect();
        let texts = html.select(&words).flat_map(|main| main.descendants());
        let texts = texts.filter(|node| !skipped.contains(&node.id()));
        let texts: String = texts
            .filter_map(|node| match node.value() {
                Node::Text(text) => Some(&**text),
                Node::Element(element) if element.name() == "td" => Some(" "),
                _ => None,
            })
            .collect();
        let count = texts.split_whitespace().count();
        if count > 900 {
            eprintln!("{name} has {count} words");
            wrong.extend((!TOO_LONG.contains(&&*name)).then_some(page));
        }
    }
    assert!(wrong.is_empty(), "too long: {wrong:#?}");
}

/// The released mdBook, with the commands of book.toml, builds the same pages as this crate.
#[test]
fn plain_mdbook_builds_the_same_pages() {
    let version = Command::new("mdbook").arg("--version").output();
    let version = version.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    if !version.is_ok_and(|version| version.contains("v0.5.4")) {
        return skipped("mdbook 0.5.4 is not installed");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let output = mdbook(&clone().join("book"), folder.path(), None);
    assert!(
        !output.contains("WARN") && !output.contains("ERROR"),
        "{output}"
    );
    // The name of the search index contains a hash of it, and this crate's index has no answers.
    let without_index = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.contains("searchindex-"));
        lines.map(str::to_owned).collect()
    };
    for (page, text) in files("html") {
        let plain = fs::read_to_string(folder.path().join(&page)).expect("the same page");
        let same = without_index(&plain) == without_index(&text);
        assert!(same, "{} differs", page.display());
    }
}

/// The pages then show the fences as they are written.
#[test]
fn the_book_is_readable_without_the_preprocessor() {
    if !is_installed("mdbook") {
        return skipped("mdbook 0.5.4 is not installed");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let command = "no-such-program-anywhere";
    let output = mdbook(&clone().join("book"), folder.path(), Some(command));
    assert!(
        output.contains(command),
        "mdbook does not report it: {output}"
    );
    let page = a_page_with("```quiz ").with_extension("html");
    let page = fs::read_to_string(folder.path().join(page)).expect("a page");
    assert!(page.contains("language-quiz") && !page.contains("<wb-quiz"));
}

/// Returns the file name of a page that contains `text`.
fn a_page_with(text: &str) -> PathBuf {
    let files = fs::read_dir(clone().join("book/src")).expect("the pages");
    let mut pages = files.map(|file| file.expect("a page").path());
    let contains = |path: &PathBuf| fs::read_to_string(path).is_ok_and(|page| page.contains(text));
    let page = pages.find(contains).expect("a page contains the text");
    page.file_name().expect("it is a file").into()
}

/// Builds the book with mdbook and returns its output. `command` replaces the preprocessor's command in book.toml.
fn mdbook(book: &Path, into: &Path, command: Option<&str>) -> String {
    let mut mdbook = Command::new("mdbook");
    mdbook.arg("build").arg(book).arg("--dest-dir").arg(into);
    mdbook.env("MDBOOK_OUTPUT__HTML__SEARCH__ENABLE", "true");
    if let Some(command) = command {
        mdbook.env("MDBOOK_preprocessor__workbook__command", command);
    }
    let output = mdbook.output().expect("mdbook starts");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(output.status.success(), "{text}");
    text
}

/// The model of <vm-lab> has a test in JavaScript, which reads the recorded traces.
#[test]
fn the_model_agrees_with_every_trace() {
    if !is_installed("node") {
        return skipped("node is not installed");
    }
    let test = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vm-model.test.mjs");
    let output = Command::new("node").arg("--test").arg(test).output();
    let output = output.expect("node starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(!text.contains("# pass 0"), "{text}");
}
