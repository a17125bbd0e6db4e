//! The elements in a real browser: with the mouse, with the keyboard only, in five themes, in print, on a narrow
//! screen, and with the live server.
//!
//! `BROWSER_PICTURES=FOLDER` keeps screenshots.

mod common;
#[path = "../../../tests/copy/mod.rs"]
mod copy;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use common::{
    Served, SmallClone, artifact, clone, is_installed, log_grading, options, serve, serve_with,
    skipped, until, within,
};
use copy::Copy;
use headless_chrome::browser::tab::point::Point;
use headless_chrome::protocol::cdp::Emulation;
use headless_chrome::protocol::cdp::Page::{
    AddScriptToEvaluateOnNewDocument, CaptureScreenshotFormatOption,
};
use headless_chrome::types::PrintToPdfOptions;
use headless_chrome::{Browser, LaunchOptions, Tab};
use reader::serve::Limits;
use serde_json::{Value, json};

const THEMES: [&str; 5] = ["light", "rust", "coal", "navy", "ayu"];

/// A page with each element, independent of the real book.
const PAGE: &str = "\
# A page

```quiz id=sum
What is `1 + 1`?
- [ ] 1 > That would be *one*.
- [x] 2 > One and one.
- [ ] 3 > One too many.
```

```predict id=faults
How many faults?
answer: 1,024
why: One for *each*.
```

```trace copy-on-write
A fork, and who pays for the copy.
```

```trace shared
Shared for good.
```

```rust,ignore
{{#include ../lab/examples/zero_filled.rs:ask}}
```

<details><summary>The same in C</summary>

```c
{{#include ../lab/c/zero_filled.c:ask}}
```

</details>

```console
$ cargo run -q -p lab --example zero_filled
asked for 1 byte
```

```rust,ignore
{{#include ../lab/examples/zero_filled.rs:look}}
```

<details><summary>The same in C</summary>

```c
{{#include ../lab/c/zero_filled.c:look}}
```

</details>

```grade private-alloc
cargo run -- grade private-alloc
```

```progress
cargo run
```
";

fn small() -> SmallClone {
    let small = SmallClone::new(PAGE);
    let summary = "# Summary\n\n- [A page](page.md)\n- [The exercise](private-alloc.md)\n";
    small.write("book/src/SUMMARY.md", summary);
    small.write("book/src/private-alloc.md", "# The exercise\n");
    for folder in ["book/theme", "book/src/traces"] {
        for entry in fs::read_dir(clone().join(folder)).unwrap().flatten() {
            let name = entry.file_name().into_string().unwrap();
            let text = fs::read_to_string(entry.path()).unwrap();
            small.write(&format!("{folder}/{name}"), &text);
        }
    }
    let toml = fs::read_to_string(clone().join("book/book.toml")).unwrap();
    // The small book does not have these pages.
    let (toml, _) = toml.split_once("[output.html.search.chapter]").unwrap();
    small.write("book/book.toml", toml);
    small
}

/// A server of the small book. Its cargo is a script that claims to have built other scripts.
fn served() -> &'static Served {
    static SERVED: OnceLock<(SmallClone, Served)> = OnceLock::new();
    let (_, served) = SERVED.get_or_init(|| {
        let small = small();
        let root = small.root();
        let example = small.script("example", "echo asked for 1 byte");
        let record = small.script(
            "record",
            &format!(
                "sed 's/\"kernel\": \"[^\"]*\"/\"kernel\": \"9.9.9\"/' {}/book/src/traces/$1.json",
                root.display()
            ),
        );
        let cargo = format!(
            "case \"$*\" in *record*) echo '{}';; *) echo '{}';; esac",
            artifact(&record),
            artifact(&example)
        );
        let mut options = options(&root, Limits::default());
        options.cargo = small.script("cargo", &cargo).into();
        // Its last arguments are `-o PROGRAM SOURCE`.
        let cc = "while [ $# -gt 2 ]; do shift; done; printf '#!/bin/sh\\necho compiled\\n' > \"$1\"; chmod +x \"$1\"";
        options.cc = small.script("cc", cc).into();
        let served = serve_with(options);
        (small, served)
    });
    served
}

/// A browser. Each test has its own, because a browser has only one keyboard focus.
struct Window {
    browser: Browser,
    _place: MutexGuard<'static, ()>,
}

/// Returns `None`, and reports that the test is skipped, if no browser is installed.
fn window() -> Option<Window> {
    // More browsers than processors would wait for each other, up to their time limits.
    static PLACES: [Mutex<()>; 2] = [const { Mutex::new(()) }; 2];
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let place = &PLACES[NEXT.fetch_add(1, Ordering::Relaxed) % PLACES.len()];
    let place = place.lock().unwrap_or_else(PoisonError::into_inner);
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let Some(program) = names.iter().find(|name| is_installed(name)) else {
        skipped("chromium is not installed");
        return None;
    };
    let options = LaunchOptions::default_builder()
        .path(Some(path_of(program)))
        // Chromium's sandbox does not work as root, as in a container.
        .sandbox(!nix::unistd::Uid::effective().is_root())
        .window_size(Some((1000, 900)))
        .idle_browser_timeout(Duration::from_secs(300))
        .args(vec![
            "--hide-scrollbars".as_ref(),
            "--force-prefers-reduced-motion".as_ref(),
        ])
        .build()
        .unwrap();
    let browser = Browser::new(options).expect("chromium starts");
    Some(Window {
        browser,
        _place: place,
    })
}

