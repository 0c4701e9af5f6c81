//! Codes on a terminal: two modules a character, one code a screen.

use std::io::{IsTerminal, stdout};

use claviger::error::{Error, ErrorKind, Result};
use claviger::program::Terminal;
use qrcodegen::QrCode;

use super::{LARGEST, QUIET, codes, modules};

/// Black on white, whatever the terminal's colours are, from the 256 colours, which themes leave alone.
const INK: &str = "\x1b[38;5;16;48;5;231m";
const PLAIN: &str = "\x1b[0m";

/// Columns where the output is no terminal.
const COLUMNS: usize = 80;

/// So many codes are announced before the first.
const MANY: usize = 9;

/// Shows a text as QR codes: on a terminal as large as it has room for, one after the other at the person's word; elsewhere all at once, without colour, for a
/// dark background.
pub(crate) fn show(text: &str, terminal: &Terminal) -> Result<()> {
    if !stdout().is_terminal() {
        let all = codes([text], fitting(COLUMNS, usize::MAX / 2)?)?;
        let text: String = all.iter().map(|code| drawn(code, false) + "\n").collect();
        return terminal.data(text.as_bytes());
    }
    let size = rustix::termios::tcgetwinsize(stdout()).ok().filter(|size| size.ws_row > 0 && size.ws_col > 0);
    let (columns, rows) = size.map_or((COLUMNS, 24), |size| (size.ws_col.into(), size.ws_row.into()));
    // The question stands below the code.
    let all = codes([text], fitting(columns, rows - 1)?)?;
    let count = all.len();
    let otherwise = "Write a picture with `--png FILE`.";
    if count > MANY {
        let question = format!(
            "This terminal has room for {columns} columns and {rows} rows: that takes {count} QR codes, one after the other. They get fewer in a larger terminal \
             or with smaller letters; `--png FILE` draws them all at once.\nEnter to begin, q to end: "
        );
        if terminal.ask(&question, otherwise)? == "q" {
            return Err(stopped());
        }
    }
    let mut at = 0;
    while let Some(code) = all.get(at) {
        terminal.data(drawn(code, true).as_bytes())?;
        let question = match at + 1 {
            _ if count == 1 => "Enter when it is scanned: ".into(),
            last if last == count => format!("{last} of {count}. Enter when it is scanned, b for the one before: "),
            number => format!("{number} of {count}. Enter for the next, b for the one before, q to end: "),
        };
        match terminal.ask(&question, otherwise)?.as_str() {
            "b" => at = at.saturating_sub(1),
            "q" if at + 1 < count => return Err(stopped()),
            _ => at += 1,
        }
    }
    Ok(())
}

fn stopped() -> Error {
    Error::new(
        ErrorKind::Declined,
        "Not all QR codes were shown.",
        "Run it again, or write a picture with `--png FILE`.",
    )
}

/// The largest version whose codes fit.
fn fitting(columns: usize, rows: usize) -> Result<u8> {
    // The last row may hold one row of modules.
    let room = columns.min(rows * 2).saturating_sub(2 * QUIET);
    (1..=LARGEST).rev().find(|version| modules(*version) <= room).ok_or_else(|| {
        let what = "The terminal is too small for a QR code.";
        Error::new(ErrorKind::QrUnreadable, what, "Enlarge it, or write a picture with `--png FILE`.")
    })
}

/// A code in half blocks, with its quiet zone. Without `ink` light is what is printed, for a terminal that prints light on dark.
fn drawn(code: &QrCode, ink: bool) -> String {
    let quiet = QUIET as i32;
    let blocks = if ink { [" ", "▄", "▀", "█"] } else { ["█", "▀", "▄", " "] };
    let mut text = String::new();
    for y in (-quiet..code.size() + quiet).step_by(2) {
        text.push_str(if ink { INK } else { "" });
        for x in -quiet..code.size() + quiet {
            // Outside of the code every module is light.
            let dark = usize::from(code.get_module(x, y)) * 2 + usize::from(code.get_module(x, y + 1));
            text.push_str(blocks[dark]);
        }
        text.push_str(if ink { PLAIN } else { "" });
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_fits_its_screen() {
        for (columns, rows, version) in [(80, 23, 5), (80, 24, 5), (80, 50, 13), (300, 100, 25), (40, 100, 3)] {
            assert_eq!(fitting(columns, rows).unwrap(), version);
            for code in codes([&*"x".repeat(900)], version).unwrap() {
                let text = drawn(&code, false);
                assert!(text.lines().count() <= rows && text.lines().all(|line| line.chars().count() <= columns));
            }
        }
        assert!(fitting(80, 14).is_err() && fitting(28, 80).is_err() && fitting(29, 15).is_ok());
    }
}
