//! Life after the ceremony: the plan, cards, revocation, expiry, rotation, the other token.

use super::{Added, Peer, SealKey, Store};
use crate::ceremony::log::Event;
use crate::ceremony::plan::Plan;
use crate::error::Result;
use crate::identity::{Fingerprint, Identifier, IdentityCard, KeyPlace, OnionAddress, StaticPublic};
use crate::secret::{ClientAuthSecret, EphemeralSecret, OnionSecretKey};

/// A key that is never recorded again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoked {
    /// Whose it was.
    pub identifier: Identifier,
    /// The key.
    pub static_public: StaticPublic,
    /// Seconds since 1970.
    pub time: u64,
    /// Why, as the log has it.
    pub reason: String,
}

/// What a rotation makes of this machine.
pub struct NewIdentity {
    /// The next card, with the identifier of the present one.
    pub card: IdentityCard,
    /// The locator of its token.
    pub token: String,
    /// The locator of its backup token; exactly when the card has a backup key.
    pub backup_token: Option<String>,
    /// The secret key of the card's onion address.
    pub onion: OnionSecretKey,
    /// The secret of the card's client-authorization key.
    pub client_auth: ClientAuthSecret,
    /// Until when the present card holds too, seconds since 1970.
    pub until: u64,
}

/// A challenge that is open.
pub struct OpenChallenge {
    /// Its [`id`](crate::ceremony::proof::Challenge::id).
    pub id: [u8; 16],
    /// Its text.
    pub text: String,
    /// The secret that verifies its proofs.
    pub secret: EphemeralSecret,
}

/// When, and by which keys, this machine and a peer last had a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact {
    /// The peer.
    pub peer: Identifier,
    /// This machine's key then.
    pub own: StaticPublic,
    /// The peer's key then.
    pub theirs: StaticPublic,
    /// Seconds since 1970: the last one.
    pub time: u64,
}

impl Store {
    /// The plan of the ceremony.
    ///
    /// # Errors
    /// As [`machine`](Self::machine).
    pub fn plan(&self) -> Result<Option<Plan>> {
        unimplemented!()
    }

    /// Records a plan, or another in its place, and logs it.
    ///
    /// # Errors
    /// [`PlanMismatch`](crate::ErrorKind::PlanMismatch) when this machine, a peer or a card that is held is not according to it: nothing was changed.
    /// [`StoreLocked`](crate::ErrorKind::StoreLocked); and as [`machine`](Self::machine).
    pub fn set_plan(&mut self, plan: &Plan, how: &str) -> Result<Added> {
        let _ = (plan, how);
        unimplemented!()
    }

    /// Records a member's card: as a peer where the plan joins it to this machine, or there is no plan; else as a card that is only held, for the phrase.
    ///
    /// # Errors
    /// Those of [`add_peer`](Self::add_peer), and of [`Plan::check_card`].
    pub fn add_card(&mut self, card: &IdentityCard, how: &str) -> Result<Added> {
        let _ = (card, how);
        unimplemented!()
    }

    /// What [`add_card`](Self::add_card) would do. Writes nothing, and needs no token.
    ///
    /// # Errors
    /// As [`add_card`](Self::add_card).
    pub fn check_card(&self, card: &IdentityCard) -> Result<Added> {
        let _ = card;
        unimplemented!()
    }

    /// Every card of the set, ordered by identifier: this machine's, the peers' that came by card, and those only held.
    ///
    /// # Errors
    /// As [`machine`](Self::machine).
    pub fn cards(&self) -> Result<Vec<IdentityCard>> {
        unimplemented!()
    }

    /// Removes a peer or a card that is held, and never records its keys, address and client-authorization key again.
    ///
    /// # Errors
    /// [`PeerUnknown`](crate::ErrorKind::PeerUnknown), [`StoreLocked`](crate::ErrorKind::StoreLocked); and as [`machine`](Self::machine).
    pub fn revoke(&mut self, identifier: &Identifier, reason: &str) -> Result<IdentityCard> {
        let _ = (identifier, reason);
        unimplemented!()
    }

    /// What was revoked, oldest first.
    ///
    /// # Errors
    /// As [`machine`](Self::machine).
    pub fn revoked(&self) -> Result<Vec<Revoked>> {
        unimplemented!()
    }

    /// Limits a peer's time, or takes the limit away.
    ///
    /// # Errors
    /// [`PeerUnknown`](crate::ErrorKind::PeerUnknown), [`StoreLocked`](crate::ErrorKind::StoreLocked); and as [`machine`](Self::machine).
    pub fn set_expiry(&mut self, identifier: &Identifier, expires: Option<u64>) -> Result<Peer> {
        let _ = (identifier, expires);
        unimplemented!()
    }

    /// Replaces the card of a peer, or of a member that is only held, by its next one; of a peer the former holds too until `until`. The caller has verified the
    /// [`Succession`](crate::ceremony::succession::Succession).
    ///
    /// # Errors
    /// Those of [`add_card`](Self::add_card) but for the name's conflict; [`PeerUnknown`](crate::ErrorKind::PeerUnknown).
    pub fn succeed_card(&mut self, card: &IdentityCard, until: u64, how: &str) -> Result<()> {
        let _ = (card, until, how);
        unimplemented!()
    }

