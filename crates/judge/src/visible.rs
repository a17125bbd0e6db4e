//! Prepares texts for display. The workbook's command also includes this module.

/// `text` with control characters made visible, so that a terminal shows what was printed and does not obey it:
/// `\u{1b}[2J` for an escape sequence. Tabs and line ends stay.
pub fn visible(text: &str) -> String {
    let mut visible = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\t' | '\n' => visible.push(character),
            _ if character.is_control() || is_invisible(character) => {
                visible.extend(character.escape_default());
            }
            _ => visible.push(character),
        }
    }
    visible
}

/// The beginning of a long text: its first lines, and the beginning of each.
pub fn beginning(text: &str) -> String {
    const LINES: usize = 1000;
    const WIDEST: usize = 500; // in bytes
    let mut lines = text.split_inclusive('\n');
    let mut shown = String::new();
    for line in lines.by_ref().take(LINES) {
        let start = &line[..line.floor_char_boundary(WIDEST)];
        shown += start;
        if start.len() < line.len() {
            shown += "…\n";
        }
    }
    match lines.count() {
        0 => shown,
        more => format!("{shown}({more} more lines)\n"),
    }
}

/// Characters that change how their neighbours are displayed: directions of text, zero width, tags, and separators that
/// some terminals take for line ends.
fn is_invisible(character: char) -> bool {
    matches!(
        character,
        '\u{ad}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_made_visible() {
        assert_eq!(
            visible("a\u{1b}[31mb\r\u{7}\u{9b}2J\u{202e}c\u{7f}\0"),
            r"a\u{1b}[31mb\r\u{7}\u{9b}2J\u{202e}c\u{7f}\u{0}"
        );
        assert_eq!(visible("é\t→\n"), "é\t→\n");
    }

    #[test]
    fn only_a_long_text_is_cut() {
        let lines = |count| -> String { (0..count).map(|line| format!("{line}\n")).collect() };
        for short in ["", "a", "a\n\nb\n", &lines(1000)] {
            assert_eq!(beginning(short), short);
        }
        assert_eq!(beginning(&lines(1002)), lines(1000) + "(2 more lines)\n");
        let wide = "é".repeat(300) + "\nb";
        assert_eq!(beginning(&wide), "é".repeat(250) + "…\nb");
    }
}
