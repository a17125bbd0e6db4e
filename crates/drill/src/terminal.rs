//! Lines out, lines in: no alternate screen, nothing that moves, no meaning in colour alone.

use std::io::{self, BufRead, IsTerminal, Write};

use anstyle::Style;

/// Where the learner reads and types.
pub struct Terminal<'a> {
    input: &'a mut dyn BufRead,
    output: &'a mut dyn Write,
    look: Look,
}

/// How it looks.
#[derive(Debug, Clone, Copy, Default)]
pub struct Look {
    /// Bold and faint, beside the words that say the same.
    pub styled: bool,
    /// What is typed is shown again: nobody else shows it where the input is no terminal.
    pub echo: bool,
    /// Where lines are broken; none where that is somebody else's business.
    pub width: Option<usize>,
}

impl Look {
    /// As the surroundings want it: plain is implied by `TERM=dumb` and where standard output is no terminal.
    pub fn of_surroundings(plain: bool) -> Look {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let terminal = io::stdout().is_terminal();
        let plain = plain || dumb || !terminal;
        Look {
            styled: !plain && !set("NO_COLOR"),
            echo: !io::stdin().is_terminal(),
            width: terminal.then(|| textwrap::termwidth().clamp(30, 100)),
        }
    }
}

const STRONG: Style = Style::new().bold();
const FAINT: Style = Style::new().dimmed();

impl<'a> Terminal<'a> {
    /// Reads there, writes there.
    pub fn new(input: &'a mut dyn BufRead, output: &'a mut dyn Write, look: Look) -> Terminal<'a> {
        Terminal {
            input,
            output,
            look,
        }
    }

    /// A line as it stands.
    ///
    /// # Errors
    /// If nobody reads it.
    pub fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.output, "{text}")
    }

    /// A line of words, broken where it is too long.
    ///
    /// # Errors
    /// If nobody reads it.
    pub fn words(&mut self, text: &str) -> io::Result<()> {
        let text = inline(text, self.look.styled);
        let text = self.broken(&text, "", "");
        self.line(&text)
    }

    /// A heading.
    ///
    /// # Errors
    /// If nobody reads it.
    pub fn strong(&mut self, text: &str) -> io::Result<()> {
        let text = self.broken(text, "", "");
        let text = self.styled(STRONG, &text);
        self.line(&text)
    }

    /// What one need not read.
    ///
    /// # Errors
    /// If nobody reads it.
    pub fn faint(&mut self, text: &str) -> io::Result<()> {
        let text = self.broken(text, "", "");
        let text = self.styled(FAINT, &text);
        self.line(&text)
    }

    /// An item, whose further lines stand below its first word.
    ///
    /// # Errors
    /// If nobody reads it.
    pub fn item(&mut self, mark: &str, text: &str) -> io::Result<()> {
        self.hanging(&format!("  {mark} "), text)
    }

    /// Text whose further lines stand below the first word after `first`.
    fn hanging(&mut self, first: &str, text: &str) -> io::Result<()> {
        let next = " ".repeat(first.chars().count());
        let text = inline(text, self.look.styled);
        let text = self.broken(&text, first, &next);
        self.line(&text)
    }

    /// Markdown; paragraphs and items are broken, code and tables are not.
    ///
    /// # Errors
    /// If nobody reads it.
    pub fn markdown(&mut self, text: &str) -> io::Result<()> {
        let mut in_code = false;
        for line in text.lines() {
            let fence = line.trim_start().starts_with("```");
            in_code ^= fence;
            if in_code || fence || line.starts_with("    ") || line.starts_with('|') {
                self.line(line)?;
            } else {
                let (mark, text) = line.split_at(mark(line));
                self.hanging(mark, text)?;
            }
        }
        Ok(())
    }

    /// Code with the numbers of its lines.
    ///
    /// # Errors
    /// If nobody reads it.
    pub fn numbered(&mut self, code: &str) -> io::Result<()> {
        for (index, line) in code.lines().enumerate() {
            let line = format!("{:>4}  {line}", index + 1);
            self.line(line.trim_end())?;
        }
        Ok(())
    }

    /// Asks for a line; none where the input has ended.
    ///
    /// # Errors
    /// If nobody reads the prompt, or the line cannot be read.
    pub fn ask(&mut self, prompt: &str) -> io::Result<Option<String>> {
        let prompt = self.broken(&format!("{prompt}>"), "", "");
        write!(self.output, "{prompt} ")?;
        self.output.flush()?;
        let mut bytes = Vec::new();
        let end = self.input.read_until(b'\n', &mut bytes)? == 0;
        let typed = String::from_utf8_lossy(&bytes);
        let typed = typed.trim_end_matches(['\n', '\r']).to_owned();
        // A terminal shows what is typed, and its end of line; at the end of the input nobody has ended the line.
        if end {
            self.line("")?;
        } else if self.look.echo {
            self.line(&typed)?;
        }
        Ok((!end).then_some(typed))
    }

    fn styled(&self, style: Style, text: &str) -> String {
        if self.look.styled {
            format!("{style}{text}{style:#}")
        } else {
            text.to_owned()
        }
    }

    fn broken(&self, text: &str, first: &str, next: &str) -> String {
        match self.look.width {
            Some(width) => {
                let options = textwrap::Options::new(width)
                    .initial_indent(first)
                    .subsequent_indent(next)
                    // `drill prove mock-256-kib` is to be copied from one line.
                    .word_splitter(textwrap::WordSplitter::NoHyphenation)
                    .break_words(false);
                textwrap::fill(text, options)
            }
            None => format!("{first}{text}"),
        }
    }
}

