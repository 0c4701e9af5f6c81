//! The ceremony's data input for programs: what `claviger-ceremony import` does for people.

use super::Endpoint;
use crate::error::Result;
use crate::identity::{ClientAuthPublic, Identifier, Kem, OnionAddress, Role, StaticPublic, Suites};
use crate::store::{Added, Peer};

impl Endpoint {
    /// Begins to record a peer: its static public key and its name, as agreed in the ceremony. The caller answers for their truth.
    ///
    /// Role, address, suites and mechanism must be those of the peer's own identity card, or handshakes fail; a whole card is recorded with
    /// `claviger-ceremony import`. Without [`role`](CeremonyInput::role) the role is the identifier's text.
    pub fn ceremony_input(&self, public_key: StaticPublic, identifier: Identifier) -> CeremonyInput<'_> {
        let role = Role::from(&identifier);
        CeremonyInput {
            endpoint: self,
            peer: Peer {
                identifier,
                role,
                static_public: public_key,
                onion_address: None,
                client_auth: None,
                suites: Suites::default(),
                kem: None,
                token: None,
                attestation: None,
                backup: None,
                former: None,
                expires: None,
            },
        }
    }
}

/// A peer about to be recorded. Nothing happens before [`record`](Self::record).
#[must_use = "nothing is recorded before `record`"]
pub struct CeremonyInput<'a> {
    endpoint: &'a Endpoint,
    peer: Peer,
}

impl CeremonyInput<'_> {
    /// The peer's role, as its own card says. Default: the identifier's text.
    pub fn role(mut self, role: Role) -> Self {
        self.peer.role = role;
        self
    }

    /// Where the peer listens. Without it the peer can call, and can not be called.
    pub fn onion_address(mut self, onion_address: OnionAddress) -> Self {
        self.peer.onion_address = Some(onion_address);
        self
    }

    /// The peer's onion client-authorization key.
    pub fn client_auth(mut self, client_auth: ClientAuthPublic) -> Self {
        self.peer.client_auth = Some(client_auth);
        self
    }

    /// The suites on the peer's card. Default: `ChaChaPoly_BLAKE2s`.
    pub fn suites(mut self, suites: Suites) -> Self {
        self.peer.suites = suites;
        self
    }

    /// The key encapsulation mechanism on the peer's card. Default: none.
    pub fn kem(mut self, kem: Kem) -> Self {
        self.peer.kem = Some(kem);
        self
    }

    /// Writes the peer and a line of the ceremony log, durably.
    ///
    /// # Errors
    /// Those of [`Store::add_peer`](crate::store::Store::add_peer).
    pub fn record(self) -> Result<Added> {
        self.endpoint.store().add_peer(&self.peer, "ceremony_input")
    }
}
