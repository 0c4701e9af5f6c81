//! `claviger log`: the log of connections.

use crate::cli::Cli;
use clap::Args;
use claviger::daemon::connections::{Chain, Entry, Filter, Head, Log as File};
use claviger::error::{Error, ErrorKind, Result};
use claviger::identity::{Fingerprint, Identifier};
use claviger::program::{COLUMNS, Terminal, one_line, store_dir, wrapped};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How often a followed log is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Looks in vain before a followed log is given up.
const PATIENCE: u32 = 20;

/// Entries that are shown when nobody says how many.
const USUAL: usize = 100;

#[derive(Args)]
#[command(after_help = "\
Examples:
  claviger log                          the newest 100 entries
  claviger log --since 2h --failed      what went wrong in the last two hours
  claviger log --peer wallet --follow   what wallet does, until interrupted
  claviger log --json --limit 0 | jq -r 'select(.event == \"attempt\") | .reason'
  claviger log --head                   number and hash of the last entry, to be noted elsewhere
  claviger log --verify --noted 812:9f2c…   whether the log holds, and still has what was noted

Works whether or not the daemon runs, and needs no token. Times are UTC. Strangers, and peers that come very often, are counted together.")]
pub(crate) struct Log {
    /// Only of the last while: 90s, 30m, 2h, 7d
    #[arg(long, value_name = "TIME", value_parser = ago)]
    since: Option<Duration>,

    /// Only about this peer
    #[arg(long, value_name = "NAME")]
    peer: Option<Identifier>,

    /// Only what went wrong
    #[arg(long)]
    failed: bool,

    /// At most so many entries, the newest; 0: all [default: 100, or all with --since]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,

    /// Go on with what comes, until interrupted
    #[arg(long)]
    follow: bool,

    /// Walk the whole chain of hashes and say whether it holds
    #[arg(long, conflicts_with_all = ["since", "peer", "failed", "limit", "follow", "head"])]
    verify: bool,

    /// A head that was noted earlier, as --head printed it: NUMBER:HASH
    #[arg(long, value_name = "HEAD", requires = "verify", value_parser = head)]
    noted: Option<Head>,

    /// Print the number and hash of the last entry: whoever notes them elsewhere can tell later whether everything before is as it was
    #[arg(long, conflicts_with_all = ["since", "peer", "failed", "limit", "follow"])]
    head: bool,
}

/// A time from a second to ten years.
fn ago(text: &str) -> std::result::Result<Duration, String> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let unit = match unit {
        "s" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => 0,
    };
    let seconds = number.parse::<u64>().unwrap_or(0).saturating_mul(unit);
    let known = (1..=10 * 366 * 86_400).contains(&seconds);
    known
        .then(|| Duration::from_secs(seconds))
        .ok_or_else(|| "a time is a number and s, m, h or d, as in 2h".to_owned())
}

fn head(text: &str) -> std::result::Result<Head, String> {
    let wrong =
        || "a head is a number, a colon and 64 hexadecimal digits, as `claviger log --head` prints it".to_owned();
    let (sequence, hash) = text.split_once(':').ok_or_else(wrong)?;
    let hash = data_encoding::HEXLOWER_PERMISSIVE.decode(hash.as_bytes()).map_err(|_| wrong())?;
    Ok(Head { sequence: sequence.parse().map_err(|_| wrong())?, hash: hash.try_into().map_err(|_| wrong())? })
}

fn spelled(head: &Head) -> String {
    format!("{}:{}", head.sequence, data_encoding::HEXLOWER.encode(&head.hash))
}

/// The leading bits of a hash, to be read aloud.
fn words(head: &Head) -> String {
    let mut leading = [0; 16];
    leading.copy_from_slice(&head.hash[..16]);
    Fingerprint::from_bytes(leading).words()
}

pub(crate) fn run(cli: &Cli, options: &Log, terminal: &Terminal) -> Result<()> {
    let dir = directory(cli)?;
    let log = File::open(&dir)?;
    if options.head {
        return print_head(&log.head()?, terminal);
    }
    if options.verify {
        let (chain, noted) = log.verify(options.noted)?;
        return verdict(&chain, options.noted, noted, terminal);
    }
    show(&dir, &log, options, terminal)
}

/// As for the daemon: its file may name the store.
fn directory(cli: &Cli) -> Result<PathBuf> {
    if cli.store.is_some() || cli.config.is_none() {
        return store_dir(cli.store.as_deref());
    }
    crate::run::configuration(cli).map(|(dir, _)| dir)
}

fn print_head(head: &Head, terminal: &Terminal) -> Result<()> {
    let value = json!({
        "sequence": head.sequence,
        "hash": data_encoding::HEXLOWER.encode(&head.hash),
        "words": words(head),
    });
    terminal.result(&format!("{}\n{}\n", spelled(head), words(head)), &value)
}

