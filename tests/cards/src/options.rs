//! The options that every card has, and how to read a program's own.

use std::error::Error;
use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use lexopt::{Arg, Parser, ValueExt as _};

/// Every card's options.
#[derive(Debug, Clone)]
pub struct Common {
    /// `--port`: vpcd's port of the reader slot, on 127.0.0.1.
    pub port: u16,
    /// `--serial`: the card's serial number, decimal or 0x and hexadecimal.
    pub serial: u32,
    /// `--touch-timeout-ms`: how long the card waits for a touch; 15 s as real ones do.
    pub touch_timeout: Duration,
    /// `--garbage-seed`: where the nonsense starts; the serial number if not given.
    pub garbage_seed: u64,
}

/// Reads the options of the program: the common ones, and by `own` those that are its own. `own` is told the option's name
/// without dashes and gets its value from the parser; it says false to an option it does not know.
///
/// # Errors
/// One sentence for the terminal: an unknown option, a value that is missing or wrong, or no port or serial number.
pub fn read(mut own: impl FnMut(&str, &mut Parser) -> Result<bool, lexopt::Error>) -> Result<Common, lexopt::Error> {
    let mut parser = Parser::from_env();
    let (mut port, mut serial, mut seed, mut touch_timeout) = (None, None, None, Duration::from_secs(15));
    while let Some(argument) = parser.next()? {
        let Arg::Long(name) = argument else { return Err(argument.unexpected()) };
        let name = name.to_owned();
        match name.as_str() {
            "port" => port = Some(parser.value()?.parse()?),
            "serial" => serial = Some(parser.value()?.parse_with(number)?),
            "touch-timeout-ms" => touch_timeout = Duration::from_millis(parser.value()?.parse()?),
            "garbage-seed" => seed = Some(parser.value()?.parse()?),
            _ => {
                if !own(&name, &mut parser)? {
                    return Err(lexopt::Error::UnexpectedOption(format!("--{name}")));
                }
            }
        }
    }
    let missing = |option: &str| lexopt::Error::MissingValue { option: Some(option.into()) };
    let serial = serial.ok_or_else(|| missing("--serial"))?;
    let port = port.ok_or_else(|| missing("--port"))?;
    Ok(Common { port, serial, touch_timeout, garbage_seed: seed.unwrap_or(u64::from(serial)) })
}

/// A decimal number, or a hexadecimal one after 0x.
fn number(text: &str) -> Result<u32, std::num::ParseIntError> {
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    }
}

/// Says on the terminal why a program did not start.
pub fn report(program: &str, usage: &str, outcome: Result<(), Box<dyn Error>>) -> ExitCode {
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    let _ = writeln!(std::io::stderr(), "{program}: {error}\n{usage}");
    ExitCode::FAILURE
}

/// The bytes of a text of hexadecimal digits.
///
/// # Errors
/// When the text is not `N` bytes long or holds another character.
pub fn hex<const N: usize>(text: OsString) -> Result<[u8; N], lexopt::Error> {
    let read = |text: &str| {
        let mut bytes = [0; N];
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
        }
        (text.len() == 2 * N).then_some(bytes)
    };
    text.to_str().and_then(read).ok_or_else(|| format!("{text:?} is not {} hexadecimal digits", 2 * N).into())
}
