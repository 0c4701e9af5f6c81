//! Successions: a machine's next card, vouched for by its present key.
//!
//! A token can not sign, it can only agree. So each peer gets a MAC of its own, under a key from the agreement of the machine's present static key with that
//! peer's: only those two can make it, and the peer knows that it did not.
//!
//! ```text
//! claviger succession 1
//! former: 64 lower-case hexadecimal digits
//! by: primary or backup
//! until: 1795232850
//! card: claviger identity card 3
//! card: identifier: cosigner
//! card: …, and so each line of the next card
//! card: checksum: 16 digits
//! macs: 2
//! mac: wallet primary 64 digits
//! mac: watchtower primary 64 digits
//! checksum: 16 digits
//! ```

use std::time::Duration;

use aws_lc_rs::hmac;
use data_encoding::HEXLOWER;

use super::text::{Form, MAX_TIME, mac, mac_key};
use crate::error::{Error, ErrorKind, Result};
use crate::identity::lines::with_checksum;
use crate::identity::{Identifier, IdentityCard, KeyPlace};
use crate::secret::SharedSecret;

/// Longest text of a succession, in bytes: the longest card, and [`MAX_MACS`] MACs of at most 150 bytes.
pub const MAX_SUCCESSION_LEN: usize = 128 * 1024;

/// Most MACs of a succession: two keys for each member of the largest plan.
pub const MAX_MACS: usize = 512;

/// Longest time that a former card holds beside the next one: 90 days.
pub const MAX_OVERLAP: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// By how much clocks may differ, in seconds.
const DAY: u64 = 24 * 60 * 60;

/// The salt of the keys, and the text's first line.
const LABEL: &str = "claviger succession 1";

static SUCCESSION: Form = Form {
    title: "claviger succession ",
    version: "1",
    what: "succession",
    kind: ErrorKind::SuccessionInvalid,
    hint: "Carry it again and unchanged, or have another one written on its machine with `claviger-ceremony rotate`.",
    max: MAX_SUCCESSION_LEN,
};

/// A next card, and a MAC for each peer. Public data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Succession {
    /// The digest of the card that is succeeded.
    pub former: [u8; 32],
    /// Which key of the former card vouches.
    pub by: KeyPlace,
    /// Until when the former card holds too, seconds since 1970.
    pub until: u64,
    /// The next card; the identifier stays.
    pub card: IdentityCard,
    /// A MAC for each key of each peer, ordered.
    pub macs: Vec<SuccessionMac>,
}

/// The MAC for one key of one peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SuccessionMac {
    /// Who can verify it.
    pub peer: Identifier,
    /// With which of its keys.
    pub place: KeyPlace,
    /// HMAC-SHA-256.
    pub mac: [u8; 32],
}

impl SuccessionMac {
    fn order(&self) -> (&Identifier, KeyPlace) {
        (&self.peer, self.place)
    }
}

impl Succession {
    /// A succession that nobody can verify yet. A time behind the year 9999 is cut to its end.
    pub fn new(former: &IdentityCard, by: KeyPlace, card: IdentityCard, until: u64) -> Self {
        Self { former: former.digest(), by, until: until.min(MAX_TIME), card, macs: Vec::new() }
    }

    /// Adds the MAC for a peer's key, or replaces it. `agreed`: the present static key with that key.
    ///
    /// # Errors
    /// [`Internal`](crate::ErrorKind::Internal) when no key can be derived; [`SuccessionInvalid`](crate::ErrorKind::SuccessionInvalid) for more than [`MAX_MACS`].
    pub fn vouch(&mut self, peer: &Identifier, place: KeyPlace, agreed: &SharedSecret) -> Result<()> {
        let mac = mac(&key(peer, place, agreed)?, self.body().as_bytes());
        let new = SuccessionMac { peer: peer.clone(), place, mac };
        match self.macs.binary_search_by(|there| there.order().cmp(&new.order())) {
            Ok(at) => self.macs[at] = new,
            Err(_) if self.macs.len() == MAX_MACS => {
                return Err(SUCCESSION.refused(format!("A succession has at most {MAX_MACS} MACs.")));
            }
            Err(at) => self.macs.insert(at, new),
        }
        Ok(())
    }

