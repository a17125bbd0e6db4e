//! Makes control characters visible. The workbook's command also includes this module.

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
}