fn path_of(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&path).map(|folder| folder.join(program));
    places
        .find(|path| path.is_file())
        .expect("the program is on the path")
}

struct Page(Arc<Tab>);

impl Window {
    /// Opens a page in a fresh profile.
    fn open(&self, url: &str) -> Page {
        let context = self.browser.new_context().expect("a profile");
        let tab = context.new_tab().expect("a tab");
        tab.set_default_timeout(Duration::from_secs(60));
        let page = Page(tab);
        page.before(
            "window.wrong = []; window.print = () => {};\
             const note = (what) => window.wrong.push(String(what));\
             addEventListener('error', (e) => note(e.message || 'not loaded: ' + (e.target.src || e.target.href)), true);\
             addEventListener('unhandledrejection', (e) => note(e.reason));\
             addEventListener('securitypolicyviolation', (e) => note(e.violatedDirective + ' ' + e.blockedURI));\
             console.error = console.warn = (...words) => note(words.join(' '));",
        );
        page.go(url);
        page
    }

    fn small(&self) -> Page {
        self.open(&url(served(), "page.html"))
    }
}

fn url(served: &Served, page: &str) -> String {
    format!("http://{}/{page}", served.address)
}

impl Page {
    /// Runs a script in each page before the page's own scripts.
    fn before(&self, script: &str) {
        let script = AddScriptToEvaluateOnNewDocument {
            source: script.to_owned(),
            world_name: None,
            include_command_line_api: None,
            run_immediately: None,
        };
        self.0.call_method(script).expect("a script");
    }

    fn go(&self, url: &str) {
        self.0.navigate_to(url).expect("a page");
        self.0.wait_until_navigated().expect("the page");
    }

    fn js(&self, expression: &str) -> Value {
        let result = self.0.evaluate(expression, true);
        let result = result.unwrap_or_else(|error| panic!("{expression}: {error}"));
        result.value.unwrap_or_default()
    }

