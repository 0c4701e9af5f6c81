//! Which Noise protocol holds between one of this machine's keys and one of a peer's. Both ends work it out from the same two cards, and from
//! whether they hold a pre-shared key: nothing is negotiated, so nothing can be negotiated away.

use super::known::{Known, facts};
use super::no_shared_suite;
use super::own::Own;
use crate::error::{Error, ErrorKind, Result};
use crate::identity::StaticPublic;
use crate::noise::{Protocol, Setup};
use crate::secret::PresharedKey;
use crate::store::{Peer, PeerKey};
use crate::wire::{Kind, Pattern};

/// What a full handshake is made by, beside the keys.
#[derive(Clone, Copy)]
pub(super) struct Terms<'a> {
    pub(super) protocol: Protocol,
    /// Given exactly when the protocol has it.
    pub(super) preshared: Option<&'a PresharedKey>,
}

impl<'a> Terms<'a> {
    pub(super) fn setup(self, own: &'a StaticPublic, theirs: &'a StaticPublic, prologue: &'a [u8]) -> Setup<'a> {
        let setup = Setup::new(self.protocol, own, theirs, prologue);
        match self.preshared {
            Some(key) => setup.with_preshared_key(key),
            None => setup,
        }
    }
}

/// The protocol of a handshake in which this machine is `is_initiator`.
pub(super) fn protocol(
    known: &Known,
    own: &Own,
    peer: &Peer,
    key: &PeerKey,
    pattern: Pattern,
    is_initiator: bool,
) -> Result<Protocol> {
    let (_, suites, kem) = facts(peer, key);
    // The responder's list decides.
    let suite =
        if is_initiator { suites.with_initiator(&own.card.suites) } else { own.card.suites.with_initiator(suites) };
    Ok(Protocol {
        pattern,
        kem: kem.filter(|kem| own.card.kem == Some(*kem)),
        psk: known.preshared(&peer.identifier).is_some(),
        curve: own.card.curve(),
        suite: suite.ok_or_else(|| no_shared_suite(&peer.identifier))?,
    })
}

/// Compares what a caller asks for with what this end expects of it.
///
/// # Errors
/// [`ErrorKind::KemMismatch`], [`ErrorKind::PresharedKeyMismatch`].
pub(super) fn expect(protocol: &Protocol, asked: Kind, own: &Own, peer: &Peer) -> Result<()> {
    let (here, there) = (&own.card.identifier, &peer.identifier);
    if asked.kem != protocol.kem.is_some() {
        let (what, mend) = match (protocol.kem, own.card.kem) {
            (Some(kem), _) => (
                format!("`{there}` called without {kem}, which its card and this machine's offer."),
                format!(
                    "If nobody came between the two, `{there}` has an older card of this machine: import the one that `claviger-ceremony export` writes here, there."
                ),
            ),
            (None, Some(kem)) => (
                format!("`{there}` called with {kem}, which its card that is recorded here does not offer."),
                format!("Import the present card of `{there}` here, with `claviger-ceremony import`."),
            ),
            (None, None) => (
                format!("`{there}` called with ML-KEM-768, which this machine's card does not offer."),
                format!("Import this machine's present card on `{there}`, with `claviger-ceremony import`."),
            ),
        };
        return Err(Error::new(ErrorKind::KemMismatch, what, mend));
    }
    if asked.psk != protocol.psk {
        let (what, mend) = if protocol.psk {
            (
                format!("`{there}` called without the pre-shared key that is recorded here."),
                format!(
                    "Record it there, too, with `claviger-ceremony psk record {here} FILE`, or remove it here with `claviger-ceremony psk remove {there}`."
                ),
            )
        } else {
            (
                format!("`{there}` called with a pre-shared key, and none is recorded for it here."),
                format!(
                    "Record it here, too, with `claviger-ceremony psk record {there} FILE`, or remove it there with `claviger-ceremony psk remove {here}`."
                ),
            )
        };
        return Err(Error::new(ErrorKind::PresharedKeyMismatch, what, mend));
    }
    Ok(())
}
