//! The terminal: the only file of a program that prints or asks.
//!
//! - Data goes to stdout: cards, tables, JSON, locators. Nothing else does.
//! - What is for people goes to stderr: notes (not with `--quiet`), warnings, errors.
//! - Questions go to the controlling terminal and are answered there, so that stdin and stdout may be pipes. Where there is none, a question
//!   is an error that says how to do without.
//! - Colour only where stdout is a terminal, `NO_COLOR` is not set and `TERM` is not `dumb`, and only of words that say the same without it. The cursor moves to the start of a line
//!   that is written over, and to the screen's first one for a page that is ([`Terminal::redraw`]), on a terminal. Text that came from a token or a file is
//!   shown without its control characters.

mod prompt;
mod wrap;

use std::fs::OpenOptions;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::error::{Error, ErrorKind, ExitCode, Result};
use crate::secret::SecretString;
use serde::Serialize;

#[cfg(feature = "cli")]
pub(super) use prompt::{Before, SLICE, Signals, interrupted};
pub use prompt::{interrupts_are_handled, prompts_are_over};
pub use wrap::{COLUMNS, wrapped};

/// Longest line that is read from the terminal, in bytes.
const MAX_ANSWER: u64 = 1024;

/// Where this process's people are.
#[derive(Clone, Copy)]
pub struct Terminal {
    program: &'static str,
    json: bool,
    quiet: bool,
}

impl Terminal {
    /// For the program of that name. `json`: results and errors are lines of JSON. `quiet`: no notes.
    pub fn new(program: &'static str, json: bool, quiet: bool) -> Self {
        Self { program, json, quiet }
    }

    /// Whether results and errors are lines of JSON.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Writes a command's result: `text` for people, or `value` as one line of JSON.
    pub fn result(&self, text: &str, value: &impl Serialize) -> Result<()> {
        if self.json {
            let line = serde_json::to_string(value).map_err(|error| {
                let hint = "Report this as a bug of claviger.";
                Error::new(ErrorKind::Internal, format!("The result could not be written as JSON: {error}."), hint)
            })?;
            self.data(format!("{line}\n").as_bytes())
        } else {
            self.data(printable(text).as_bytes())
        }
    }

