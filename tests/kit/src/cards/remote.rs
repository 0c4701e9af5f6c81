//! The cards of `scripts/cards`: one of each kind in a namespace where a person's command runs, handled from another terminal
//! over a Unix socket.
//!
//! A request is one line, `pull CARD`, `insert CARD`, `touch CARD` or `status`, and the answer one line or more, `ok` or `error`
//! and what there is to say.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;
use std::{fs, thread};

use super::{Card, Pcscd, namespace};
use crate::support;

/// The cards' names in requests.
pub const NAMES: [&str; 3] = ["openpgp", "piv", "yubikey"];
/// Longer than any request.
const MAX_LINE: u64 = 64;
/// How long an answer may take: pcscd must see what the hand does.
const LIMIT: Duration = Duration::from_secs(30);

/// Cargo's target directory has a place for the socket of those who name none.
pub fn default_dir() -> PathBuf {
    support::target_dir().join("cards-run")
}

/// Runs `command` beside pcscd and one card of each kind, and gives its exit code. Everything ends with it. Nobody touches a card but
/// by [`ask`].
///
/// # Errors
/// One sentence or two for the terminal: when `dir` is in use or cannot be used, or the command cannot be started.
pub fn run(dir: &Path, mut command: Command) -> Result<ExitCode, String> {
    support::private_dir(dir).map_err(|e| format!("could not make {}: {e}", dir.display()))?;
    let socket = dir.join("control");
    if UnixStream::connect(&socket).is_ok() {
        return Err(format!("cards are in use from {}. Name another directory by --dir.", dir.display()));
    }
    // Left by a run that was killed; a file that is not there is as good.
    let _ = fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket).map_err(|e| format!("could not listen on {}: {e}", socket.display()))?;
    let pcscd = Pcscd::start();
    let cards = [Card::openpgp(&pcscd, 7), Card::piv(&pcscd, 8), Card::yubikey(&pcscd, 12_345_678)];
    cards.iter().for_each(Card::touch_never);
    let lines = status(&cards);
    write!(io::stderr(), "{lines}").map_err(|e| format!("could not write to standard error: {e}"))?;
    let child = command.spawn().map_err(|e| format!("could not start {:?}: {e}", command.get_program()));
    let outcome = child.and_then(|mut child| {
        // Ends with the process, which is the first of its namespace.
        thread::spawn(move || listener.incoming().flatten().for_each(|stream| answer(&stream, &cards)));
        child.wait().map_err(|e| format!("could not wait for the command: {e}"))
    });
    let _ = fs::remove_file(&socket);
    Ok(outcome?.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

/// [`run`] in namespaces of its own; to be called first thing in a `main`.
pub fn isolated(run: impl FnOnce() -> ExitCode) -> ExitCode {
    namespace::main(run, |_, _| ())
}

/// Sends a request to the cards that [`run`] holds in `dir`; the answer without `ok`.
///
/// # Errors
/// One sentence or two: when no cards run there, or what the answer says.
pub fn ask(dir: &Path, request: &str) -> Result<String, String> {
    let socket = dir.join("control");
    let mut stream = UnixStream::connect(&socket)
        .map_err(|e| format!("no cards run in {}: {e}. Start them: scripts/cards run", dir.display()))?;
    let answer = (|| {
        stream.set_read_timeout(Some(LIMIT))?;
        writeln!(stream, "{request}")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map(|_| answer)
    })();
    let answer = answer.map_err(|e| format!("{request}: {e}"))?;
    match answer.split_once('\n').unwrap_or((&answer, "")) {
        ("ok", text) => Ok(text.to_owned()),
        (error, _) => Err(error.trim_start_matches("error ").to_owned()),
    }
}

fn answer(mut stream: &UnixStream, cards: &[Card; 3]) {
    let mut line = String::new();
    let read =
        stream.set_read_timeout(Some(LIMIT)).and_then(|()| BufReader::new(stream.take(MAX_LINE)).read_line(&mut line));
    if read.is_err() {
        return;
    }
    let reply = match obey(&line, cards) {
        Ok(text) => format!("ok\n{text}"),
        Err(text) => format!("error {text}\n"),
    };
    // Who has gone needs no answer.
    let _ = stream.write_all(reply.as_bytes());
}

fn obey(line: &str, cards: &[Card; 3]) -> Result<String, String> {
    let card = |name: &str| {
        let found = NAMES.iter().position(|known| *known == name).and_then(|index| cards.get(index));
        found.ok_or_else(|| format!("no card is called {name}; there are: {}", NAMES.join(", ")))
    };
    match line.split_whitespace().collect::<Vec<_>>()[..] {
        ["pull", name] => card(name)?.pull(),
        ["insert", name] => card(name)?.insert(),
        ["touch", name] => touch(card(name)?)?,
        ["status"] => return Ok(status(cards)),
        _ => return Err(format!("{:?} is no request", line.trim_end())),
    }
    Ok(String::new())
}

/// One touch of a card that asks for it.
fn touch(card: &Card) -> Result<(), String> {
    if !card.is_asking() {
        return Err("the card asks for no touch".into());
    }
    card.touch_now();
    let touched = support::poll(LIMIT, || (!card.is_asking()).then_some(()));
    card.touch_never();
    touched.ok_or_else(|| "the card did not feel it".into())
}

fn status(cards: &[Card; 3]) -> String {
    let line = |(name, card): (&&str, &Card)| {
        let asking = if card.is_asking() { "  asks for a touch" } else { "" };
        format!("{name:<8} {:<55} {} operations{asking}\n", card.locator(), card.operations())
    };
    NAMES.iter().zip(cards).map(line).collect()
}