fn verdict(chain: &Chain, noted: Option<Head>, found: Option<bool>, terminal: &Terminal) -> Result<()> {
    let Chain { anchor, head, flaw } = chain;
    let damaged = |what: String| {
        Error::new(
            ErrorKind::StoreTampered,
            what,
            "Keep a copy of `connections.db` to be looked into; the daemon sets it aside and begins a new log when it starts.",
        )
    };
    if let Some((sequence, how)) = flaw {
        return Err(damaged(format!("The log of connections was changed: entry {sequence} {how}.")));
    }
    if let Some(noted) = noted.filter(|_| found == Some(false)) {
        return Err(damaged(format!(
            "The log of connections was changed: entry {} is not the one that was noted.",
            noted.sequence
        )));
    }
    if let Some(noted) = noted.filter(|noted| noted.sequence > head.sequence) {
        let what =
            format!("The log of connections ends with entry {}, and {} was noted.", head.sequence, noted.sequence);
        return Err(damaged(what));
    }
    // Whoever can write the file can have it begin after what was noted: then it says nothing.
    if let Some(noted) = noted.filter(|_| found != Some(true)) {
        return Err(Error::new(
            ErrorKind::NotWell,
            format!(
                "The log of connections holds in itself, and begins after entry {}, which was noted: that one was pruned, or another log was put in this one's place.",
                noted.sequence
            ),
            "Note the head more often than the log is pruned, or keep more entries: `connections` under [log].",
        ));
    }
    let holds = match head.sequence - anchor.sequence {
        0 => "The log is empty.".to_owned(),
        1 => format!("The log holds: entry {}.", head.sequence),
        _ => format!("The log holds: entries {} to {}.", anchor.sequence + 1, head.sequence),
    };
    let noted_too =
        noted.map_or_else(String::new, |noted| format!(" Entry {} is the one that was noted.", noted.sequence));
    let value = json!({
        "first": anchor.sequence + 1,
        "last": head.sequence,
        "hash": data_encoding::HEXLOWER.encode(&head.hash),
        "noted": noted.map(|_| "found"),
    });
    let text = wrapped(&format!("{holds}{noted_too}"), 0, COLUMNS).join("\n");
    terminal.result(&format!("{text}\nHead: {}\n", spelled(head)), &value)
}

#[allow(clippy::disallowed_methods, reason = "another process writes the file, and says so to nobody")]
fn show(dir: &Path, log: &File, options: &Log, terminal: &Terminal) -> Result<()> {
    let since = options.since.map_or(0, |since| {
        let since = SystemTime::now().checked_sub(since).and_then(|since| since.duration_since(UNIX_EPOCH).ok());
        since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    });
    let usual = if options.since.is_some() { usize::MAX } else { USUAL };
    let mut filter = Filter {
        after: 0,
        since,
        peer: options.peer.as_ref().map(ToString::to_string),
        failed: options.failed,
        limit: options.limit.map_or(usual, |limit| if limit == 0 { usize::MAX } else { limit }),
    };
    let mut last = log.head()?;
    let mut entries = log.entries(&filter)?;
    if options.follow {
        // What comes while they are read is seen the next time.
        entries.retain(|entry| entry.sequence <= last.sequence);
    }
    if entries.is_empty() && !options.follow {
        terminal.note("No entry fits.");
    }
    print(&entries, terminal)?;
    if options.follow {
        (filter.limit, filter.since) = (usize::MAX, 0);
        let mut failures = 0;
        loop {
            std::thread::sleep(LOOK);
            // Opened anew: the daemon may have begun another one, whose first entry says why. Until it has, there is something else, or nothing.
            let entries = match came(dir, &filter, &mut last) {
                Err(_) if failures < PATIENCE => {
                    failures += 1;
                    continue;
                }
                entries => entries?,
            };
            failures = 0;
            print(&entries, terminal)?;
        }
    }
    Ok(())
}

/// What came after `last`, in a log that may be another one.
fn came(dir: &Path, filter: &Filter, last: &mut Head) -> Result<Vec<Entry>> {
    let log = File::open(dir)?;
    let after = if log.goes_on_from(last)? { last.sequence } else { 0 };
    let head = log.head()?;
    if head == *last {
        return Ok(Vec::new());
    }
    let mut entries = log.entries(&Filter { after, ..filter.clone() })?;
    // What comes while these are read is seen the next time.
    entries.retain(|entry| entry.sequence <= head.sequence);
    *last = head;
    Ok(entries)
}

fn print(entries: &[Entry], terminal: &Terminal) -> Result<()> {
    let mut text = String::new();
    for entry in entries {
        if terminal.is_json() {
            text.push_str(&value(entry).to_string());
        } else {
            text.push_str(&line(entry));
        }
        text.push('\n');
    }
    terminal.data(text.as_bytes())
}

/// What was written, with where it stands.
fn value(entry: &Entry) -> Value {
    let mut value: Value = serde_json::from_str(&entry.text).unwrap_or_default();
    if let Value::Object(fields) = &mut value {
        fields.insert("sequence".into(), entry.sequence.into());
        fields.insert("time".into(), entry.date.clone().into());
        fields.insert("hash".into(), data_encoding::HEXLOWER.encode(&entry.hash).into());
    }
    value
}

fn line(entry: &Entry) -> String {
    let date = entry.date.get(..19).unwrap_or(&entry.date).replace('T', " ");
    let what = entry.event.as_ref().map_or_else(|| entry.text.clone(), ToString::to_string);
    let first = format!("{date}  ");
    wrapped(&format!("{first}{}", one_line(&what)), first.chars().count(), COLUMNS).join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_heads() {
        assert_eq!(ago("2h"), Ok(Duration::from_secs(7200)));
        for wrong in ["", "2", "h", "0s", "11000d", "-1s", "1.5h", "2w"] {
            assert!(ago(wrong).is_err(), "{wrong}");
        }
        let noted = Head { sequence: 812, hash: [0x9f; 32] };
        assert_eq!(head(&spelled(&noted)), Ok(noted));
        for wrong in ["", "812", "812:9f", ":", &format!("x:{}", "00".repeat(32)), &format!("1:{}", "00".repeat(33))] {
            assert!(head(wrong).is_err(), "{wrong}");
        }
        assert_eq!(words(&noted).split(' ').count(), 8);
    }
}
