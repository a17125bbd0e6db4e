//! The HTML of each element, and the error for each mistake.

mod common;

use common::SmallClone;

const QUIZ: &str = "\
# A page

Words.

```quiz id=size
How many pages are `2 > 1` MiB?
- [ ] 256 > That would be *one* MiB.
- [x] 512, in pages of 4 KiB > Two times
  256.
- [ ] `a > b` > No number.
```

More words.
";

#[test]
fn a_quiz_folds_its_answers_away() {
    let html = SmallClone::new(QUIZ).build().unwrap();
    assert!(html.contains("<wb-quiz data-id=\"size\">"), "{html}");
    assert!(
        html.contains("How many pages are <code>2 &gt; 1</code> MiB?"),
        "{html}"
    );
    assert!(html.contains("<li>512, in pages of 4 KiB</li>"), "{html}");
    assert!(
        html.contains("<li class=\"wb-right\"><b>Right.</b> Two times 256.</li>"),
        "{html}"
    );
    assert!(html.contains("<li><code>a &gt; b</code></li>"), "{html}");
    let (before, after) = html.split_once("<details>").unwrap();
    assert!(!before.contains("Two times"), "the reason is visible");
    assert!(after.contains("Two times"));
    assert!(
        after.contains("<p>More words.</p>"),
        "the rest of the page is missing: {after}"
    );
    assert!(!html.contains("language-quiz"));
}

#[test]
fn a_prediction_folds_its_answer_away() {
    let page = "```predict id=faults\nHow many\nfaults?\nanswer: 1,024\nwhy: Because *each*\nfaults.\n```\n";
    let html = SmallClone::new(page).build().unwrap();
    assert!(html.contains("<wb-predict data-id=\"faults\">"), "{html}");
    assert!(html.contains("How many faults?"), "{html}");
    assert!(
        html.contains("<p><b>1,024</b></p>\n<p>Because <em>each</em> faults.</p>"),
        "{html}"
    );
}

#[test]
fn a_trace_has_a_table_of_its_steps() {
    let html = SmallClone::new("```trace zero-page\nReads, then *writes*.\n```\n")
        .build()
        .unwrap();
    assert!(html.contains("<vm-lab data-trace=\"{"), "{html}");
    assert!(html.contains("Reads, then <em>writes</em>."), "{html}");
    assert!(
        html.contains("<td>A byte of page 0 is read. It reads 0.</td>"),
        "{html}"
    );
    assert!(html.contains("<td><code>00r00000</code></td>"), "{html}");
}

#[test]
fn grade_and_progress_show_the_command() {
    let page = "```grade private-alloc\ncargo run -- grade private-alloc\n```\n\n```progress\ncargo run\n```\n";
    let small = SmallClone::new(page);
    small.write("book/src/private-alloc.md", "# It");
    small.write(
        "book/src/SUMMARY.md",
        "- [A page](page.md)\n- [It](private-alloc.md)\n",
    );
    let html = small.build().unwrap();
    assert!(
        html.contains("<wb-grade data-exercise=\"private-alloc\">"),
        "{html}"
    );
    assert!(
        html.contains(">cargo run -- grade private-alloc</code>"),
        "{html}"
    );
    assert!(
        html.contains("<li data-stage=\"by_hand\">Raw mmap and munmap"),
        "{html}"
    );
    assert!(
        html.contains("<a href=\"private-alloc.html\">Private allocation</a>"),
        "{html}"
    );
}

#[test]
fn a_rust_listing_and_the_same_in_c_are_both_shown_without_scripts() {
    let small = SmallClone::new(
        "```rust,ignore\n{{#include ../lab/examples/zero_filled.rs:ask}}\n```\n\n\
         <details><summary>The same in C</summary>\n\n\
         ```c\n{{#include ../lab/c/zero_filled.c:ask}}\n```\n\n</details>\n\nMore words.\n",
    );
    let html = small.build().unwrap();
    let (rust, c) = html.split_once("<figure data-language=\"c\">").unwrap();
    assert!(
        rust.contains("<wb-languages data-program=\"zero_filled\">"),
        "{html}"
    );
    assert!(
        rust.contains("<b>Rust</b> <code>book/<wbr>lab/<wbr>examples/<wbr>zero_filled.rs</code>")
            && rust.contains("language-rust")
            && rust.contains("null_mut()"),
        "{html}"
    );
    assert!(
        c.contains("<b>C</b> <code>book/<wbr>lab/<wbr>c/<wbr>zero_filled.c</code>")
            && c.contains("language-c")
            && c.contains("must(start"),
        "{html}"
    );
    assert!(
        c.contains("</wb-languages>") && c.contains("<p>More words.</p>"),
        "{html}"
    );
    assert!(
        !html.contains("<details>") && !html.contains("#include .."),
        "{html}"
    );
}

#[test]
fn other_fences_are_unchanged() {
    let html = SmallClone::new("```text\n- [ ] 1\n```\n\n```console\n$ quiz\n```\n")
        .build()
        .unwrap();
    assert!(
        html.contains("language-text") && html.contains("language-console"),
        "{html}"
    );
}