    /// Gives this machine its next card, token and secrets; the present ones are kept as the former ones. Seals to `keys`, which must
    /// contain the new token's, under a new key.
    ///
    /// # Errors
    /// [`PeerConflict`](crate::ErrorKind::PeerConflict) for an identifier that differs, a rotation under way, or a key that is recorded;
    /// [`StoreLocked`](crate::ErrorKind::StoreLocked); and as [`machine`](Self::machine).
    pub fn rotate(&mut self, next: &NewIdentity, keys: &[SealKey]) -> Result<()> {
        let _ = (next, keys);
        unimplemented!()
    }

    /// Forgets the former identity and its secrets. `false`: there was none.
    ///
    /// # Errors
    /// [`StoreLocked`](crate::ErrorKind::StoreLocked); and as [`machine`](Self::machine).
    pub fn finish_rotation(&mut self) -> Result<bool> {
        unimplemented!()
    }

    /// The secret key of the former onion address; `None` without a rotation under way.
    ///
    /// # Errors
    /// As [`onion_secret`](Self::onion_secret).
    pub fn former_onion_secret(&self) -> Result<Option<OnionSecretKey>> {
        unimplemented!()
    }

    /// The former client-authorization secret; `None` without a rotation under way.
    ///
    /// # Errors
    /// As [`onion_secret`](Self::onion_secret).
    pub fn former_client_auth_secret(&self) -> Result<Option<ClientAuthSecret>> {
        unimplemented!()
    }

    /// Goes on with the token of that place.
    ///
    /// # Errors
    /// [`KeyNotFound`](crate::ErrorKind::KeyNotFound) when there is no backup; [`StoreLocked`](crate::ErrorKind::StoreLocked); and as [`machine`](Self::machine).
    pub fn activate(&mut self, place: KeyPlace) -> Result<()> {
        let _ = place;
        unimplemented!()
    }

    /// Logs a step of the ceremony that changes nothing else.
    ///
    /// # Errors
    /// [`StoreLocked`](crate::ErrorKind::StoreLocked); and as [`machine`](Self::machine).
    pub fn note(&mut self, event: Event, subject: &Identifier, fingerprint: Fingerprint, detail: &str) -> Result<()> {
        let _ = (event, subject, fingerprint, detail);
        unimplemented!()
    }

    /// Keeps a challenge open, and logs it. Those whose time has passed by `now` are forgotten.
    ///
    /// # Errors
    /// [`StoreLocked`](crate::ErrorKind::StoreLocked); and as [`machine`](Self::machine).
    pub fn open_challenge(&mut self, challenge: &OpenChallenge, now: u64) -> Result<()> {
        let _ = (challenge, now);
        unimplemented!()
    }

    /// An open challenge; `None` for one that was never made here, or that was forgotten.
    ///
    /// # Errors
    /// As [`onion_secret`](Self::onion_secret).
    pub fn challenge(&self, id: &[u8; 16]) -> Result<Option<OpenChallenge>> {
        let _ = id;
        unimplemented!()
    }

    /// Records that a key answered a challenge, and logs [`Event::ProofVerified`] with the key's fingerprint.
    ///
    /// # Errors
    /// [`ProofUsed`](crate::ErrorKind::ProofUsed) when it did before; [`StoreLocked`](crate::ErrorKind::StoreLocked); and as [`machine`](Self::machine).
    pub fn spend_challenge(&mut self, id: &[u8; 16], prover: &Identifier, key: &StaticPublic, how: &str) -> Result<()> {
        let _ = (id, prover, key, how);
        unimplemented!()
    }

    /// Notes a session: who still uses which key. Not under the seal, not in the log; needs no token.
    ///
    /// # Errors
    /// As [`machine`](Self::machine).
    pub fn note_contact(&mut self, contact: &Contact) -> Result<()> {
        let _ = contact;
        unimplemented!()
    }

    /// The last contact by each pair of keys, ordered by peer and time.
    ///
    /// # Errors
    /// As [`machine`](Self::machine).
    pub fn contacts(&self) -> Result<Vec<Contact>> {
        unimplemented!()
    }
}

/// A way to reach a peer, or to be called by it: one of its keys, and where that key listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerKey {
    /// The key.
    pub static_public: StaticPublic,
    /// Where the machine of that key listens.
    pub onion_address: Option<OnionAddress>,
    /// Which of the card's keys.
    pub place: KeyPlace,
    /// It is the former card's.
    pub former: bool,
}

impl Peer {
    /// Its keys that hold at `now` (seconds since 1970), most wanted first: primary and backup of its card, then those of its former card while that holds.
    /// Empty when the peer has expired.
    pub fn keys(&self, now: u64) -> Vec<PeerKey> {
        let _ = now;
        unimplemented!()
    }
}
