//! The command line of what happens after a ceremony: `seal`, `switch`, `revoke`, `expire`, `rotate`, `backup`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use claviger::ceremony::succession::MAX_OVERLAP;
use claviger::identity::{Identifier, KeyPlace};

use super::{OfferedKem, Output, parsed};

/// How long a key works beside the one that follows it, unless something else is said.
pub(crate) const OVERLAP: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// Longest time until a peer expires by `--in`: ten years.
const LONGEST: Duration = Duration::from_secs(10 * 366 * 24 * 60 * 60);

#[derive(Subcommand)]
pub(crate) enum Life {
    /// Seal the store to this machine's tokens, or verify the seal
    #[command(after_help = "\
Examples:
  claviger-ceremony seal                 an unsealed store, to the token in use
  claviger-ceremony seal --backup        to the other token, too
  claviger-ceremony seal --confirm cosigner
  claviger-ceremony seal --check

`init` seals. Whoever could write to an unsealed store could change it: what it holds is shown first, to be compared with the other \
machines, and this machine's name is typed. Without its token a sealed store's secrets can not be read, and a change made outside this tool is found and named.

--check verifies everything under the seal and prints how many changes there were and when the last was made. An older copy of the \
store verifies as well: compare both with the last transcript, or with what is remembered.")]
    Seal(Seal),
    /// Take the seal off: the secrets are then in the file in the clear
    #[command(after_help = "\
Examples:
  claviger-ceremony unseal
  claviger-ceremony unseal --confirm cosigner

Afterwards whoever can write to the store can change it unseen, and whoever can read it can take this machine's onion address. \
A daemon refuses such a store unless its configuration allows it.")]
    Unseal {
        /// This machine's name: do not ask to type it
        #[arg(long, value_name = "NAME", value_parser = parsed::<Identifier>)]
        confirm: Option<Identifier>,
    },
    /// Make a new seal, after a token was lost or replaced
    #[command(after_help = "\
Examples:
  claviger-ceremony reseal               to the token in use alone
  claviger-ceremony reseal --backup      to both

The secrets are wrapped by a new key. Only the tokens that are asked now open it: without --backup the other \
one no longer does. Older copies of the file are still opened by the \
tokens that opened them before.")]
    Reseal(Reseal),
    /// Go on with the other token: no new ceremony, nothing to do for the peers
    #[command(after_help = "\
Examples:
  claviger-ceremony switch backup        the primary token is lost or broken
  claviger-ceremony switch primary       it was found

The token that is switched to is opened and must hold its key. Peers recorded both keys; a peer whose first attempt is not answered \
tries the other. Restart a running daemon.")]
    Switch {
        /// Which token
        token: Place,
    },
    /// Revoke a peer: it is a stranger from now on, and its keys are never recorded again
    #[command(after_help = "\
Examples:
  claviger-ceremony revoke wallet --reason 'laptop stolen'
  claviger-ceremony revoke wallet --reason 'laptop stolen' --confirm wallet

Shows first who could then no longer connect. Running daemons drop the peer at once, its sessions, too. On every machine that \
recorded it, this has to be done for itself. `remove` forgets a peer that may come back.")]
    Revoke {
        /// The peer, or a member whose card is only held
        #[arg(value_parser = parsed::<Identifier>)]
        name: Identifier,
        /// Why, for the log
        #[arg(long, value_name = "TEXT", value_parser = reason)]
        reason: String,
        /// Its name again: do not ask to type it
        #[arg(long, value_name = "NAME", value_parser = parsed::<Identifier>)]
        confirm: Option<Identifier>,
    },
    /// Limit a peer's time, or take the limit away
    #[command(after_help = "\
Examples:
  claviger-ceremony expire auditor --in 90d
  claviger-ceremony expire auditor --at 2027-01-31
  claviger-ceremony expire auditor --at 2027-01-31T12:00:00Z --confirm auditor
  claviger-ceremony expire auditor --never

From then on the peer is a stranger here, by this machine's clock. A date alone means its beginning, in UTC.")]
    Expire(Expire),
    /// Replace this machine's key, onion address and client-authorization key, with an overlap in which both work
    #[command(after_help = "\
Examples:
  claviger-ceremony rotate --token 'piv:serial=87654321;slot=9d'
  claviger-ceremony rotate --token piv:… --backup-token openpgp:… --overlap 30d
  claviger-ceremony rotate --status      who still uses the former key
  claviger-ceremony rotate --again       the file was lost
  claviger-ceremony rotate --finish      forget the former key

The token in use vouches for the next card, once for each key of each member; a token that wants a touch wants that many. Carry \
NAME.succession to every member; there, `claviger-ceremony import NAME.succession`. Until the overlap ends both keys work if both \
tokens stay plugged in. Who has not imported it by then is cut off.")]
    Rotate(Rotate),
    /// A second token for this machine
    #[command(subcommand)]
    Backup(Backup),
}

