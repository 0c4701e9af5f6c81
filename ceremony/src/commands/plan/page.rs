//! Pages for people: text of 78 columns with form feeds between pages, or Markdown.

use std::fmt::Write as _;

use claviger::program;

use crate::cli::Format;

/// Columns of text.
const WIDTH: usize = 78;
/// Lines of a page of text: what A4 takes at ten points with margins.
const LINES: usize = 60;

/// Between pages in Markdown: for whoever reads it, and for a browser that prints it.
pub(crate) const PAGE_BREAK: &str = "<div style=\"page-break-after: always\"></div>\n\n---\n";

/// What is on a page, in order.
pub(crate) enum Block {
    /// A heading; it stays with what follows.
    Heading(&'static str),
    /// A paragraph.
    Text(String),
    /// Something to tick.
    Check(String),
    /// Something to do, and to tick.
    Step(Step),
    /// Rows under a head.
    Table(Vec<&'static str>, Vec<Vec<String>>),
    /// What is written by hand: lines of labels, each with room after it.
    Blanks(&'static [&'static [&'static str]]),
    /// What follows is on the next page, or overleaf.
    Break,
}

/// A step: numbered by the page that it is on.
#[derive(Default)]
pub(crate) struct Step {
    pub(crate) title: &'static str,
    pub(crate) text: String,
    pub(crate) commands: Vec<String>,
    /// Lines to write on.
    pub(crate) room: usize,
    /// What is said aloud.
    pub(crate) say: Option<String>,
    /// What to do when it does not come out so.
    pub(crate) otherwise: Option<String>,
}

/// A page, or several where one is too short.
pub(crate) struct Page {
    /// Names the file: `role-manager`.
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) blocks: Vec<Block>,
}

impl Page {
    pub(crate) fn render(&self, format: Format) -> String {
        match format {
            Format::Text => self.text(),
            Format::Markdown => self.markdown(),
        }
    }

    fn text(&self) -> String {
        let mut pages: Vec<Vec<String>> = vec![Vec::new()];
        let room = LINES - 2;
        for group in groups(&self.blocks) {
            let full = |page: &Vec<String>| group.first || page.len() + group.lines.len() > room;
            if pages.last().is_some_and(|page| full(page) && !page.is_empty()) {
                pages.push(group.head);
            }
            let page = pages.len() - 1;
            let blank = pages[page].is_empty() && group.lines.first().is_some_and(String::is_empty);
            pages[page].extend(group.lines.into_iter().skip(usize::from(blank)));
        }
        let count = pages.len();
        let texts = pages.iter().enumerate().map(|(at, lines)| {
            let number = if count > 1 { format!("{} of {count}", at + 1) } else { String::new() };
            let head = format!("{:<1$}{number}", self.title, WIDTH - number.len());
            format!("{}\n{}\n{}\n", head.trim_end(), "=".repeat(WIDTH), lines.join("\n"))
        });
        texts.collect::<Vec<_>>().join("\u{c}")
    }

    fn markdown(&self) -> String {
        let mut text = format!("# {}\n", self.title);
        let mut number = 0;
        for (at, block) in self.blocks.iter().enumerate() {
            // Items of one list stand together.
            let listed = matches!(block, Block::Check(_))
                && matches!(self.blocks.get(at.wrapping_sub(1)), Some(Block::Check(_)));
            text.push_str(if listed { "" } else { "\n" });
            match block {
                Block::Break => text += PAGE_BREAK,
                Block::Heading(heading) => text += &format!("## {heading}\n"),
                Block::Text(paragraph) => text += &format!("{paragraph}\n"),
                Block::Check(what) => text += &format!("- [ ] {what}\n"),
                Block::Step(step) => {
                    number += 1;
                    text += &step.markdown(number);
                }
                Block::Table(head, rows) => {
                    let _ = writeln!(text, "| {} |\n|{}", head.join(" | "), "---|".repeat(head.len()));
                    rows.iter().for_each(|row| text += &format!("| {} |\n", row.join(" | ")));
                }
                Block::Blanks(lines) => {
                    for (at, line) in lines.iter().enumerate() {
                        let labels: Vec<String> =
                            line.iter().map(|label| format!("{label} {}", "\\_".repeat(20))).collect();
                        text += &format!("{}{}\n", if at == 0 { "" } else { "\n" }, labels.join("  "));
                    }
                }
            }
        }
        text
    }
}

impl Step {
    fn markdown(&self, number: usize) -> String {
        let mut text = format!("- [ ] **{number}. {}.** {}\n", self.title, self.text);
        if !self.commands.is_empty() {
            text.push_str("\n  ```console\n");
            self.commands.iter().for_each(|command| text += &format!("  $ {command}\n"));
            text.push_str("  ```\n");
        }
        (0..self.room).for_each(|_| text += &format!("\n  {}\n", "\\_".repeat(60)));
        for (label, what) in [("Say", &self.say), ("If not", &self.otherwise)] {
            if let Some(what) = what {
                let _ = write!(text, "\n  *{label}:* {what}\n");
            }
        }
        text
    }

    fn lines(&self, number: usize) -> Vec<String> {
        let mut lines = wrapped(format!("[ ] {number:>2} {}. {}", self.title, self.text).trim_end(), 7);
        for command in &self.commands {
            lines.extend(command_lines(command));
        }
        (0..self.room).for_each(|_| lines.extend([String::new(), format!("       {}", "_".repeat(WIDTH - 7))]));
        for (label, what) in [("Say:", &self.say), ("If not:", &self.otherwise)] {
            if let Some(what) = what {
                lines.extend(wrapped(&format!("       {label} {what}"), 9));
            }
        }
        lines
    }
}

/// Lines that stay together, and what is repeated above them when they begin a page.
struct Group {
    lines: Vec<String>,
    head: Vec<String>,
    /// They begin a page.
    first: bool,
}

fn groups(blocks: &[Block]) -> Vec<Group> {
    let mut groups = Vec::new();
    let mut heading = Vec::new();
    let mut number = 0;
    let mut first = false;
    for (at, block) in blocks.iter().enumerate() {
        let mut lines = std::mem::take(&mut heading);
        match block {
            Block::Break => {
                first = true;
                continue;
            }
            Block::Heading(text) => {
                heading = vec![String::new(), text.to_uppercase()];
                continue;
            }
            Block::Text(text) => {
                if !matches!(blocks.get(at.wrapping_sub(1)), Some(Block::Heading(_))) && at > 0 {
                    lines.push(String::new());
                }
                lines.extend(wrapped(text, 0));
            }
            Block::Check(text) => lines.extend(wrapped(&format!("[ ] {text}"), 4)),
            Block::Step(step) => {
                number += 1;
                lines.extend(step.lines(number));
            }
            Block::Table(head, rows) => {
                let mut rows = table(head, rows).into_iter();
                let head = rows.next().unwrap_or_default();
                lines.extend(head.iter().cloned().chain(rows.next().unwrap_or_default()));
                groups.push(Group { lines, head: Vec::new(), first: std::mem::take(&mut first) });
                groups.extend(rows.map(|lines| Group { lines, head: head.clone(), first: false }));
                continue;
            }
            Block::Blanks(blanks) => {
                for line in *blanks {
                    let room = (WIDTH + 2) / line.len().max(1) - 2;
                    let labels: Vec<String> = line
                        .iter()
                        .map(|label| format!("{label} {}", "_".repeat(room.saturating_sub(label.len() + 1))))
                        .collect();
                    lines.extend([String::new(), labels.join("  ")]);
                }
            }
        }
        groups.push(Group { lines, head: Vec::new(), first: std::mem::take(&mut first) });
    }
    groups
}

/// The head, and the rows; the last column in several lines where it is too long for one.
fn table(head: &[&str], rows: &[Vec<String>]) -> Vec<Vec<String>> {
    let head: Vec<String> = head.iter().map(|cell| cell.to_uppercase()).collect();
    let all: Vec<&Vec<String>> = std::iter::once(&head).chain(rows).collect();
    let row = |row: &&Vec<String>| {
        let Some((last, first)) = row.split_last() else { return Vec::new() };
        let cells = first.iter().enumerate().map(|(column, cell)| {
            let width = all.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or(0);
            format!("{cell:<width$}  ")
        });
        let cells = cells.collect::<String>();
        let indent = cells.len();
        wrapped(&format!("{cells}{last}"), indent)
    };
    all.iter().map(row).collect()
}

/// `text` in lines of [`WIDTH`], those after the first indented.
fn wrapped(text: &str, indent: usize) -> Vec<String> {
    program::wrapped(text, indent, WIDTH)
}

/// A command, continued on further lines where it is too long: as a shell takes it.
fn command_lines(command: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = "       $".to_owned();
    for word in options(command) {
        if line.len() + 1 + word.len() > WIDTH - 2 {
            lines.push(format!("{line} \\"));
            line = " ".repeat(12);
        }
        line = format!("{line} {word}");
    }
    lines.push(line);
    lines
}

/// The pieces between which a command may be broken: an option stays with its value.
fn options(command: &str) -> Vec<String> {
    let mut pieces: Vec<String> = Vec::new();
    for word in command.split(' ') {
        match pieces.last_mut() {
            Some(last) if last.starts_with("--") && !last.contains(' ') && !word.starts_with("--") => {
                last.push(' ');
                last.push_str(word);
            }
            _ => pieces.push(word.to_owned()),
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_wrapped_and_commands_continued() {
        let text = wrapped(&format!("[ ] {}", "word ".repeat(40).trim_end()), 4);
        assert!(text.iter().all(|line| line.len() <= WIDTH) && text[1].starts_with("    word"));
        let lines = command_lines(&format!(
            "claviger-ceremony init --name manager-1 --plan plan.toml --token {}",
            "x".repeat(30)
        ));
        assert!(lines[0].ends_with(" \\") && lines.iter().all(|line| line.len() <= WIDTH), "{lines:?}");
        let whole: String = lines.join("\n").replace("\\\n", "");
        assert!(whole.split_whitespace().eq(
            format!("$ claviger-ceremony init --name manager-1 --plan plan.toml --token {}", "x".repeat(30)).split(' ')
        ));
    }

    #[test]
    fn what_does_not_fit_goes_on_a_page_of_its_own() {
        let rows = (0..100).map(|at| vec![format!("m-{at}")]).collect();
        let page = Page {
            name: "x".into(),
            title: "title".into(),
            blocks: vec![Block::Heading("all"), Block::Table(vec!["name"], rows)],
        };
        let text = page.render(Format::Text);
        let pages: Vec<&str> = text.split('\u{c}').collect();
        assert_eq!(pages.len(), 2);
        for (at, page) in pages.iter().enumerate() {
            assert!(page.lines().count() <= LINES);
            assert!(page.lines().next().is_some_and(|line| line.ends_with(&format!("{} of 2", at + 1))), "{page}");
            assert!(page.contains("\nNAME\nm-"), "the head is repeated: {page}");
        }
        assert!((0..100).all(|at| text.contains(&format!("\nm-{at}\n"))));
    }
}