/// `1 question`, `2 questions`.
pub fn counted(count: usize, thing: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {thing}{plural}")
}

/// How long the mark of an item is, `- ` or `12. `, with what stands before it.
fn mark(line: &str) -> usize {
    let text = line.trim_start();
    let digits = text.len()
        - text
            .trim_start_matches(|letter: char| letter.is_ascii_digit())
            .len();
    let after = &text[digits..];
    let own = match digits {
        0 if after.starts_with("- ") => 2,
        1.. if after.starts_with(". ") => digits + 2,
        _ => return 0,
    };
    line.len() - text.len() + own
}

/// Markdown's marks inside a line: of a link the words are left, and what is bold is bold where anything is styled.
fn inline(text: &str, styled: bool) -> String {
    let mut told = String::new();
    let mut code = false;
    let mut bold = false;
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        if !code && let Some(after) = rest.strip_prefix("**") {
            bold = !bold;
            told += &match (styled, bold) {
                (false, _) => "**".to_owned(),
                (true, true) => STRONG.to_string(),
                (true, false) => format!("{STRONG:#}"),
            };
            rest = after;
            continue;
        }
        if !code && let Some((words, after)) = link(rest) {
            told += &inline(words, styled);
            rest = after;
            continue;
        }
        code ^= letter == '`';
        told.push(letter);
        rest = &rest[letter.len_utf8()..];
    }
    if bold && styled {
        told += &format!("{STRONG:#}");
    }
    told
}

/// The words of a link at the beginning, and what stands after it.
fn link(text: &str) -> Option<(&str, &str)> {
    let (words, after) = text.strip_prefix('[')?.split_once("](")?;
    let (_, after) = after.split_once(')')?;
    (!words.contains('[')).then_some((words, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_link_the_words_are_left() {
        let text = "A [`map`](a.md#b), `[b](c)`, [0, 0] and **one**.";
        assert_eq!(
            inline(text, false),
            "A `map`, `[b](c)`, [0, 0] and **one**."
        );
        let styled = inline(text, true);
        assert!(styled.ends_with("and \x1b[1mone\x1b[0m."), "{styled:?}");
    }

    #[test]
    fn lines_are_broken_between_words_only() {
        let (mut input, mut output) = (&b""[..], Vec::new());
        let look = Look {
            width: Some(30),
            ..Look::default()
        };
        let mut terminal = Terminal::new(&mut input, &mut output, look);
        terminal
            .item("-", "run `drill prove mock-256-kib` now")
            .expect("room");
        terminal
            .markdown("- one two three four five six seven")
            .expect("room");
        terminal
            .ask("Which of them all? The letters of it")
            .expect("room");
        let told = "  - run `drill prove\n    mock-256-kib` now\n- one two three four five six\n  seven\nWhich of them all? The letters\nof it> \n";
        assert_eq!(String::from_utf8_lossy(&output), told);
    }

    #[test]
    fn an_items_mark_ends_before_its_words() {
        let marks = ["- a", "12. a", "  - a", "12 pages", "-1 is", "a"].map(mark);
        assert_eq!(marks, [2, 4, 4, 0, 0, 0]);
    }
}