#[derive(Subcommand)]
pub(crate) enum Backup {
    /// Add a backup token later: a second key, for the same identity
    #[command(after_help = "\
Example:
  claviger-ceremony backup add --token 'piv:serial=87654321;slot=9d'

Key, onion address and client-authorization key stay as they are; the card gets a second key. Carry NAME.succession to every \
member; there, `claviger-ceremony import NAME.succession`. A member that has not imported it knows only the primary key. `init \
--backup-token` does the same at the beginning.")]
    Add(BackupAdd),
    /// Write the succession of `backup add` again: the file was lost
    #[command(after_help = "\
Example:
  claviger-ceremony backup again

The primary key vouches again, so its token has to be the one in use.")]
    Again {
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Args)]
pub(crate) struct Seal {
    /// Ask the other token, too
    #[arg(long, conflicts_with = "check")]
    pub(crate) backup: bool,
    /// Verify everything under the seal, and change nothing
    #[arg(long)]
    pub(crate) check: bool,
    /// This machine's name: do not ask to type it
    #[arg(long, value_name = "NAME", value_parser = parsed::<Identifier>, conflicts_with = "check")]
    pub(crate) confirm: Option<Identifier>,
}

#[derive(Args)]
pub(crate) struct Reseal {
    /// Ask the other token, too: the backup, or the primary while the backup is in use
    #[arg(long)]
    pub(crate) backup: bool,
    /// This machine's name: do not ask to type it where a token no longer opens the store
    #[arg(long, value_name = "NAME", value_parser = parsed::<Identifier>)]
    pub(crate) confirm: Option<Identifier>,
}

/// Which of a machine's tokens.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Place {
    Primary,
    Backup,
}

impl Life {
    /// What clap can not say.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        match self {
            Self::Rotate(rotate) => {
                let Output { file, qr, png, svg, force } = &rotate.output;
                let begins = rotate.backup_token.is_some()
                    || rotate.overlap.is_some()
                    || rotate.kem.is_some()
                    || rotate.no_attestation;
                if begins && rotate.token.is_none() {
                    return Err("--backup-token, --overlap, --kem and --no-attestation go with --token");
                }
                let writes = *qr || *force || [file, png, svg].into_iter().any(Option::is_some);
                if writes && (rotate.status || rotate.finish) {
                    return Err("--status and --finish write no succession: give no place for one");
                }
                rotate.output.check()
            }
            Self::Backup(Backup::Add(BackupAdd { output, .. }) | Backup::Again { output }) => output.check(),
            _ => Ok(()),
        }
    }
}

impl From<Place> for KeyPlace {
    fn from(place: Place) -> Self {
        match place {
            Place::Primary => Self::Primary,
            Place::Backup => Self::Backup,
        }
    }
}

#[derive(Args)]
#[command(group = ArgGroup::new("when").required(true))]
pub(crate) struct Expire {
    /// The peer
    #[arg(value_parser = parsed::<Identifier>)]
    pub(crate) name: Identifier,
    /// At that time: 2027-01-31, or 2027-01-31T12:00:00Z
    #[arg(long, value_name = "DATE", group = "when", value_parser = date)]
    pub(crate) at: Option<u64>,
    /// After that time: 12h, 90d, 6months
    #[arg(long, value_name = "TIME", group = "when", value_parser = span)]
    pub(crate) r#in: Option<Duration>,
    /// Take the limit away
    #[arg(long, group = "when")]
    pub(crate) never: bool,
    /// Its name again: do not ask to type it
    #[arg(long, value_name = "NAME", value_parser = parsed::<Identifier>)]
    pub(crate) confirm: Option<Identifier>,
}