/// Each wrong page, and its error.
const WRONG: &[(&str, &str)] = &[
    (
        "# P\n\n```quiz id=a\nWhy?\n- [x] 1 > So.\n- [ ] 2\n```\n",
        "book/src/page.md:6: the option has no reason; write `2 > REASON`",
    ),
    (
        "```quiz id=a\nWhy?\n- [x] 1 > So.\n- [ ] 2 > \n```\n",
        "book/src/page.md:4: the option has no reason; write `2 > REASON`",
    ),
    (
        "```quiz id=a\nWhy?\n- [x] 1 > So.\n- [x] 2 > So.\n```\n",
        "book/src/page.md:1: the quiz a has 2 right options `- [x]`; it needs exactly one",
    ),
    (
        "```quiz id=a\nWhy?\n- [ ] 1 > So.\n- [ ] 2 > So.\n```\n",
        "book/src/page.md:1: the quiz a has 0 right options `- [x]`; it needs exactly one",
    ),
    (
        "```quiz id=a\nWhy?\n- [x] 1 > So.\n```\n",
        "book/src/page.md:1: the quiz a needs at least two options",
    ),
    (
        "```quiz id=a\n- [x] 1 > So.\n- [ ] 2 > So.\n```\n",
        "book/src/page.md:1: the quiz a has no question",
    ),
    (
        "```quiz id=a\nWhy?\n- [x] 1 > So.\nWhat?\n- [ ] 2 > So.\n```\n",
        "book/src/page.md:4: expected another option: `- [ ] OPTION > REASON`",
    ),
    (
        "```quiz\nWhy?\n- [x] 1 > So.\n- [ ] 2 > So.\n```\n",
        "book/src/page.md:1: the fence has no id; write ```quiz id=NAME",
    ),
    (
        "```quiz id=A/b\nWhy?\n- [x] 1 > So.\n- [ ] 2 > So.\n```\n",
        "book/src/page.md:1: \"A/b\" is not a valid name; use lower-case letters, digits and hyphens",
    ),
    (
        "```predict id=a\nWhy?\nanswer: 1\nwhy: So.\n```\n\n```quiz id=a\nWhy?\n- [x] 1 > So.\n- [ ] 2 > So.\n```\n",
        "book/src/page.md:7: the id a is already used at book/src/page.md:1",
    ),
    (
        "> ```quiz id=a\n> Why?\n> - [x] 1 > So.\n> - [ ] 2 > So.\n> ```\n",
        "book/src/page.md:1: an element must not be inside a list or a quotation",
    ),
    (
        "Words.\n\n```predict id=a\nWhy?\nanswer: 1\nwhy: So.\n",
        "book/src/page.md:3: the fence is not closed; end it with ```",
    ),
    (
        "```predict id=a\nWhy?\nanswer: 1\n```\n",
        "book/src/page.md:1: the prediction a has no reason; add `why: REASON`",
    ),
    (
        "```predict id=a\nWhy?\nwhy: So.\n```\n",
        "book/src/page.md:1: the prediction a has no answer; add `answer: ANSWER`",
    ),
    (
        "```predict id=a\nWhy?\nanswer:\nwhy: So.\n```\n",
        "book/src/page.md:3: there must be exactly one answer, such as `answer: 256`",
    ),
    (
        "```predict id=a\nanswer: 1\nwhy: So.\n```\n",
        "book/src/page.md:1: the prediction a has no question",
    ),
    (
        "Words.\n\n```c\n```\n\n<details><summary>The same in C</summary>\n\n```c\n```\n\n</details>\n",
        "book/src/page.md:6: expected a Rust listing, `<details><summary>The same in C</summary>`, a C listing",
    ),
    (
        "```trace nowhere\nA caption.\n```\n",
        "book/src/page.md:1: there is no trace \"nowhere\"",
    ),
    (
        "```trace ../../secret\nA caption.\n```\n",
        "book/src/page.md:1: \"../../secret\" is not a valid name",
    ),
    (
        "```trace zero-page\n```\n",
        "book/src/page.md:1: the trace zero-page has no caption",
    ),
    (
        "```grade nothing\ncargo run -- grade nothing\n```\n",
        "book/src/page.md:1: there is no exercise \"nothing\"; the exercises are private-alloc",
    ),
    (
        "```grade private-alloc\n```\n",
        "book/src/page.md:1: the text of this fence must be the command to copy: cargo run -- grade private-alloc",
    ),
    (
        "```progress all\ncargo run\n```\n",
        "book/src/page.md:1: the fence has an argument; write ```progress",
    ),
];

#[test]
fn a_wrong_element_fails_the_build_with_its_file_and_line() {
    for (page, expected) in WRONG {
        let error = SmallClone::new(page).build().expect_err(page);
        assert!(
            error.contains(expected),
            "{page}\nfails with:\n{error}\nexpected:\n{expected}"
        );
    }
}

#[test]
fn all_errors_are_reported_together() {
    let error = SmallClone::new("```quiz\n```\n\n```trace nowhere\n.\n```\n")
        .build()
        .unwrap_err();
    assert!(
        error.contains("page.md:1: ") && error.contains("page.md:4: "),
        "{error}"
    );
}

#[test]
fn a_warning_of_mdbook_fails_the_build() {
    let error = SmallClone::new("<div><b></div>\n").build().unwrap_err();
    assert!(error.contains("page.md"), "{error}");
}
