//! Lines that fit a screen.

/// Columns of a terminal, unless it says otherwise.
pub const COLUMNS: usize = 80;

/// A terminal that is narrower breaks lines itself.
const NARROW: usize = 20;

/// `text` in lines of at most `columns` characters, broken between words. A line feed begins a line, too. Every line but the first begins
/// with `indent` blanks; what stands in the first line's first `indent` columns, and a word that is longer than a line, stay whole.
pub fn wrapped(text: &str, indent: usize, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for paragraph in text.split('\n') {
        let mut line = if lines.is_empty() { String::new() } else { " ".repeat(indent) };
        let mut words = paragraph.split(' ').peekable();
        if let Some(word) = words.next() {
            line.push_str(word);
        }
        while let Some(word) = words.next() {
            let length = line.chars().count();
            if length > indent && !line.trim().is_empty() && length + 1 + word.chars().count() > columns {
                lines.push(line.trim_end().to_owned());
                // The blanks at which a line is broken are not on the next one.
                let mut word = word;
                while let ("", Some(next)) = (word, words.peek()) {
                    word = next;
                    words.next();
                }
                line = " ".repeat(indent) + word;
            } else {
                line.push(' ');
                line.push_str(word);
            }
        }
        lines.push(line.trim_end().to_owned());
    }
    lines
}

/// `text` for a terminal of that many columns: lines that fit are as they were, the others are broken between words and as far indented.
pub(super) fn fitted(text: &str, columns: usize) -> String {
    if columns < NARROW {
        return text.to_owned();
    }
    let fit = |line: &str| {
        if line.chars().count() <= columns {
            return line.to_owned();
        }
        let indent = line.chars().take_while(|c| *c == ' ').count();
        let blank = if line.ends_with(' ') { " " } else { "" };
        wrapped(line, indent.min(columns / 2), columns).join("\n") + blank
    };
    text.split('\n').map(fit).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_between_words() {
        assert_eq!(wrapped("a bc def\ng", 0, 4), ["a bc", "def", "g"]);
        assert_eq!(wrapped("abcdef gh", 0, 4), ["abcdef", "gh"]);
        assert_eq!(wrapped("[ ] one two three", 4, 11), ["[ ] one two", "    three"]);
        assert_eq!(wrapped("- a\nb", 2, 11), ["- a", "  b"]);
        assert_eq!(wrapped("a  ", 3, 80), ["a"]);
        assert_eq!(wrapped("one   two", 0, 5), ["one", "two"]);
        assert_eq!(wrapped("", 4, 80), [""]);
        let long = "x".repeat(100);
        assert_eq!(wrapped(&long, 0, 80), std::slice::from_ref(&long));
        let named = format!("  {:<14} {long}", "token");
        assert_eq!(wrapped(&named, 17, 80), [named]);
        let text = format!("  {:<14} {}", "token", "word ".repeat(30));
        let lines = wrapped(&text, 17, 80);
        assert!(lines.len() == 3 && lines.iter().all(|line| line.chars().count() <= 80), "{lines:?}");
        assert!(lines.iter().skip(1).all(|line| line.starts_with("                 word")), "{lines:?}");
        assert!(lines.join(" ").split_whitespace().eq(text.split_whitespace()));
    }

    #[test]
    fn what_fits_a_terminal_is_left_alone() {
        let rows = "  words   ······    stomach\n\n  a   b\nWord 1: ";
        assert_eq!(fitted(rows, 80), rows);
        assert_eq!(fitted("aaaaaaaaaa bbbbbbbbbb c: ", 20), "aaaaaaaaaa\nbbbbbbbbbb c: ");
        assert_eq!(fitted("  aaaaaaaaaa bbbbbbbbbb", 20), "  aaaaaaaaaa\n  bbbbbbbbbb");
        assert_eq!(fitted("a b c", 3), "a b c");
    }
}
