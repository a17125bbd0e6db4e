//! Prints lines and reads lines. It never moves the cursor, and colour never carries meaning.

use std::io::{self, BufRead, IsTerminal, Write};
use std::ops::Range;

use anstyle::Style;
use pulldown_cmark::{Event, Parser, Tag, TagEnd};

pub struct Terminal<'a> {
    input: &'a mut dyn BufRead,
    output: &'a mut dyn Write,
    look: Look,
}

#[derive(Debug, Clone, Copy, Default)]
pub struct Look {
    /// Whether to use bold and faint text, which never carries meaning.
    pub styled: bool,
    /// Whether to print what was typed. If the input is not a terminal, nothing else shows it.
    pub echo: bool,
    /// Where lines are wrapped; `None` if they are not wrapped.
    pub width: Option<usize>,
}

impl Look {
    /// Decides from the environment. `TERM=dumb` implies `plain`, and so does a standard output that is not a
    /// terminal.
    pub fn from_environment(plain: bool) -> Look {
        let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let terminal = io::stdout().is_terminal();
        let plain = plain || dumb || !terminal;
        Look {
            styled: !plain && !is_set("NO_COLOR"),
            echo: !io::stdin().is_terminal(),
            width: terminal.then(|| textwrap::termwidth().clamp(30, 100)),
        }
    }
}

const STRONG: Style = Style::new().bold();
const FAINT: Style = Style::new().dimmed();

/// Every method returns an error if the output cannot be written.
impl<'a> Terminal<'a> {
    pub fn new(input: &'a mut dyn BufRead, output: &'a mut dyn Write, look: Look) -> Terminal<'a> {
        Terminal {
            input,
            output,
            look,
        }
    }

    /// Prints a line without wrapping it.
    pub fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.output, "{text}")
    }

    /// Prints a paragraph.
    pub fn text(&mut self, text: &str) -> io::Result<()> {
        self.hanging("", text)
    }

    /// Prints a line in bold.
    pub fn strong(&mut self, text: &str) -> io::Result<()> {
        self.styled(STRONG, text)
    }

    /// Prints secondary text.
    pub fn faint(&mut self, text: &str) -> io::Result<()> {
        self.styled(FAINT, text)
    }

    /// Prints an item of a list, with the text hanging after the marker.
    pub fn item(&mut self, marker: &str, text: &str) -> io::Result<()> {
        self.hanging(&format!("  {marker} "), text)
    }

    /// Prints Markdown. Paragraphs and items are wrapped; code and tables are not. Code is indented instead of fenced.
    pub fn markdown(&mut self, text: &str) -> io::Result<()> {
        let mut in_code = false;
        for line in text.lines() {
            let is_fence = line.trim_start().starts_with("```");
            in_code ^= is_fence;
            if is_fence {
                continue;
            }
            if in_code {
                self.line(format!("  {line}").trim_end())?;
            } else if line.starts_with("    ") || line.starts_with('|') {
                self.line(line)?;
            } else {
                let (marker, text) = line.split_at(marker_length(line));
                self.hanging(marker, text)?;
            }
        }
        Ok(())
    }

    /// Prints code with line numbers.
    pub fn numbered(&mut self, code: &str) -> io::Result<()> {
        for (number, line) in (1..).zip(code.lines()) {
            let line = format!("{number:>4}  {line}");
            self.line(line.trim_end())?;
        }
        Ok(())
    }

    /// Prints a prompt and reads a line. Returns `None` at the end of the input.
    pub fn ask(&mut self, prompt: &str) -> io::Result<Option<String>> {
        let prompt = self.wrapped(&format!("{prompt}>"), "", "");
        write!(self.output, "{prompt} ")?;
        self.output.flush()?;
        let mut bytes = Vec::new();
        let is_end = self.input.read_until(b'\n', &mut bytes)? == 0;
        let typed = String::from_utf8_lossy(&bytes);
        let typed = typed.trim_end_matches(['\n', '\r']);
        // An answer is shown again. An arrow key, for example, would move the cursor then.
        let typed = typed.replace(
            |typed: char| typed.is_control() && typed != '\t',
            "\u{fffd}",
        );
        // At the end of the input the cursor is still after the prompt.
        if is_end {
            self.line("")?;
        } else if self.look.echo {
            self.line(&typed)?;
        }
        Ok((!is_end).then_some(typed))
    }

    fn styled(&mut self, style: Style, text: &str) -> io::Result<()> {
        let text = self.wrapped(text, "", "");
        match self.look.styled {
            true => self.line(&format!("{style}{text}{style:#}")),
            false => self.line(&text),
        }
    }

    /// Prints text whose further lines are indented as far as the first word after `first`.
    fn hanging(&mut self, first: &str, text: &str) -> io::Result<()> {
        let next = " ".repeat(first.chars().count());
        let text = inline(text, self.look.styled);
        let text = self.wrapped(&text, first, &next);
        self.line(&text)
    }

    fn wrapped(&self, text: &str, first: &str, next: &str) -> String {
        match self.look.width {
            Some(width) => {
                let options = textwrap::Options::new(width)
                    .initial_indent(first)
                    .subsequent_indent(next)
                    // A command such as `drill prove mock-256-kib` stays on one line, to be copied.
                    .word_splitter(textwrap::WordSplitter::NoHyphenation)
                    .break_words(false);
                textwrap::fill(text, options)
            }
            None => format!("{first}{text}"),
        }
    }
}

