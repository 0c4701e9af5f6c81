//! What is left of sessions, by which they are resumed without the token: chains of secrets, each bound to all that its full handshake stood on.
//!
//! In memory only, and wiped when the time is over, when anything that the handshake stood on is another, and when it did its work.

use crate::config::Config;
use crate::endpoint::drive::{internal, noise_error};
use crate::endpoint::sessions::Pair;
use crate::error::{Error, ErrorKind, Result};
use crate::identity::{Identifier, OnionAddress};
use crate::noise::Protocol;
use crate::noise::resumption::{Link, Origin, WINDOW};
use crate::session::BootInstant;
use crate::wire::RESUMPTION_ID;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

#[cfg(test)]
mod tests;

/// What a session and all that resume it come from: a full handshake.
#[derive(Clone)]
pub(in crate::endpoint) struct Family {
    pub(in crate::endpoint) pair: Pair,
    /// Whether this end began it. Only that end resumes.
    pub(in crate::endpoint) is_initiator: bool,
    /// Where the responder was called.
    pub(in crate::endpoint) onion_address: OnionAddress,
    pub(in crate::endpoint) protocol: Protocol,
    pub(in crate::endpoint) origin: Origin,
    /// When this end's token was last asked.
    pub(in crate::endpoint) token_seen: BootInstant,
}

/// What one session leaves.
pub(in crate::endpoint) struct Chain {
    pub(in crate::endpoint) family: Arc<Family>,
    /// The first link that was not used yet.
    link: Link,
    /// The session that it is to resume, by its number.
    session: u64,
    /// Links that this end used and that were not answered.
    unanswered: usize,
    /// The resumption that begins it, by its number, as long as the other end has not confirmed that: it may or may not have this chain.
    answer: Option<u64>,
}

impl Chain {
    /// `link`: the first, of a handshake that is complete. `session`: the number of the session that it gave.
    pub(in crate::endpoint) fn new(family: Arc<Family>, link: Link, session: u64) -> Self {
        Self { family, link, session, unanswered: 0, answer: None }
    }

    /// `link`: the first of a resumption that is about to be answered, `answer` by its number. `session`: the session that it resumes.
    pub(in crate::endpoint) fn answering(family: Arc<Family>, link: Link, session: u64, answer: u64) -> Self {
        Self { family, link, session, unanswered: 0, answer: Some(answer) }
    }
}

/// The chains of an endpoint.
pub(in crate::endpoint) struct Chains {
    /// How long after the token was last asked.
    resume_for: Duration,
    /// How many a peer.
    limit: AtomicUsize,
    /// The oldest first.
    peers: Mutex<HashMap<Identifier, VecDeque<Chain>>>,
    /// How often what is known of peers was found to be another: what was begun before is not kept.
    age: AtomicU64,
}

impl Chains {
    pub(in crate::endpoint) fn new(config: &Config) -> Self {
        Self {
            resume_for: config.session.resume_for,
            limit: AtomicUsize::new(config.limits.sessions_per_peer as usize),
            peers: Mutex::default(),
            age: AtomicU64::new(0),
        }
    }

    fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// From now on so many a peer.
    pub(in crate::endpoint) fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Identifier, VecDeque<Chain>>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn holds(&self, family: &Family, now: BootInstant) -> bool {
        now.since(family.token_seen) < self.resume_for
    }

    /// To be remembered before the store's content is looked at for a handshake, and given to [`keep`](Self::keep).
    pub(in crate::endpoint) fn age(&self) -> u64 {
        self.age.load(Ordering::SeqCst)
    }

