//! `<wb-languages>`: a Rust listing and the same in C. The script `theme/languages.js` shows one of them; without scripts
//! both are shown, each with a caption. Without the preprocessor, the C listing is folded away.

use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use pulldown_cmark::{CodeBlockKind, Event, Parser, Tag};

use super::OPTIONS;
use super::html::escape;

/// What follows a Rust listing that also exists in C.
const SUMMARY: &str = "<details><summary>The same in C</summary>";

const EXPECTED: &str = "expected a Rust listing, `<details><summary>The same in C</summary>`, a C listing and \
                        `</details>`, with blank lines between them";

/// Finds the pairs of listings on a page. Returns the range of each pair, and its HTML or what is wrong with it.
pub fn pairs(text: &str) -> Vec<(Range<usize>, Result<String>)> {
    let blocks = blocks(text);
    let summaries = blocks.iter().enumerate();
    let summaries = summaries.filter(|(_, block)| block.is(SUMMARY));
    summaries
        .map(|(at, summary)| {
            let around = at.checked_sub(1).and_then(|rust| blocks.get(rust..at + 3));
            match around {
                Some([rust, _, c, end])
                    if rust.language == "rust" && c.language == "c" && end.is("</details>") =>
                {
                    (rust.range.start..end.range.end, html(rust, c))
                }
                _ => (summary.range.clone(), Err(anyhow!(EXPECTED))),
            }
        })
        .collect()
}

/// A top-level block of a page.
struct Block<'a> {
    /// The first word of a fenced code block's info string; empty for all other blocks.
    language: String,
    source: &'a str,
    range: Range<usize>,
}

impl Block<'_> {
    fn is(&self, source: &str) -> bool {
        self.source.trim() == source
    }
}

fn blocks(text: &str) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    let mut depth = 0;
    for (event, range) in Parser::new_ext(text, OPTIONS).into_offset_iter() {
        if depth == 0 && !matches!(event, Event::End(_)) {
            blocks.push(Block {
                language: language(&event),
                source: &text[range.clone()],
                range,
            });
        }
        match event {
            Event::Start(_) => depth += 1,
            Event::End(_) => depth -= 1,
            _ => {}
        }
    }
    blocks
}

fn language(event: &Event) -> String {
    let Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(info))) = event else {
        return String::new();
    };
    let word = info.split([' ', ',']).next();
    word.unwrap_or_default().to_owned()
}

/// The listings stay Markdown, because mdBook has not included the programs yet.
fn html(rust: &Block, c: &Block) -> Result<String> {
    let program = included(c.source)
        .and_then(|path| Path::new(path).file_stem()?.to_str())
        .context("the C listing must include a program: {{#include ../lab/c/NAME.c:ANCHOR}}")?;
    let figure = |language, name, block: &Block| {
        let file = included(block.source).map_or_else(String::new, |path| {
            // On a narrow screen, the path is wrapped after a slash.
            let path = format!("book/{}", escape(path)).replace('/', "/<wbr>");
            format!(" <code>{path}</code>")
        });
        format!(
            "<figure data-language=\"{language}\">\n<figcaption><b>{name}</b>{file}</figcaption>\n\n{}\n\n</figure>\n",
            block.source.trim_end()
        )
    };
    Ok(format!(
        "<wb-languages data-program=\"{}\">\n{}{}</wb-languages>",
        escape(program),
        figure("rust", "Rust", rust),
        figure("c", "C", c)
    ))
}

/// Returns the file that a listing includes, relative to the book's folder.
fn included(listing: &str) -> Option<&str> {
    let (_, include) = listing.split_once("{{#include ../")?;
    let (path, _) = include.split_once([':', '}'])?;
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "\
Words.

```rust,ignore
{{#include ../lab/examples/a_page.rs:main}}
```

<details><summary>The same in C</summary>

```c
{{#include ../lab/c/a_page.c:main}}
```

</details>

More words.
";

    #[test]
    fn a_pair_becomes_two_figures_with_captions() {
        let pairs = pairs(PAGE);
        let [(range, html)] = &pairs[..] else {
            panic!("expected one pair: {pairs:?}");
        };
        assert_eq!(&PAGE[..range.start], "Words.\n\n");
        assert_eq!(PAGE[range.end..].trim(), "More words.");
        let expected = "\
<wb-languages data-program=\"a_page\">
<figure data-language=\"rust\">
<figcaption><b>Rust</b> <code>book/<wbr>lab/<wbr>examples/<wbr>a_page.rs</code></figcaption>

```rust,ignore
{{#include ../lab/examples/a_page.rs:main}}
```

</figure>
<figure data-language=\"c\">
<figcaption><b>C</b> <code>book/<wbr>lab/<wbr>c/<wbr>a_page.c</code></figcaption>

```c
{{#include ../lab/c/a_page.c:main}}
```

</figure>
</wb-languages>";
        assert_eq!(html.as_ref().unwrap(), expected);
    }

    #[test]
    fn other_listings_and_folded_answers_are_no_pairs() {
        let alone = PAGE.replace("The same in C", "Answer");
        assert!(pairs(&alone).is_empty());
        assert!(pairs("```rust\nfn f() {}\n```\n\n```c\nint f(void);\n```\n").is_empty());
    }

    /// Each pair is wrong in one way. It would be shown as it is written.
    #[test]
    fn incomplete_pairs_are_errors() {
        for (right, wrong) in [
            ("```rust,ignore", "```console"),
            ("```c\n", "```cpp\n"),
            ("</details>", "More.\n\n</details>"),
            ("<details>", "Words in between.\n\n<details>"),
        ] {
            let page = PAGE.replacen(right, wrong, 1);
            assert_ne!(page, PAGE);
            let [(range, Err(error))] = &pairs(&page)[..] else {
                panic!("expected an error:\n{page}");
            };
            assert!(page[range.clone()].starts_with(SUMMARY), "{range:?}");
            assert_eq!(error.to_string(), EXPECTED);
        }
        let page = PAGE.replace("{{#include ../lab/c/a_page.c:main}}", "int main(void);");
        let [(_, Err(error))] = &pairs(&page)[..] else {
            panic!("expected an error:\n{page}");
        };
        assert!(error.to_string().contains("must include a program"));
    }

    #[test]
    fn a_pair_at_the_start_or_without_an_end_is_an_error() {
        let start = PAGE.find(SUMMARY).unwrap();
        let end = PAGE.find("</details>").unwrap();
        for page in [&PAGE[start..], &PAGE[..end]] {
            assert!(matches!(&pairs(page)[..], [(_, Err(_))]), "{page}");
        }
    }
}
