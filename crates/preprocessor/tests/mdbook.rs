//! The conversation with mdBook.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

fn preprocessor(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_preprocessor"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the preprocessor starts");
    let mut stdin = child.stdin.take().expect("a pipe was requested");
    // It may end without reading its input.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    child.wait_with_output().expect("it ends")
}

fn book(text: &str) -> String {
    let root: PathBuf = [env!("CARGO_MANIFEST_DIR"), "../../book"].iter().collect();
    let inner = json!({"Chapter": {
        "name": "Inner", "content": text, "number": [1, 1], "sub_items": [], "path": "in.md", "source_path": "in.md",
        "parent_names": ["Outer"],
    }});
    let outer = json!({"Chapter": {
        "name": "Outer", "content": "Words.\n", "number": [1], "sub_items": [inner], "path": null, "source_path": null,
        "parent_names": [],
    }});
    let context = json!({"root": root, "config": {"book": {"src": "src"}}, "renderer": "html"});
    json!([context, {"items": ["Separator", outer]}]).to_string()
}

#[test]
fn only_html_is_supported() {
    for name in ["workbook", "listings"] {
        assert!(
            preprocessor(&[name, "supports", "html"], "")
                .status
                .success()
        );
        assert!(
            !preprocessor(&[name, "supports", "linkcheck"], "")
                .status
                .success()
        );
    }
}

#[test]
fn chapters_inside_chapters_are_processed() {
    for (name, text, expected) in [
        ("workbook", "```progress\ncargo run\n```\n", "<wb-progress"),
        ("listings", "```c\n    x;\n```\n", "```c\nx;\n```\n"),
    ] {
        let output = preprocessor(&[name], &book(text));
        assert!(output.status.success(), "{output:?}");
        let book: Value = serde_json::from_slice(&output.stdout).expect("a book");
        let outer = &book["items"][1]["Chapter"];
        assert_eq!(outer["content"], "Words.\n");
        let content = outer["sub_items"][0]["Chapter"]["content"]
            .as_str()
            .expect("a text");
        assert!(content.contains(expected), "{content}");
    }
}

#[test]
fn a_wrong_element_is_reported_with_its_place() {
    let output = preprocessor(&["workbook"], &book("A.\n\n```quiz\n```\n"));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(error.starts_with("book/src/in.md:3: "), "{error}");
}

#[test]
fn an_input_that_is_no_book_is_an_error() {
    for input in ["", "[{\"root\": \".\"}, {\"sections\": []}]"] {
        let output = preprocessor(&["listings"], input);
        assert!(!output.status.success(), "{input}");
        assert!(!output.stderr.is_empty(), "{input}");
    }
}
