//! Converts text and inline Markdown to HTML.

use pulldown_cmark::{Parser, html};

use super::OPTIONS;

/// Escapes text for use between tags and in a quoted attribute.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            other => escaped.push(other),
        }
    }
    escaped
}

/// Renders one paragraph of Markdown without its `<p>`.
pub fn inline(markdown: &str) -> String {
    let mut rendered = String::new();
    html::push_html(&mut rendered, Parser::new_ext(markdown, OPTIONS));
    let rendered = rendered.trim();
    let inner = rendered
        .strip_prefix("<p>")
        .and_then(|rest| rest.strip_suffix("</p>"));
    inner.unwrap_or(rendered).replace('\n', " ")
}