/// Formats a count: `1 question`, `2 questions`.
pub fn counted(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

/// Returns the length of the marker of a list item, `- ` or `12. `, with the indentation before it.
fn marker_length(line: &str) -> usize {
    let text = line.trim_start();
    let after = text.trim_start_matches(|letter: char| letter.is_ascii_digit());
    let digits = text.len() - after.len();
    let marker = match digits {
        0 if after.starts_with("- ") => 2,
        1.. if after.starts_with(". ") => digits + 2,
        _ => return 0,
    };
    line.len() - text.len() + marker
}

/// Replaces links by their text, and `**` by bold or, if not `styled`, by nothing. Everything else stays as Markdown.
fn inline(text: &str, styled: bool) -> String {
    let (begin, finish) = match styled {
        true => (STRONG.to_string(), format!("{STRONG:#}")),
        false => Default::default(),
    };
    let mut result = String::new();
    let mut copied = 0;
    let mut replace = |range: Range<usize>, with: &str| {
        result.push_str(&text[copied..range.start]);
        result.push_str(with);
        copied = range.end;
    };
    // Where the last element ended: at a link's end, this is the end of its text.
    let mut end = 0;
    for (event, range) in Parser::new(text).into_offset_iter() {
        match event {
            Event::Start(Tag::Link { .. }) => replace(range.start..range.start + 1, ""),
            Event::End(TagEnd::Link) => replace(end..range.end, ""),
            Event::Start(Tag::Strong) => replace(range.start..range.start + 2, &begin),
            Event::End(TagEnd::Strong) => replace(range.end - 2..range.end, &finish),
            _ => {}
        }
        end = range.end;
    }
    result.push_str(&text[copied..]);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_becomes_its_text() {
        let text = "A [`map`](a.md#b), `[b](c)`, [0, 0] and **one**.";
        assert_eq!(inline(text, false), "A `map`, `[b](c)`, [0, 0] and one.");
        let styled = inline(text, true);
        assert!(styled.ends_with("and \x1b[1mone\x1b[0m."), "{styled:?}");
    }

    #[test]
    fn lines_are_wrapped_between_words() {
        let (mut input, mut output) = (&b""[..], Vec::new());
        let look = Look {
            width: Some(30),
            ..Look::default()
        };
        let mut terminal = Terminal::new(&mut input, &mut output, look);
        terminal
            .item("-", "run `drill prove mock-256-kib` now")
            .expect("output");
        terminal
            .markdown("- one two three four five six seven")
            .expect("output");
        terminal
            .ask("Which of them all? The letters of it")
            .expect("output");
        let expected = "  - run `drill prove\n    mock-256-kib` now\n- one two three four five six\n  seven\nWhich of them all? The letters\nof it> \n";
        assert_eq!(String::from_utf8_lossy(&output), expected);
    }

    #[test]
    fn a_typed_control_character_is_replaced() {
        let (mut input, mut output) = (&b"\x1b[Done\ttwo\n"[..], Vec::new());
        let mut terminal = Terminal::new(&mut input, &mut output, Look::default());
        let typed = terminal.ask("Answer").expect("a line");
        assert_eq!(typed.as_deref(), Some("\u{fffd}[Done\ttwo"));
    }

    #[test]
    fn code_is_indented_and_not_wrapped() {
        let (mut input, mut output) = (&b""[..], Vec::new());
        let look = Look {
            width: Some(30),
            ..Look::default()
        };
        Terminal::new(&mut input, &mut output, look)
            .markdown("What is\n\n```c\nint a = one + two + three + four;\n\n- b;\n```\n\nhere?")
            .expect("output");
        let expected = "What is\n\n  int a = one + two + three + four;\n\n  - b;\n\nhere?\n";
        assert_eq!(String::from_utf8_lossy(&output), expected);
    }

    #[test]
    fn markers_of_items_are_found() {
        let lengths = ["- a", "12. a", "  - a", "12 pages", "-1 is", "a"].map(marker_length);
        assert_eq!(lengths, [2, 4, 4, 0, 0, 0]);
    }
}