    fn text(&self, selector: &str) -> String {
        let text = self.js(&format!(
            "document.querySelector({selector:?})?.innerText ?? ''"
        ));
        text.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until an element contains this text.
    fn shows(&self, selector: &str, expected: &str) {
        let mut text = String::new();
        let end = std::time::Instant::now() + Duration::from_secs(20);
        while std::time::Instant::now() < end {
            text = self.text(selector);
            if text.contains(expected) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("{selector} contains {text:?}; expected {expected:?}");
    }

    /// Clicks on the middle of an element.
    fn click(&self, selector: &str) {
        let middle = self.js(&format!(
            "(() => {{ const node = document.querySelector({selector:?}); if (!node) return null;\
             node.scrollIntoView({{ block: 'center', behavior: 'instant' }});\
             const {{ x, y, width, height }} = node.getBoundingClientRect();\
             return JSON.stringify([x + width / 2, y + height / 2]); }})()"
        ));
        let middle = middle
            .as_str()
            .unwrap_or_else(|| panic!("there is no {selector}"));
        let (x, y) = serde_json::from_str(middle).unwrap();
        self.0.click_point(Point { x, y }).unwrap();
    }

    fn press(&self, key: &str) {
        self.0
            .press_key(key)
            .unwrap_or_else(|error| panic!("{key}: {error}"));
    }

    /// Moves the focus to an element with the Tab key.
    fn tab_to(&self, selector: &str) {
        for _ in 0..300 {
            self.press("Tab");
            let is_focused = format!("document.activeElement.matches({selector:?})");
            if self.js(&is_focused) == true {
                let outline = self.js("getComputedStyle(document.activeElement).outlineStyle");
                assert_ne!(outline, "none", "the focus on {selector} is invisible");
                return;
            }
        }
        panic!("no Tab leads to {selector}");
    }

    /// Sets the width of a small phone.
    fn narrow(&self) {
        self.size(&json!(360), &json!(780));
    }

    fn size(&self, width: &Value, height: &Value) {
        let size =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        let size: Emulation::SetDeviceMetricsOverride = serde_json::from_value(size).unwrap();
        self.0.call_method(size).unwrap();
    }

    /// Asserts that an arrow key does not turn the page, as it does in mdBook, while the current element has the focus.
    fn arrow_does_not_turn_the_page(&self) {
        let before = self.path();
        self.press("ArrowRight");
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(self.path(), before, "an arrow has turned the page");
    }

    fn path(&self) -> String {
        self.js("location.pathname").as_str().unwrap().to_owned()
    }

    /// Asserts that the page has no error, and that it has loaded nothing from other sites.
    fn is_clean(&self) {
        assert_eq!(self.js("window.wrong.join('\\n')"), "", "{}", self.path());
        let elsewhere = self.js(
            "performance.getEntriesByType('resource').map((entry) => entry.name)\
             .filter((name) => !name.startsWith(location.origin) && !name.startsWith('data:')).join(' ')",
        );
        assert_eq!(elsewhere, "", "{}", self.path());
    }

    fn picture(&self, name: &str) {
        let Some(folder) = std::env::var_os("BROWSER_PICTURES") else {
            return;
        };
        let (width, height) = (
            self.js("innerWidth"),
            self.js("document.documentElement.scrollHeight"),
        );
        self.size(&width, &height);
        let png = CaptureScreenshotFormatOption::Png;
        let picture = self.0.capture_screenshot(png, None, None, true).unwrap();
        fs::create_dir_all(&folder).unwrap();
        fs::write(PathBuf::from(folder).join(format!("{name}.png")), picture).unwrap();
    }
}

#[test]
fn a_quiz_by_mouse() {
    let Some(window) = window() else { return };
    let page = window.small();
    page.click("wb-quiz button");
    page.shows("wb-quiz .wb-feedback", "Choose an answer first.");
    page.click("wb-quiz input[name=option][value='0']");
    page.click("wb-quiz button");
    page.shows("wb-quiz .wb-feedback", "Say how sure you are first");
    page.click("wb-quiz input[name=sure][value='2']");
    page.click("wb-quiz button");
    page.shows(
        "wb-quiz .wb-feedback",
        "No. That would be one. You were certain",
    );
    page.click("wb-quiz input[name=option][value='1']");
    page.click("wb-quiz button");
    page.shows("wb-quiz .wb-feedback", "Right. One and one.");
    page.picture("quiz-light");
    // The answer is stored.
    page.go(&url(served(), "page.html"));
    page.shows("wb-quiz .wb-feedback", "Right. One and one.");
    assert_eq!(
        page.js("document.querySelector('wb-quiz input[value=\"1\"]').checked"),
        true
    );
    // The second button deletes it.
    page.click("wb-quiz button:nth-of-type(2)");
    assert_eq!(page.text("wb-quiz .wb-feedback"), "");
    page.go(&url(served(), "page.html"));
    assert_eq!(page.text("wb-quiz .wb-feedback"), "");
    page.is_clean();
}

#[test]
fn a_quiz_by_keyboard() {
    let Some(window) = window() else { return };
    let page = window.small();
    page.tab_to("wb-quiz input[name=option]");
    page.press("ArrowDown");
    page.press("ArrowRight");
    assert_eq!(page.js("document.activeElement.value"), "2");
    page.press("ArrowLeft");
    assert_eq!(page.js("document.activeElement.value"), "1");
    page.tab_to("wb-quiz input[name=sure]");
    page.press(" ");
    page.press("Enter");
    page.shows(
        "wb-quiz .wb-feedback",
        "Right. One and one. It was a guess.",
    );
    page.tab_to("wb-quiz button[type=button]");
    page.arrow_does_not_turn_the_page();
    page.press("Enter");
    assert_eq!(page.text("wb-quiz .wb-feedback"), "");
    assert_eq!(
        page.js("document.activeElement.name"),
        "option",
        "the focus is lost"
    );
    assert_eq!(page.path(), "/page.html", "an arrow has turned the page");
    assert_eq!(
        page.js("document.querySelector('wb-quiz .wb-feedback').ariaLive"),
        "polite"
    );
    page.is_clean();
}

#[test]
fn a_prediction_by_mouse_and_by_keyboard() {
    let Some(window) = window() else { return };
    let page = window.small();
    page.click("wb-predict button");
    page.shows("wb-predict .wb-feedback", "Write down an answer first");
    page.click("wb-predict input");
    page.0.type_str("7").unwrap();
    page.click("wb-predict button");
    page.shows(
        "wb-predict .wb-feedback",
        "It is 1,024. You said 7. One for each.",
    );
    page.go(&url(served(), "page.html"));
    page.shows("wb-predict .wb-feedback", "You said 7.");

    let page = window.small();
    page.tab_to("wb-predict input");
    page.0.type_str("1024").unwrap();
    for key in ["ArrowLeft", "ArrowRight", "Enter"] {
        page.press(key);
    }
    page.shows("wb-predict .wb-feedback", "Yes: 1,024. One for each.");
    page.tab_to("wb-predict button[type=button]");
    page.arrow_does_not_turn_the_page();
    page.press(" ");
    assert_eq!(page.text("wb-predict .wb-feedback"), "");
    assert_eq!(page.path(), "/page.html");
    page.is_clean();
}

#[test]
fn a_trace_by_mouse() {
    let Some(window) = window() else { return };
    let page = window.small();
    let (sentence, forward) = ("vm-lab .vm-sentence", "vm-lab button:nth-of-type(3)");
    page.shows(
        sentence,
        "Step 1 of 11: The parent maps 8 pages. No page faults.",
    );
    for _ in 0..4 {
        page.click(forward);
    }
    page.shows(
        sentence,
        "Step 5 of 11: The child writes 2 to page 1. One page fault.",
    );
    let label = "document.querySelector('vm-lab .vm-rows > :nth-child(3) [role=img]').ariaLabel";
    let expected =
        "child: pages 0 shared after fork, 1 copied, 2 to 3 shared after fork, 4 to 7 untouched";
    assert_eq!(page.js(label), expected);
    // The frames of page 0, which both map, and of page 1, which the child has copied.
    let frames = "JSON.stringify([...document.querySelectorAll('vm-lab .vm-frames')].slice(0, 2).map((row) =>\
         [...row.children].map((part) => part.textContent || part.className)))";
    let expected = json!([
        ["vm-line", "frame", "vm-line"],
        ["vm-line", "frame", "copy", "vm-line"]
    ]);
    assert_eq!(page.js(frames), expected.to_string());
    page.picture("lab-light");
    page.click("vm-lab button:nth-of-type(2)");
    page.shows(
        sentence,
        "Step 4 of 11: The child reads page 1. It reads 1. No page faults.",
    );
    page.click("vm-lab button:nth-of-type(1)");
    page.shows(sentence, "Step 1 of 11");
    page.click("vm-lab button:nth-of-type(2)");
    page.shows(sentence, "Step 1 of 11");
    page.click("vm-lab summary");
    page.shows("vm-lab table", "The child ends.");
    page.is_clean();
}

#[test]
fn a_trace_by_keyboard() {
    let Some(window) = window() else { return };
    let page = window.small();
    let sentence = "vm-lab .vm-sentence";
    page.tab_to("vm-lab button");
    page.press("ArrowRight");
    page.press("ArrowRight");
    page.shows(sentence, "Step 3 of 11: The parent forks.");
    page.press("ArrowLeft");
    page.shows(sentence, "Step 2 of 11");
    page.press("End");
    page.shows(sentence, "Step 11 of 11: The child ends.");
    page.press("ArrowRight");
    page.shows(sentence, "Step 11 of 11");
    page.press("Home");
    page.shows(sentence, "Step 1 of 11");
    page.press("ArrowLeft");
    page.tab_to("vm-lab button:nth-of-type(3)");
    page.press("Enter");
    page.press(" ");
    page.shows(sentence, "Step 3 of 11");
    assert_eq!(page.path(), "/page.html", "an arrow has turned the page");
    assert_eq!(
        page.js("document.querySelector('vm-lab .vm-sentence').ariaLive"),
        "polite"
    );
    let moving = "getComputedStyle(document.querySelector('.vm-page')).transitionDuration";
    assert_eq!(page.js(moving), "0s", "the reader prefers reduced motion");
    page.is_clean();
    // Without a focus, the arrow keys turn the page.
    page.js("document.activeElement.blur()");
    page.press("ArrowRight");
    until("the arrow turns the page", || {
        page.path() == "/private-alloc.html"
    });
}

#[test]
fn verdicts_appear_on_the_page() {
    let Some(window) = window() else { return };
    let served = served();
    let page = window.small();
    let head = "wb-grade .wb-head";
    let graded = |failed| log_grading(&served.log, &[("by_hand", 4, 0), ("region", 4, failed)]);
    page.shows(head, "Grade it in your clone:");
    graded(1);
    page.shows(head, "Not solved yet.");
    page.shows("[data-stage=by_hand]", "4 of 4 cases pass");
    page.shows("[data-stage=region]", "4 of 5 cases pass");
    let verdict = "document.querySelector('[data-stage=region]').dataset.verdict";
    assert_eq!(page.js(verdict), "failed");
    page.shows("wb-progress li", "1 of 2 stages pass");
    page.picture("verdicts");
    graded(0);
    page.shows(head, "Solved.");
    page.shows("wb-progress li", "solved");
    page.is_clean();
}

/// End to end: the command grades a saved file, and the open page shows the verdict.
#[test]
fn a_saved_answer_changes_the_verdict_on_the_open_page() {
    let Some(window) = window() else { return };
    let copy = Copy::make("live");
    let right = copy.solution();
    let wrong = right.replace("unsafe impl Sync for Region {}", "");
    assert_ne!(wrong, right);
    copy.answer(&wrong);
    let served = serve(&copy.root, Limits::default());
    let page = window.open(&url(&served, "private-alloc.html"));
    page.js("window.loaded = 'once'");

    let mut watching = copy
        .command(env!("CARGO"))
        .args([
            "run",
            "--quiet",
            "--package",
            "workbook",
            "--",
            "watch",
            "private-alloc",
        ])
        .current_dir(clone())
        .env("WORKBOOK_ROOT", &copy.root)
        .env("WORKBOOK_HOME", served.log.path().parent().unwrap())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("cargo starts");
    let verdict = "document.querySelector('[data-stage=views]').dataset.verdict ?? ''";
    let turns = |to: &str| {
        let patience = Duration::from_secs(180);
        within(patience, to, || page.js(verdict) == to);
    };
    turns("failed");
    page.shows("[data-stage=views]", "Region is not Sync");
    copy.answer(&right);
    turns("passed");
    page.shows("wb-grade .wb-head", "Solved.");
    assert_eq!(page.js("window.loaded"), "once", "the page was reloaded");
    page.is_clean();
    // The command ends at the end of its input.
    drop(watching.stdin.take());
    assert!(watching.wait().unwrap().success());
}

#[test]
fn a_program_and_a_trace_run_on_this_kernel() {
    let Some(window) = window() else { return };
    let page = window.small();
    page.tab_to(".wb-run button");
    page.press("Enter");
    page.shows(".wb-run", "Your kernel, in Rust (same output):");
    assert_eq!(
        page.js("document.querySelectorAll('.wb-run pre')[1].innerText.trim()"),
        "asked for 1 byte"
    );
    // The two outputs do not touch.
    page.size(&json!(1280), &json!(900));
    let boxes = page.js(
        "JSON.stringify([...document.querySelectorAll('.wb-run .wb-both pre')]\
         .map((box) => box.getBoundingClientRect()))",
    );
    let boxes: Value = serde_json::from_str(boxes.as_str().unwrap()).unwrap();
    let edge = |number: usize, edge: &str| boxes[number][edge].as_f64().unwrap();
    assert!(
        edge(1, "top") - edge(0, "bottom") > 12.0 || edge(1, "left") - edge(0, "right") > 12.0,
        "{boxes}"
    );
    page.picture("run");
    page.shows("vm-lab .vm-source", "Recorded on Linux");
    page.click("vm-lab button:nth-of-type(4)");
    page.shows("vm-lab .vm-source", "Recorded just now on Linux 9.9.9");
    page.click("vm-lab button:nth-of-type(3)");
    page.shows("vm-lab .vm-sentence", "Step 2 of 11");
    page.is_clean();
}

/// Returns the captions of the listings that are displayed, and which button of each switch is pressed.
const LISTINGS: &str = "JSON.stringify([...document.querySelectorAll('wb-languages')].map((pair) => [\
    ...[...pair.querySelectorAll('figure')].filter((figure) => figure.offsetHeight > 0)\
        .map((figure) => figure.querySelector('figcaption').textContent.split('/').at(-1)),\
    ...[...pair.querySelectorAll('button[aria-pressed=true]')].map((button) => button.textContent)]))";

fn listings(page: &Page, expected: Value) {
    let found = page.js(LISTINGS);
    let found: Value = serde_json::from_str(found.as_str().unwrap()).unwrap();
    assert_eq!(found, expected);
}

/// Returns the languages of the run buttons that are displayed.
fn run_boxes(page: &Page) -> Value {
    let boxes = page.js("JSON.stringify([...document.querySelectorAll('.wb-run')]\
         .filter((box) => box.offsetHeight > 0).map((box) => box.dataset.language))");
    serde_json::from_str(boxes.as_str().unwrap()).unwrap()
}

#[test]
fn a_listing_is_shown_in_the_chosen_language_on_every_page() {
    let Some(window) = window() else { return };
    let page = window.small();
    let rust = json!([["zero_filled.rs", "Rust"], ["zero_filled.rs", "Rust"]]);
    let c = json!([["zero_filled.c", "C"], ["zero_filled.c", "C"]]);
    listings(&page, rust.clone());

    // By keyboard.
    page.tab_to("wb-languages .wb-switch button");
    page.arrow_does_not_turn_the_page();
    page.press("Tab");
    page.press("Enter");
    listings(&page, c.clone());
    assert_eq!(
        page.js("document.activeElement.textContent"),
        "C",
        "the focus is lost"
    );
    page.picture("listing-c");

    // The program is run in the same language.
    let run = |language: &str| {
        let language = format!(".wb-run[data-language={language}]");
        page.click(&format!("{language} button"));
        page.shows(&language, "Your kernel, in");
        page.text(&language)
    };
    assert_eq!(run_boxes(&page), json!(["c"]));
    let ran = run("c");
    assert!(
        ran.contains("Your kernel, in C (different output):") && ran.contains("compiled"),
        "{ran}"
    );

    // The choice is stored, and is in effect before the page's scripts run.
    page.before(
        "new MutationObserver(() => {\
           window.early ??= document.body && (document.documentElement.dataset.language ?? 'late');\
         }).observe(document, { childList: true, subtree: true });",
    );
    for other in ["private-alloc.html", "page.html"] {
        page.go(&url(served(), other));
        assert_eq!(page.js("window.early"), "c", "{other}");
    }
    listings(&page, c);

    // By mouse, and the button stays under the pointer, although the listings above become longer or shorter.
    let last = "wb-languages:last-of-type .wb-switch button:first-child";
    page.js(&format!(
        "document.querySelector('wb-languages figure[data-language=rust] pre').style.height = '900px';\
         window.top_of = () => Math.round(document.querySelector({last:?}).getBoundingClientRect().top);\
         addEventListener('click', () => {{ window.before = [top_of(), scrollY]; }}, true)"
    ));
    page.click(last);
    let moved = page.js("top_of() - before[0]").as_f64().unwrap();
    assert!(moved.abs() <= 1.0, "the button has moved by {moved} pixels");
    assert_ne!(
        page.js("scrollY - before[1]"),
        0,
        "the page has not become longer above it"
    );
    listings(&page, rust);
    assert_eq!(run_boxes(&page), json!(["rust"]));
    let ran = run("rust");
    assert!(ran.contains("Your kernel, in Rust (same output):"), "{ran}");
    page.is_clean();

    // On paper, both are shown, and nothing can be pressed.
    page.0
        .call_method(Emulation::SetEmulatedMedia {
            media: Some("print".to_owned()),
            features: None,
        })
        .unwrap();
    let both = json!(["zero_filled.rs", "zero_filled.c", "Rust"]);
    listings(&page, json!([both, both]));
    assert_eq!(
        page.js("document.querySelector('.wb-switch').offsetHeight"),
        0
    );
    let caption = page.text("wb-languages figcaption");
    assert!(caption.starts_with("Rust"), "{caption}");
}

#[test]
fn a_page_is_reloaded_after_an_edit() {
    let Some(window) = window() else { return };
    let small = small();
    let served = serve(&small.root(), Limits::default());
    let page = window.open(&url(&served, "private-alloc.html"));
    page.shows("main", "The exercise");
    small.write("book/src/private-alloc.md", "# Another title\n");
    page.shows("main", "Another title");
    page.is_clean();
}

/// The restarted server rejects the tab's token, so the page must get the new one.
#[test]
fn a_page_recovers_after_a_restart_of_the_server() {
    let Some(window) = window() else { return };
    let small = small();
    let mut served = serve(&small.root(), Limits::default());
    let page = window.open(&url(&served, "page.html"));
    page.shows("wb-grade .wb-head", "Grade it in your clone:");
    // A browser waits for a few seconds before it connects again.
    let mut options = options(&small.root(), Limits::default());
    options.port = served.address.port();
    let first_token = served.token.clone();
    served
        .here
        .take()
        .expect("the server runs in this process")
        .stop();
    page.shows(".wb-notice", "The book's server has stopped.");

    let served = serve_with(options);
    assert_ne!(served.token, first_token);
    let token = "document.querySelector('meta[name=workbook-live]').dataset.token";
    until("the page has the new token", || {
        page.js(token) == served.token.as_str()
    });
    assert_eq!(page.text(".wb-notice"), "");
    log_grading(&served.log, &[("by_hand", 4, 0)]);
    page.shows("[data-stage=by_hand]", "4 of 4 cases pass");
}

/// As built by `mdbook build`.
#[test]
fn without_the_server_the_page_shows_the_command_to_copy() {
    let Some(window) = window() else { return };
    let small = small();
    let into = tempfile::tempdir().unwrap();
    reader::book::build(&small.root().join("book"), into.path()).unwrap();
    let file = |page: &str| format!("file://{}/{page}", into.path().display());
    let page = window.open(&file("page.html"));
    page.shows("wb-grade pre", "cargo run -- grade private-alloc");
    page.shows("wb-progress pre", "cargo run");
    page.shows(
        "code.language-console",
        "$ cargo run -q -p lab --example zero_filled",
    );
    assert_eq!(page.text(".wb-run"), "", "a button needs the server");
    page.click("vm-lab button:nth-of-type(3)");
    page.shows("vm-lab .vm-sentence", "Step 2 of 11");
    assert_eq!(page.js("window.wrong.join()"), "");

    // The page for printing shows the static texts.
    let page = window.open(&file("print.html"));
    is_static(&page);
    assert_eq!(page.js("window.wrong.join()"), "");

    let page = window.open(&file("private-alloc.html"));
    let off = Emulation::SetScriptExecutionDisabled { value: true };
    page.0.call_method(off).unwrap();
    page.go(&file("page.html"));
    is_static(&page);
}

fn is_static(page: &Page) {
    assert_eq!(
        page.js("document.querySelectorAll('main form, main .wb-buttons, main .wb-switch').length"),
        0
    );
    page.shows("wb-quiz", "What is 1 + 1?");
    assert_eq!(
        page.js("document.querySelectorAll('wb-quiz > ol > li').length"),
        3
    );
    page.click("wb-quiz summary");
    page.shows("wb-quiz details", "One too many.");
    page.click("wb-predict summary");
    page.shows("wb-predict details", "1,024");
    page.shows("vm-lab table", "fcff....");
    let both = json!(["zero_filled.rs", "zero_filled.c"]);
    listings(page, json!([both, both]));
    page.shows("wb-languages figcaption", "Rust");
    page.shows("wb-grade pre", "cargo run -- grade private-alloc");
}

/// Returns the file names of the real book's pages.
fn pages() -> Vec<String> {
    let mut pages: Vec<String> = fs::read_dir(common::built())
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.ends_with(".html") && name != "toc.html")
        .collect();
    pages.sort();
    assert!(pages.len() > 3);
    pages
}

#[test]
fn every_page_is_clean_and_fits_a_narrow_screen() {
    let Some(window) = window() else { return };
    let book = serve(clone(), Limits::default());
    let mut all: Vec<String> = pages().iter().map(|page| url(&book, page)).collect();
    all.push(url(served(), "page.html"));
    let page = window.open("about:blank");
    page.narrow();
    for url in all {
        page.go(&url);
        assert_eq!(page.js("innerWidth"), 360);
        // Also check the parts that are folded away.
        page.js("document.querySelectorAll('main details').forEach((details) => { details.open = true; })");
        let wide = page.js(
            "[...document.querySelectorAll('main *')].filter((node) => {\
               for (let at = node.parentElement; at; at = at.parentElement)\
                 if (at.matches('pre, .table-wrapper, svg, [class*=MathJax]')) return false;\
               return node.getBoundingClientRect().right > 361;\
             }).map((node) => node.outerHTML.slice(0, 80)).join('\\n')",
        );
        assert_eq!(wide, "", "{url}");
        let cut = page.js("[...document.querySelectorAll('main .table-wrapper')]\
               .filter((table) => table.scrollWidth > table.clientWidth)\
               .map((table) => table.innerText.slice(0, 80)).join('\\n')");
        assert_eq!(cut, "", "a table of {url} is cut");
        // A shadow shows that a listing continues.
        let unmarked = page.js("[...document.querySelectorAll('main pre > code')]\
               .filter((code) => code.scrollWidth > code.clientWidth && code.clientWidth)\
               .filter((code) => !getComputedStyle(code).backgroundImage.includes('gradient'))\
               .map((code) => code.innerText.slice(0, 80)).join('\\n')");
        assert_eq!(unmarked, "", "{url}");
        let (smallest, _) = sizes_of_figure_text(&page);
        assert!(
            smallest >= 9.5,
            "text of {smallest} pixels in a figure of {url}"
        );
        assert_eq!(
            page.js("document.documentElement.scrollWidth"),
            360,
            "{url}"
        );
        page.is_clean();
        if url.contains("page.html") {
            page.picture("narrow");
        }
    }
}

/// Returns the smallest and the largest height of the figures' text on the screen, in pixels; 16 if there is none.
fn sizes_of_figure_text(page: &Page) -> (f64, f64) {
    let sizes = page.js(
        "JSON.stringify([...document.querySelectorAll('main svg text')].map((text) =>\
           parseFloat(getComputedStyle(text).fontSize) * text.getScreenCTM().a))",
    );
    let sizes: Vec<f64> = serde_json::from_str(sizes.as_str().unwrap()).unwrap();
    let smallest = sizes.iter().copied().fold(16.0, f64::min);
    let largest = sizes.iter().copied().fold(0.0, f64::max);
    (smallest, if sizes.is_empty() { 16.0 } else { largest })
}

#[test]
fn the_text_of_a_figure_is_not_larger_than_the_pages() {
    let Some(window) = window() else { return };
    let book = serve(clone(), Limits::default());
    let page = window.open("about:blank");
    page.size(&json!(1280), &json!(900));
    for name in pages() {
        page.go(&url(&book, &name));
        assert_eq!(
            page.js("getComputedStyle(document.querySelector('main')).fontSize"),
            "16px"
        );
        let (_, largest) = sizes_of_figure_text(&page);
        assert!(
            largest < 16.5,
            "text of {largest} pixels in a figure of {name}"
        );
    }
}

#[test]
fn the_cheat_sheet_is_printed_on_one_page() {
    let Some(window) = window() else { return };
    let book = serve(clone(), Limits::default());
    let page = window.open(&url(&book, "field-guide.html"));
    for (paper, width, height) in [("A4", 8.27, 11.69), ("letter", 8.5, 11.0)] {
        let options = PrintToPdfOptions {
            paper_width: Some(width),
            paper_height: Some(height),
            ..PrintToPdfOptions::default()
        };
        let pdf = page.0.print_to_pdf(Some(options)).expect("a file");
        let text = String::from_utf8_lossy(&pdf);
        let pages = text.matches("/Type /Page\n").count();
        assert_eq!(pages, 1, "pages of {paper}");
    }
}

#[test]
fn the_search_finds_a_page() {
    let Some(window) = window() else { return };
    let book = serve(clone(), Limits::default());
    let page = window.open(&url(&book, "index.html"));
    let search = |words: &str| {
        page.js(&format!(
            "document.getElementById('mdbook-searchbar').value = {words:?};\
             document.getElementById('mdbook-searchbar').dispatchEvent(new Event('keyup'))"
        ));
    };
    page.press("s");
    search("futex queue");
    page.shows("#mdbook-searchresults", "Process-shared and robust mutexes");
    page.is_clean();
}

/// Returns the source of axe-core, which is downloaded on CI only.
fn axe() -> Option<String> {
    const VERSION: &str = "4.14.1";
    let folder = clone().join(".workbook/axe");
    let file = folder.join(format!("axe-core-{VERSION}.min.js"));
    if !file.is_file() {
        if std::env::var_os("CI").is_none() {
            skipped("axe-core is not installed; with CI=1 this test downloads it from npm");
            return None;
        }
        fs::create_dir_all(&folder).unwrap();
        let run = |command: &mut Command| {
            let done = command.current_dir(&folder).status();
            assert!(done.is_ok_and(|status| status.success()), "{command:?}");
        };
        let package = format!("axe-core@{VERSION}");
        run(Command::new("npm").args(["pack", "--silent", &package]));
        let archive = format!("axe-core-{VERSION}.tgz");
        run(Command::new("tar").args(["xzf", &archive, "package/axe.min.js"]));
        fs::rename(folder.join("package/axe.min.js"), &file).unwrap();
    }
    Some(fs::read_to_string(file).unwrap())
}

#[test]
fn no_theme_has_an_accessibility_violation_in_the_main_part() {
    let Some(axe) = axe() else { return };
    let Some(window) = window() else { return };
    let mut found = Vec::new();

    let small = window.small();
    // Use every element, because each adds to the page.
    small.click("wb-quiz input[name=option][value='0']");
    small.click("wb-quiz input[name=sure][value='2']");
    small.click("wb-quiz button");
    small.click("vm-lab button:nth-of-type(3)");
    small.click("vm-lab summary");
    small.click(".wb-run button");
    small.shows(".wb-run", "Your kernel");
    small.click(".wb-switch button:last-child");
    let mut seen = BTreeSet::new();
    found.extend(violations(&small, &axe, &mut seen));

    let book = serve(clone(), Limits::default());
    let page = window.open(&url(&book, "index.html"));
    for name in pages().iter().filter(|name| *name != "print.html") {
        page.go(&url(&book, name));
        found.extend(violations(&page, &axe, &mut seen));
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Returns the violations that axe-core finds. The themes differ only in their colours, so the rules that are not about
/// colours are checked in the first theme only. A page all of whose kinds of elements are in `seen` is checked in the first
/// theme only, because its colours in the others have been checked on other pages.
fn violations(page: &Page, axe: &str, seen: &mut BTreeSet<String>) -> Vec<String> {
    page.js(&format!("{axe};null"));
    let kinds = kinds_of_elements(page);
    let themes = match kinds.is_subset(seen) {
        true => &THEMES[..1],
        false => &THEMES,
    };
    seen.extend(kinds);
    let mut found = Vec::new();
    for theme in themes {
        page.js(&format!(
            "document.getElementById('mdbook-theme-{theme}').click()"
        ));
        let shown = format!("document.documentElement.classList.contains({theme:?})");
        assert_eq!(page.js(&shown), true, "{theme} is shown");
        let rules = match *theme == THEMES[0] {
            true => "{}",
            false => "{ runOnly: ['color-contrast', 'link-in-text-block'] }",
        };
        let result = page.js(&format!(
            "axe.run('main', {rules}).then(({{ violations, passes }}) => JSON.stringify({{\
             passes: passes.map(({{ id }}) => id),\
             wrong: violations.flatMap(({{ id, nodes }}) => nodes.map(({{ html, failureSummary }}) =>\
             `${{id}}: ${{html.slice(0, 200)}} ${{failureSummary}}`)) }}))",
        ));
        let result: Value = serde_json::from_str(result.as_str().unwrap()).unwrap();
        let passes = result["passes"].as_array().unwrap();
        let looked = passes.contains(&json!("color-contrast"));
        let wrong = !result["wrong"].as_array().unwrap().is_empty();
        assert!(looked || wrong, "axe-core has checked nothing: {result}");
        for wrong in result["wrong"].as_array().unwrap() {
            found.push(format!("{} in {theme}: {wrong}", page.path()));
        }
        if page.path() == "/page.html" {
            page.picture(&format!("theme-{theme}"));
        }
    }
    found
}

/// Returns the kinds of visible elements with text in the main part: names, classes and styles, each with those of two
/// ancestors.
fn kinds_of_elements(page: &Page) -> BTreeSet<String> {
    let kinds = page.js(
        "JSON.stringify([...document.querySelectorAll('main *')]\
           .filter((node) => node.checkVisibility() && [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim()))\
           .map((node) => [node, node.parentElement, node.parentElement.parentElement].map((one) =>\
             [one.localName, ...[...one.classList].sort(), one.getAttribute('style'), one.getAttribute('fill')].join('.'))\
             .join(' < ')))",
    );
    serde_json::from_str(kinds.as_str().unwrap()).unwrap()
}