    /// Keeps a chain, unless its time is over or the store has changed since `age`: then it is `false`. A peer's oldest makes room, and with it what else there is of its
    /// session. Of those that nobody has confirmed there may be as many besides.
    pub(in crate::endpoint) fn keep(&self, chain: Chain, age: u64, now: BootInstant) -> bool {
        let mut peers = self.lock();
        if age != self.age() || !self.holds(&chain.family, now) {
            return false;
        }
        let chains = peers.entry(chain.family.pair.peer.clone()).or_default();
        let is_alike = |other: &&Chain| other.answer.is_some() == chain.answer.is_some();
        while chains.iter().filter(is_alike).count() >= self.limit() {
            let Some(oldest) = chains.iter().find(is_alike) else { break };
            let (session, answer) = (oldest.session, oldest.answer);
            chains.retain(|other| other.session != session || (answer.is_some() && other.answer != answer));
        }
        chains.push_back(chain);
        true
    }

    /// Takes away the newest chain of this end's with `peer` that fits, by its family and its session's number.
    pub(in crate::endpoint) fn take(
        self: &Arc<Self>,
        peer: &Identifier,
        now: BootInstant,
        fits: impl Fn(&Family, u64) -> bool,
    ) -> Option<Taken> {
        let mut peers = self.lock();
        let chains = peers.get_mut(peer)?;
        let usable = |chain: &Chain| {
            chain.family.is_initiator && self.holds(&chain.family, now) && fits(&chain.family, chain.session)
        };
        let at = chains.iter().rposition(usable)?;
        let Chain { family, link, session, unanswered, .. } = chains.remove(at)?;
        Some(Taken { chains: Arc::clone(self), age: self.age(), family, session, link: Some(link), unanswered })
    }

    /// Whether a chain that was taken may still be used: its time is not over, and nothing has changed since.
    pub(in crate::endpoint) fn allow(&self, taken: &Taken, now: BootInstant) -> bool {
        taken.age == self.age() && self.holds(&taken.family, now)
    }

    /// Goes behind the link that `id` names, if `opens` says that the message was made with it.
    ///
    /// # Errors
    /// [`ErrorKind::ResumptionRefused`] when there is none, or its time is over; and those of `opens`.
    pub(in crate::endpoint) fn find<T>(
        &self,
        pair: &Pair,
        id: &[u8; RESUMPTION_ID],
        now: BootInstant,
        opens: impl FnOnce(&Arc<Family>, &Link) -> Result<T>,
    ) -> Result<Found<T>> {
        let mut peers = self.lock();
        let internal = |error| noise_error(&error, None);
        let chains = peers.entry(pair.peer.clone()).or_default();
        for at in 0..chains.len() {
            let chain = &mut chains[at];
            if chain.family.is_initiator || chain.family.pair != *pair || !self.holds(&chain.family, now) {
                continue;
            }
            if let Some(link) = chain.link.find(id).map_err(internal)? {
                let opened = opens(&chain.family, &link)?;
                // Whoever holds it had the answer.
                (chain.link, chain.answer) = (link.next().map_err(internal)?, None);
                let (family, session) = (Arc::clone(&chain.family), chain.session);
                // And has no other of the same session: what was left by an answer that was lost, or before one that was not.
                let mut here = 0..;
                chains.retain(|chain| here.next() == Some(at) || chain.session != session);
                return Ok(Found { opened, family, session });
            }
        }
        Err(nothing_left(&pair.peer))
    }

    /// The other end has confirmed a resumption, so it has what that left: this is of the new session, whose number is the resumption's, and what it resumed is over, if `admit` lets it in.
    ///
    /// # Errors
    /// [`ErrorKind::ResumptionRefused`] when nothing of it is there any more: the other end has come back since, or something that it stood on is another; those of `admit`.
    pub(in crate::endpoint) fn confirm(
        &self,
        peer: &Identifier,
        answer: u64,
        admit: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let mut peers = self.lock();
        let chains = peers.entry(peer.clone()).or_default();
        let at = chains.iter().position(|chain| chain.answer == Some(answer)).ok_or_else(|| passed_by(peer))?;
        admit()?;
        if let Some(chain) = chains.remove(at) {
            chains.retain(|other| other.session != chain.session);
            chains.push_back(Chain { session: answer, answer: None, ..chain });
        }
        Ok(())
    }