    /// Writes bytes to stdout as they are.
    pub fn data(&self, bytes: &[u8]) -> Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(|error| {
            let hint = "Check where the output goes: a full disk, or a pipe whose reader ended.";
            Error::new(ErrorKind::Io, format!("Could not write to stdout: {error}."), hint).because(error)
        })
    }

    /// The columns of the terminal that stdout is; those of a usual one where it is none.
    pub fn columns(&self) -> usize {
        columns(&io::stdout()).unwrap_or(COLUMNS)
    }

    /// Whether what is written to stdout may have colours.
    pub fn has_colours(&self) -> bool {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        !set("NO_COLOR") && !dumb && rustix::termios::isatty(io::stdout())
    }

    /// Writes a page to stdout: on a terminal in place of what stands there, as much of it as has room; elsewhere below it.
    ///
    /// # Errors
    /// As [`data`](Self::data).
    pub fn redraw(&self, page: &str) -> Result<()> {
        let stdout = io::stdout();
        let size = rustix::termios::isatty(&stdout).then(|| rustix::termios::tcgetwinsize(&stdout).ok()).flatten();
        let Some(size) = size else { return self.data(format!("{page}\n").as_bytes()) };
        // The last line is left to the cursor.
        let rows = if size.ws_row == 0 { usize::MAX } else { usize::from(size.ws_row).saturating_sub(1).max(1) };
        let lines: Vec<&str> = page.lines().collect();
        let mut shown = String::from("\x1b[H");
        for line in lines.iter().take(if lines.len() > rows { rows - 1 } else { rows }) {
            shown.push_str(line);
            shown.push_str("\x1b[K\n");
        }
        if lines.len() > rows {
            shown.push_str(&format!("({} more lines)\x1b[K\n", lines.len() - (rows - 1)));
        }
        shown.push_str("\x1b[J");
        self.data(shown.as_bytes())
    }

    /// Something worth knowing.
    pub fn note(&self, text: &str) {
        if !self.quiet && !self.json {
            to_stderr(text);
        }
    }

    /// Something that must be known.
    pub fn warn(&self, text: &str) {
        if self.json {
            json_line(&Line::Warning { message: text });
        } else {
            to_stderr(&format!("Warning: {text}"));
        }
    }

    /// Something that somebody is to do now, or to wait for: touch a token. Also with `--quiet`.
    pub fn request(&self, text: &str) {
        if self.json {
            json_line(&Line::Request { message: text });
        } else {
            to_stderr(text);
        }
    }

    /// The two sentences of an error, or its JSON line.
    pub fn error(&self, error: &Error) {
        if self.json {
            let (message, cause) = (&error.to_string(), error.cause());
            json_line(&Line::Error {
                kind: error.kind().as_str(),
                message,
                hint: error.hint(),
                cause: cause.as_deref(),
            });
        } else {
            to_stderr(&format!("{}: {error} {}", self.program, error.hint()));
            if let Some(cause) = error.cause() {
                to_stderr(&format!("  cause: {cause}"));
            }
        }
    }

    /// What clap has to say: help and version on stdout, misuse on stderr.
    pub fn usage(program: &'static str, error: &clap::Error) -> ExitCode {
        let text = error.render().to_string();
        if !error.use_stderr() {
            let shown = Self::new(program, false, false).data(text.as_bytes());
            return if shown.is_ok() { ExitCode::Success } else { ExitCode::Failure };
        }
        if std::env::args_os().any(|argument| argument == "--json") {
            let message = misuse(error.kind(), &text);
            let hint = format!("See `{program} --help`.");
            json_line(&Line::Error { kind: "misuse", message: &message, hint: &hint, cause: None });
        } else {
            to_stderr(text.trim_end());
        }
        ExitCode::Misuse
    }

    /// Shows `text` and asks for a line on the controlling terminal; `otherwise` says how to do without one. The answer is trimmed.
    ///
    /// # Errors
    /// `Declined` where there is no terminal, or it ended.
    pub fn ask(&self, text: &str, otherwise: &str) -> Result<String> {
        let refused = |what: &str| Error::new(ErrorKind::Declined, what, otherwise);
        let open = OpenOptions::new().read(true).write(true).open("/dev/tty");
        let mut tty = open.map_err(|error| refused("There is no terminal to ask on.").because(error))?;
        let failed = |error: io::Error| refused("The terminal could not be read.").because(error);
        let text = for_screen(text, &tty);
        tty.write_all(text.as_bytes()).map_err(failed)?;
        let mut answer = String::new();
        let read = BufReader::new(tty.take(MAX_ANSWER)).read_line(&mut answer).map_err(failed)?;
        if read == 0 {
            return Err(refused("Nothing was answered."));
        }
        Ok(answer.trim().to_owned())
    }

    /// Asks for a secret without showing what is typed, for at most `time`. `None`: there is no terminal, it ended, or the time was up.
    ///
    /// # Errors
    /// `Interrupted`, after the terminal's echo was restored.
    pub fn secret(&self, text: &str, time: Option<Duration>) -> Result<Option<SecretString>> {
        self.prompt(text, true, time)
    }

    /// The same, and what is typed is shown.
    ///
    /// # Errors
    /// As [`secret`](Self::secret).
    pub fn answer(&self, text: &str, time: Option<Duration>) -> Result<Option<String>> {
        Ok(self.prompt(text, false, time)?.map(|answer| answer.trim().to_owned()))
    }

    fn prompt(&self, text: &str, secret: bool, time: Option<Duration>) -> Result<Option<SecretString>> {
        end_line();
        Ok(match prompt::ask(text, secret, time)? {
            prompt::Answer::Given(secret) => Some(secret),
            prompt::Answer::Nobody => None,
            prompt::Answer::Late => {
                self.warn("Nobody answered in time.");
                None
            }
        })
    }

    /// Something that lasts, such as the wait for a touch, also with `--quiet`: on a terminal one line that is written over until `last`,
    /// elsewhere a line when it begins and one when it ends. Nothing with `--json`, where it is an event.
    pub fn progress(&self, text: &str, first: bool, last: bool) {
        if self.json {
            return;
        }
        let mut stderr = io::stderr().lock();
        let Some(columns) = columns(&stderr) else {
            if first || last {
                let _ = writeln!(stderr, "{}", one_line(text));
            }
            return;
        };
        let text = shortened(&one_line(text), columns.saturating_sub(1));
        let before = OPEN_LINE.swap(if last { 0 } else { text.chars().count() }, Ordering::SeqCst);
        let end = if last { "\n" } else { "" };
        let _ = write!(stderr, "\r{text:before$}{end}").and_then(|()| stderr.flush());
    }
}

/// What a word's colour says besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tint {
    /// Nothing.
    Plain,
    /// It is as it should be.
    Good,
    /// It is not, and may become so.
    Warning,
    /// It is not.
    Bad,
}

impl Tint {
    /// `text` in the colour, for a terminal (ECMA-48, 8.3.117).
    pub fn paint(self, text: &str) -> String {
        let colour = match self {
            Self::Plain => return text.to_owned(),
            Self::Good => 32,
            Self::Warning => 33,
            Self::Bad => 31,
        };
        format!("\x1b[{colour}m{text}\x1b[0m")
    }
}