    /// Whether it succeeds `former` as this machine holds it. `own`: this machine's name and the key that agreed with the
    /// key [`by`](Self::by) of `former` to `agreed`. Constant time in the MAC.
    ///
    /// # Errors
    /// [`SuccessionInvalid`](crate::ErrorKind::SuccessionInvalid): of another card, not for this machine, or a MAC that does not fit.
    pub fn verify(&self, former: &IdentityCard, own: (&Identifier, KeyPlace), agreed: &SharedSecret) -> Result<()> {
        let name = &former.identifier;
        let anew = || {
            format!(
                "Meet again: remove \"{name}\" with `claviger-ceremony remove {name}`, import its present card and compare fingerprints."
            )
        };
        let refused = |what: String| Err(Error::new(ErrorKind::SuccessionInvalid, what, anew()));
        if self.card.identifier != *name {
            return refused(format!(
                "The succession gives the card of \"{name}\" to \"{}\"; a name stays with its machine.",
                self.card.identifier
            ));
        }
        if self.former != former.digest() || self.card == *former {
            return refused(format!(
                "The succession does not follow upon the card of \"{name}\" that is held here: it was used already, or one before it is missing."
            ));
        }
        if former.key(self.by).is_none() {
            return refused(format!(
                "The succession is by the backup key of \"{name}\", and the card that is held here has none."
            ));
        }
        let (peer, place) = own;
        let Some(mac) = self.macs.iter().find(|mac| mac.order() == (peer, place)) else {
            return Err(Error::new(
                ErrorKind::SuccessionInvalid,
                format!("The succession of \"{name}\" is not for the {place} key of \"{peer}\"."),
                format!(
                    "Import on \"{name}\" this machine's card as it is now, and have the succession written again there."
                ),
            ));
        };
        hmac::verify(&key(peer, place, agreed)?, self.body().as_bytes(), &mac.mac).or_else(|_| {
            refused(format!("The present key of \"{name}\" does not vouch for this succession: its next card is not from \"{name}\", or was changed."))
        })
    }

    /// Whether the former card holds for [`MAX_OVERLAP`] from `now` (seconds since 1970) at most, and a day for clocks that differ. Who imports it asks this by a clock of its own: the key
    /// that vouches may be a stolen one, and must not say itself how long it is good for.
    pub fn is_bounded(&self, now: u64) -> bool {
        self.until <= now.saturating_add(MAX_OVERLAP.as_secs() + DAY)
    }

    /// What the MACs are over: the text's lines before `macs`.
    fn body(&self) -> String {
        let card: String = self.card.to_text().lines().map(|line| format!("card: {line}\n")).collect();
        format!("{LABEL}\nformer: {}\nby: {}\nuntil: {}\n{card}", HEXLOWER.encode(&self.former), self.by, self.until)
    }

    /// Its text, ASCII, at most [`MAX_SUCCESSION_LEN`] bytes.
    pub fn to_text(&self) -> String {
        let line = |mac: &SuccessionMac| format!("mac: {} {} {}\n", mac.peer, mac.place, HEXLOWER.encode(&mac.mac));
        let macs: String = self.macs.iter().map(line).collect();
        with_checksum(format!("{}macs: {}\n{macs}", self.body(), self.macs.len()))
    }

    /// Reads exactly what [`to_text`](Self::to_text) writes.
    ///
    /// # Errors
    /// [`SuccessionInvalid`](crate::ErrorKind::SuccessionInvalid).
    pub fn from_text(text: &str) -> Result<Self> {
        let form = &SUCCESSION;
        let mut lines = form.read(text)?;
        let former = lines.field("former")?;
        let by = lines.field("by")?;
        let until = lines.field("until")?;
        let mut card = String::new();
        // Ends at the card's last line, or at a line that is none of it.
        loop {
            let line = lines.field("card")?;
            card.push_str(line);
            card.push('\n');
            if line.starts_with("checksum: ") {
                break;
            }
        }
        let count = form.number("macs", lines.field("macs")?, MAX_MACS as u64)?;
        let macs = (0..count).map(|_| lines.field("mac")).collect::<Result<Vec<_>>>()?;
        lines.end()?;
        let macs = macs.into_iter().map(succession_mac).collect::<Result<Vec<_>>>()?;
        if !macs.is_sorted_by(|one, next| one.order() < next.order()) {
            return Err(form.refused("The succession's MACs are not in order.".into()));
        }
        let succession = Self {
            former: form.bytes("former", former)?,
            by: form.place("by", by)?,
            until: form.number("until", until, MAX_TIME)?,
            card: IdentityCard::from_text(&card)
                .map_err(|why| form.refused(format!("The succession's card is refused: {why}")))?,
            macs,
        };
        if succession.to_text() == text { Ok(succession) } else { Err(form.changed()) }
    }
}

fn succession_mac(text: &str) -> Result<SuccessionMac> {
    let form = &SUCCESSION;
    let mut parts = text.splitn(3, ' ');
    let mut part = || parts.next().unwrap_or_default();
    Ok(SuccessionMac {
        peer: form.value("mac", part())?,
        place: form.place("mac", part())?,
        mac: form.bytes("mac", part())?,
    })
}

fn key(peer: &Identifier, place: KeyPlace, agreed: &SharedSecret) -> Result<hmac::Key> {
    mac_key(agreed, LABEL, format!("{peer}\n{place}\n").as_bytes())
}

#[cfg(test)]
mod tests;