    /// A session was closed for good, and did not break: nothing of it is left.
    pub(in crate::endpoint) fn forget(&self, peer: &Identifier, session: u64) {
        self.retain(peer, |chain| chain.session != session);
    }

    fn retain(&self, peer: &Identifier, keeps: impl Fn(&Chain) -> bool) {
        if let Some(chains) = self.lock().get_mut(peer) {
            chains.retain(keeps);
        }
    }

    /// Wipes those whose time is over.
    pub(in crate::endpoint) fn expire(&self, now: BootInstant) {
        self.sweep(|family| self.holds(family, now));
    }

    /// Wipes those that stand on what is no more. What is being made or used meanwhile is not kept.
    pub(in crate::endpoint) fn changed(&self, keeps: impl Fn(&Family) -> bool) {
        self.age.fetch_add(1, Ordering::SeqCst);
        self.sweep(keeps);
    }

    fn sweep(&self, keeps: impl Fn(&Family) -> bool) {
        self.lock().retain(|_, chains| {
            chains.retain(|chain| keeps(&chain.family));
            !chains.is_empty()
        });
    }
}

/// A message 1 that opened.
pub(in crate::endpoint) struct Found<T> {
    pub(in crate::endpoint) opened: T,
    pub(in crate::endpoint) family: Arc<Family>,
    /// The session that is resumed.
    pub(in crate::endpoint) session: u64,
}

/// A chain that is in use. Given back when dropped, unless it is [done](Self::done).
pub(in crate::endpoint) struct Taken {
    chains: Arc<Chains>,
    age: u64,
    family: Arc<Family>,
    session: u64,
    link: Option<Link>,
    unanswered: usize,
}

impl Taken {
    pub(in crate::endpoint) fn family(&self) -> &Arc<Family> {
        &self.family
    }

    /// The session that is resumed.
    pub(in crate::endpoint) fn session(&self) -> u64 {
        self.session
    }

    /// Of the chains, when this one was taken.
    pub(in crate::endpoint) fn age(&self) -> u64 {
        self.age
    }

    /// A link, which is never given again.
    pub(in crate::endpoint) fn link(&mut self) -> Result<Link> {
        let link = self.link.take().ok_or_else(|| internal("a chain was used up"))?;
        self.link = Some(link.next().map_err(|error| noise_error(&error, None))?);
        self.unanswered += 1;
        Ok(link)
    }

    /// The resumption was answered: the other end has both chains, this end from now on only the one that begins with `link`. Before this is known to anybody.
    pub(in crate::endpoint) fn answered(&mut self, link: Link) {
        (self.link, self.unanswered) = (Some(link), 0);
    }

    /// It did its work, or will not be taken: it is wiped.
    pub(in crate::endpoint) fn done(mut self) {
        self.link = None;
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let Some(link) = self.link.take() else { return };
        let Self { chains, age, family, session, unanswered, .. } = self;
        let mut peers = chains.lock();
        // The other end looks no further than its window.
        if *age != chains.age() || *unanswered >= WINDOW {
            return;
        }
        let kept = peers.entry(family.pair.peer.clone()).or_default();
        if kept.iter().filter(|chain| chain.answer.is_none()).count() < chains.limit() {
            let (session, unanswered) = (*session, *unanswered);
            kept.push_back(Chain { family: Arc::clone(family), link, session, unanswered, answer: None });
        }
    }
}

pub(super) fn nothing_left(peer: &Identifier) -> Error {
    Error::new(
        ErrorKind::ResumptionRefused,
        format!("`{peer}` wanted to resume a session of which nothing is left here."),
        "It connects anew, with its token; it is so after a restart, after `resume-for` under [session], and after changes to the store.",
    )
}

fn passed_by(peer: &Identifier) -> Error {
    Error::new(
        ErrorKind::ResumptionRefused,
        format!(
            "`{peer}` confirmed a resumption too late: it has resumed or closed the session since, its time is over, or the store has changed."
        ),
        "Nothing needs mending here: it connects again.",
    )
}