#[derive(Args)]
#[command(group = ArgGroup::new("what").required(true))]
pub(crate) struct Rotate {
    /// Where the next key is
    #[arg(long, value_name = "LOCATOR", group = "what")]
    pub(crate) token: Option<String>,
    /// Where the next backup key is
    #[arg(long, value_name = "LOCATOR")]
    pub(crate) backup_token: Option<String>,
    /// How long the present key works, too; 90d at most; 0s ends it at once, for a token that was stolen [default: 14d]
    #[arg(long, value_name = "TIME", value_parser = overlap)]
    pub(crate) overlap: Option<Duration>,
    /// The key encapsulation mechanism the next card offers [default: ml-kem-768]
    #[arg(long, value_enum, value_name = "KEM")]
    pub(crate) kem: Option<OfferedKem>,
    /// Leave the tokens' attestations out of the next card
    #[arg(long)]
    pub(crate) no_attestation: bool,
    /// Tell who was seen by the new key, and who still uses the former one
    #[arg(long, group = "what")]
    pub(crate) status: bool,
    /// Write the succession again
    #[arg(long, group = "what")]
    pub(crate) again: bool,
    /// Forget the former key
    #[arg(long, group = "what")]
    pub(crate) finish: bool,
    /// This machine's name: do not ask to type it
    #[arg(long, value_name = "NAME", value_parser = parsed::<Identifier>)]
    pub(crate) confirm: Option<Identifier>,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Args)]
pub(crate) struct BackupAdd {
    /// Where the backup key is
    #[arg(long, value_name = "LOCATOR")]
    pub(crate) token: String,
    /// Leave the token's attestation out of the next card
    #[arg(long)]
    pub(crate) no_attestation: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

fn reason(text: &str) -> Result<String, String> {
    let bounded = !text.trim().is_empty() && text.len() <= claviger::store::MAX_DETAIL_LEN;
    if bounded && !text.contains(char::is_control) {
        Ok(text.trim().to_owned())
    } else {
        Err(format!("a reason is one line of 1 to {} bytes", claviger::store::MAX_DETAIL_LEN))
    }
}

fn span(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("that is now: end it with `claviger-ceremony revoke` or `remove`".into()),
        time if time > LONGEST => Err("that is more than ten years".into()),
        time => Ok(time),
    }
}

/// What every member's import takes.
fn overlap(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    if time <= MAX_OVERLAP {
        return Ok(time);
    }
    Err(format!("that is more than {} days, and no member would import it", MAX_OVERLAP.as_secs() / (24 * 60 * 60)))
}

fn duration(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| format!("{error}; write 12h, 14d or 2months"))?;
    Ok(Duration::from_secs(time.as_secs()))
}

/// Seconds since 1970 of a date in the future.
fn date(text: &str) -> Result<u64, String> {
    let whole = if text.len() == "2027-01-31".len() { format!("{text}T00:00:00Z") } else { text.to_owned() };
    let time = humantime::parse_rfc3339_weak(&whole)
        .map_err(|error| format!("{error}; write 2027-01-31 or 2027-01-31T12:00:00Z"))?;
    if time <= SystemTime::now() {
        return Err("that has passed: end it with `claviger-ceremony revoke` or `remove`".into());
    }
    Ok(time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_in_the_future_and_bounded() {
        assert_eq!(date("2100-01-01"), Ok(4_102_444_800));
        assert_eq!(date("2100-01-01T00:00:01Z"), Ok(4_102_444_801));
        for bad in ["", "2020-01-01", "1969-01-01", "tomorrow", "2100-13-01", "99999-01-01"] {
            assert!(date(bad).is_err(), "{bad}");
        }
        assert_eq!(span("90d"), Ok(Duration::from_secs(90 * 24 * 60 * 60)));
        assert_eq!(overlap("0s"), Ok(Duration::ZERO));
        assert_eq!(overlap("90d"), Ok(MAX_OVERLAP));
        for bad in ["90d 1s", "91d", "6months", "", "-1d"] {
            assert!(overlap(bad).is_err(), "{bad}");
        }
        for bad in ["", "0s", "90", "11years", "-1d", "99999999999999999999y"] {
            assert!(span(bad).is_err(), "{bad}");
        }
    }
}