/// What clap says is wrong, on one line: the names of what is missing stand below its first.
fn misuse(kind: clap::error::ErrorKind, text: &str) -> String {
    if kind == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return "a command, or an argument of it, is missing".into();
    }
    let what = text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ");
    what.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// At most `width` characters: a line that wraps could not be written over. What is left out is in the middle, for how much time is left, and how it ended, stand last.
fn shortened(text: &str, width: usize) -> String {
    let length = text.chars().count();
    if length <= width {
        return text.to_owned();
    }
    let last = width / 3;
    let head = text.chars().take(width.saturating_sub(last + 1));
    head.chain(['…']).chain(text.chars().skip(length - last)).take(width).collect()
}

/// How many characters of a line that will be written over stand on stderr.
static OPEN_LINE: AtomicUsize = AtomicUsize::new(0);

/// What comes next on stderr begins on a line of its own.
fn end_line() {
    if OPEN_LINE.swap(0, Ordering::SeqCst) > 0 {
        let _ = writeln!(io::stderr().lock());
    }
}

/// The width of what is a terminal.
fn columns(to: &impl AsFd) -> Option<usize> {
    if !rustix::termios::isatty(to) {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(to).ok()?;
    Some(if size.ws_col == 0 { COLUMNS } else { size.ws_col.into() })
}

/// stderr for a program's log: never in the middle of a line.
pub struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        end_line();
        io::stderr().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// A line on stderr with `--json`. `kind` is an [`ErrorKind`]'s text, or `misuse`.
#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Line<'a> {
    Error {
        kind: &'a str,
        message: &'a str,
        hint: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        cause: Option<&'a str>,
    },
    Warning {
        message: &'a str,
    },
    Request {
        message: &'a str,
    },
}

fn json_line(line: &Line<'_>) {
    end_line();
    // Strings are always written.
    let text = serde_json::to_string(line).unwrap_or_default();
    let _ = writeln!(io::stderr().lock(), "{}", printable(&text));
}

/// stderr that can not be written to leaves nobody to tell.
fn to_stderr(text: &str) {
    end_line();
    let mut stderr = io::stderr().lock();
    let text = for_screen(text, &stderr);
    let _ = writeln!(stderr, "{text}");
}

/// What may be shown, broken between words where it is for a terminal.
fn for_screen(text: &str, to: &impl AsFd) -> String {
    let text = printable(text);
    columns(to).map_or_else(|| text.clone(), |columns| wrap::fitted(&text, columns))
}

/// Without what a terminal would act on. Line feeds stay.
fn printable(text: &str) -> String {
    let acts = |c: char| {
        (c.is_control() && c != '\n')
            // Marks that reorder or hide what stands beside them (Unicode, UAX 9 and category Cf).
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    text.chars().map(|c| if acts(c) { '\u{fffd}' } else { c }).collect()
}

/// A name that a device or a file gave itself, so that it can not pretend to be several lines.
pub fn one_line(text: &str) -> String {
    printable(&text.replace('\n', "\u{fffd}"))
}

/// A path for people.
pub fn shown(path: &Path) -> String {
    if path == Path::new("-") { "standard input".into() } else { path.display().to_string() }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_line_that_is_too_long_keeps_its_end() {
        let line = "cosigner wants to answer wallet-2: touch the token (YubiKey 12345678, PIV slot 9d), 14 s left";
        let short = super::shortened(line, 79);
        assert_eq!(short, "cosigner wants to answer wallet-2: touch the token (…8, PIV slot 9d), 14 s left");
        assert_eq!(short.chars().count(), 79);
        assert_eq!(super::shortened(line, 200), line);
        for width in 0..10 {
            assert_eq!(super::shortened(line, width).chars().count(), width);
        }
    }

    #[test]
    fn misuse_is_told_in_full() {
        let command = clap::Command::new("program").arg(clap::Arg::new("name").required(true).long("name")).subcommand(
            clap::Command::new("plan")
                .subcommand_required(true)
                .arg_required_else_help(true)
                .subcommand(clap::Command::new("check")),
        );
        let told = |arguments: &[&str]| {
            let error = command.clone().try_get_matches_from(arguments).unwrap_err();
            super::misuse(error.kind(), &error.render().to_string())
        };
        assert_eq!(told(&["program"]), "the following required arguments were not provided: --name <name>");
        assert_eq!(told(&["program", "--name", "x", "plan"]), "a command, or an argument of it, is missing");
        assert_eq!(told(&["program", "--nam", "x"]), "unexpected argument '--nam' found");
    }

    #[test]
    fn escape_sequences_are_not_passed_on() {
        assert_eq!(super::printable("a\u{202e}b\u{200b}c"), "a\u{fffd}b\u{fffd}c");
        assert_eq!(super::printable("a\u{1b}[2J\r\n\u{9b}b\tc"), "a\u{fffd}[2J\u{fffd}\n\u{fffd}b\u{fffd}c");
    }
}
