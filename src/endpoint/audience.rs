//! Who finds this machine's onion service.

use super::known::Known;
use crate::identity::Identifier;
use crate::transport;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// The client-authorization keys of the peers whose time has not passed, present and former, and this machine's own; or everyone.
pub(super) struct Audience {
    restricted: bool,
    keys: watch::Sender<transport::Audience>,
    /// Peers of which was told that they do not find it.
    told: Mutex<HashSet<Identifier>>,
}

impl Audience {
    pub(super) fn new(restricted: bool, known: &Known) -> Self {
        let audience = Self { restricted, keys: watch::Sender::new(None), told: Mutex::default() };
        audience.follow(known);
        audience
    }

    /// For whoever publishes the service.
    pub(super) fn watch(&self) -> watch::Receiver<transport::Audience> {
        self.keys.subscribe()
    }

    /// Takes over what became known.
    pub(super) fn follow(&self, known: &Known) {
        let keys = self.restricted.then(|| Arc::new(known.clients().collect()));
        self.keys.send_if_modified(|old| {
            let changed = *old != keys;
            *old = keys;
            changed
        });
        self.tell(known);
    }

    /// Tells, once each, of peers that can not find a service that is published: what was recorded of them has no client-authorization key.
    pub(super) fn tell(&self, known: &Known) {
        // Nobody follows it: nothing is published, or by a transport where anyone finds anything.
        if !self.restricted || self.keys.receiver_count() == 0 {
            return;
        }
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.retain(|name| known.peer(name).is_some());
        for peer in known.peers.iter().filter(|peer| peer.client_auth.is_none()) {
            if told.insert(peer.identifier.clone()) {
                tracing::warn!(
                    target: "claviger::listener",
                    peer = %peer.identifier,
                    hint = "Import its card with `claviger-ceremony import`, or set `restricted = false` under [onion].",
                    "a peer was recorded by its key alone and can not find this machine's onion service"
                );
            }
        }
    }
}
