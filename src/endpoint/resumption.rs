//! Resumption: the machine that began a session takes it up again after it broke, on a fresh pipe and without the token.
//!
//! What the handshake left in the memory of both ends ([`Chains`]) is enough for `resume-for` after the token was last asked. A resumed session is another session: streams
//! of the broken one are gone, and new ones are opened on it.

mod chains;

pub(super) use chains::{Chain, Chains, Family, Found, Taken};

use super::attempt::Attempt;
use super::connecting::Way;
use super::drive::{self, internal, noise_error};
use super::known::Shared;
use super::listening::Caller;
use super::own::Own;
use super::sessions::{Entry, Pair};
use super::{Endpoint, Inner, now_ms};
use crate::config::{self, Config};
use crate::error::{Error, ErrorKind, Result};
use crate::identity::Identifier;
use crate::noise::resumption::{Link, Origin};
use crate::noise::{self, Established, Protocol, Setup, Step, knock};
use crate::session::{self, BootInstant, Session, Settings, Why};
use crate::store::{Peer, PeerKey};
use crate::transport::Pipe;
use crate::wire::{self, Ends, Pattern, RESUMPTION_ID};
use std::sync::Arc;
use tokio::time::Instant;

/// How to connect to a peer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectOptions {
    /// The handshake pattern; `None` takes the configured one. With `Some`, only what is left of a handshake of that pattern is resumed.
    pub pattern: Option<Pattern>,
    /// Whether a broken session is resumed.
    pub resume: Resume,
}

impl ConnectOptions {
    /// The configured pattern, and a broken session resumed.
    pub const DEFAULT: Self = Self { pattern: None, resume: Resume::IfBroken };

    /// The same with a pattern.
    #[must_use]
    pub fn pattern(mut self, pattern: impl Into<Option<Pattern>>) -> Self {
        self.pattern = pattern.into();
        self
    }

    /// The same with another rule about resumption.
    #[must_use]
    pub fn resume(mut self, resume: Resume) -> Self {
        self.resume = resume;
        self
    }
}

/// Whether a session is resumed, which asks nothing of the token, or begun anew, which does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Resume {
    /// A session that broke is resumed while that may be; when the peer refuses, or there is none, a new one is begun.
    #[default]
    IfBroken,
    /// A new session, with the token.
    Never,
    /// Nothing else, so that the token is not asked; a session that does not look broken yet is resumed, too, and ends.
    Only,
}

/// What has to be known to enter a finished handshake's session.
pub(super) struct Arrival {
    /// Of its pipe.
    pub(super) number: u64,
    /// Of the chains, when the handshake began.
    pub(super) age: u64,
    pub(super) family: Arc<Family>,
    /// The session that it resumes.
    pub(super) resumes: Option<u64>,
}

impl Pair {
    pub(super) fn new(own: &Own, peer: &Peer, key: &PeerKey) -> Self {
        Self {
            peer: peer.identifier.clone(),
            own: own.key.clone(),
            as_former: own.is_former(),
            theirs: key.static_public.clone(),
        }
    }
}

impl Family {
    /// Of a full handshake with the peer of `pair`, which began it if `is_called`.
    pub(super) fn new(
        pair: Pair,
        is_called: bool,
        ends: &Ends<'_>,
        time_ms: u64,
        established: &Established,
        token_seen: BootInstant,
    ) -> Self {
        let (own, theirs) = (pair.own.clone(), pair.theirs.clone());
        let (initiator, responder) = if is_called { (theirs, own) } else { (own, theirs) };
        let protocol = established.protocol;
        let origin = Origin {
            handshake_hash: established.handshake_hash,
            kind: protocol.kind().byte(),
            time_ms,
            initiator,
            responder,
        };
        Self { pair, is_initiator: !is_called, onion_address: *ends.onion_address, protocol, origin, token_seen }
    }
}

impl Endpoint {
    /// What is left of a session with `peer`, and the way that it went.
    pub(super) fn left<'a>(&self, peer: &Peer, ways: &'a [Way], options: ConnectOptions) -> Option<(Taken, &'a Way)> {
        if options.resume == Resume::Never {
            return None;
        }
        let Inner { shared, .. } = &*self.0;
        let way_of = |family: &Family| {
            ways.iter().find(|way| {
                way.own.key == family.pair.own
                    && way.key.static_public == family.pair.theirs
                    && way.onion_address == family.onion_address
                    && self.protocol(peer, way, family.protocol.pattern).is_ok_and(|now| now == family.protocol)
            })
        };
        let taken = shared.chains.take(&peer.identifier, shared.clock.now(), |family, session| {
            options.pattern.is_none_or(|pattern| pattern == family.protocol.pattern)
                && (options.resume == Resume::Only || !shared.sessions.is_live(&peer.identifier, session))
                && way_of(family).is_some()
        })?;
        let way = way_of(taken.family())?;
        Some((taken, way))
    }

    /// Dials, and resumes on the pipe. What is left stays so when that fails: a pipe that breaks and one that the peer closes look the same.
    pub(super) async fn resume(
        &self,
        peer: &Peer,
        way: &Way,
        taken: &mut Taken,
        attempt: &mut Attempt,
    ) -> Result<Session> {
        attempt.by(&way.own, &way.key);
        (attempt.pattern, attempt.kind) = (Some(Pattern::Nn), Some(Pattern::Nn.into()));
        attempt.resumes(taken.family());
        let Inner { shared, config, .. } = &*self.0;
        let (port, patience) = (config.transport.port, config.handshake.timeout);
        let started = Instant::now();
        let dialled = self.dial(Some(&peer.identifier), &way.own, &way.onion_address, port).await;
        attempt.dial = started.elapsed();
        let pair = Pair::new(&way.own, peer, &way.key);
        let (mut pipe, number) = shared.guard(&pair, Entry::Outgoing, dialled?)?;
        // Dialling may have taken minutes.
        if !shared.chains.allow(taken, shared.clock.now()) {
            return Err(nothing_here(&peer.identifier));
        }
        let family = Arc::clone(taken.family());
        let failed = |error| noise_error(&error, Some(peer));
        let ends = drive::ends_calling(&way.own, peer, &way.key, &way.onion_address, port);
        let (protocol, prologue) = resumption(&family, &ends);
        // Used from here on, whatever becomes of it.
        let link = taken.link()?;
        let (id, psk) = (link.id().map_err(failed)?, link.psk().map_err(failed)?);
        let setup = Setup::resumption(protocol, &pair.theirs, &prologue, &psk);
        let Step::Send(send) = noise::initiator(setup).map_err(failed)? else {
            return Err(internal("a resumption does not begin by sending"));
        };
        attempt.handshake_started = Some(Instant::now());
        let message = [&id[..], send.message()].concat();
        let packet = knock::packet(&knock::key(&pair.own, &pair.theirs), protocol.kind(), now_ms(), &message);
        drive::write_frame(&mut pipe, &packet, patience).await?;
        let next = send.sent().map_err(failed)?;
        let established = drive::run(next, &mut pipe, &way.own.token, patience, attempt).await?;
        // Before it is confirmed: the other end has what this left, and forgets the rest as soon as it hears of it.
        taken.answered(Link::first(&established, true).map_err(failed)?);
        let session_peer = drive::session_peer(peer, &way.key, &way.own, false, protocol, attempt);
        let arrival = Arrival { number, age: taken.age(), family, resumes: Some(taken.session()) };
        drive::finish(shared, config, pipe, session_peer, &established, arrival).await
    }
}

impl super::Incoming {
    /// Answers a caller that wants to resume. Nothing is asked of the token.
    pub(super) async fn answer_resumption(
        &self,
        caller: Caller,
        pipe: Pipe,
        age: u64,
        attempt: &mut Attempt,
    ) -> Result<Session> {
        let Inner { shared, config, .. } = &*self.endpoint.0;
        let Caller { own, peer, key, message, .. } = caller;
        let pair = Pair::new(&own, &peer, &key);
        attempt.resumed = true;
        let found = shared.chains.find(&pair, id_of(&message)?, shared.clock.now(), |family, link| {
            self.may_resume(family, &own, &peer, &key)?;
            let ends = self.ends(&own, &peer, &key);
            let (protocol, prologue) = resumption(family, &ends);
            let failed = |error| noise_error(&error, Some(&peer));
            let psk = link.psk().map_err(failed)?;
            let setup = Setup::resumption(protocol, &pair.theirs, &prologue, &psk);
            let Step::Receive(receive) = noise::responder(setup).map_err(failed)? else {
                return Err(internal("a responder does not begin by receiving"));
            };
            let step = receive.received(&message[RESUMPTION_ID..]).map_err(failed)?;
            Ok((step, protocol))
        })?;
        let Found { opened: (step, protocol), family, session } = found;
        attempt.resumes(&family);
        let (mut pipe, number) = shared.guard(&pair, Entry::Instead(session), pipe)?;
        let failed = |error| noise_error(&error, Some(&peer));
        let Step::Send(send) = step else { return Err(internal("a resumption is not answered by sending")) };
        let answer = send.message().to_vec();
        let Step::Finished(established) = send.sent().map_err(failed)? else {
            return Err(internal("a resumption does not end with its answer"));
        };
        // Before the answer, which may be lost, as its confirmation may: the other end has this chain then, or the one by which it came, and both stay until it is heard of.
        let link = Link::first(&established, false).map_err(failed)?;
        let chain = Chain::answering(Arc::clone(&family), link, session, number);
        if !shared.chains.keep(chain, age, shared.clock.now()) {
            return Err(chains::nothing_left(&peer.identifier));
        }
        drive::write_frame(&mut pipe, &answer, config.handshake.timeout).await?;
        let session_peer = drive::session_peer(&peer, &key, &own, true, protocol, attempt);
        let arrival = Arrival { number, age, family, resumes: Some(session) };
        drive::finish(shared, config, pipe, session_peer, &established, arrival).await
    }

    /// Whether the full handshake that is behind it would be answered, too, and be of the same protocol.
    fn may_resume(&self, family: &Family, own: &Own, peer: &Peer, key: &PeerKey) -> Result<()> {
        let Config { handshake, .. } = &self.endpoint.0.config;
        let pattern = family.protocol.pattern;
        let allowed = handshake.allow.iter().any(|allowed| Pattern::from(*allowed) == pattern);
        let same = allowed
            && family.onion_address == own.card.onion_address
            && self.protocol(own, peer, key, pattern).is_ok_and(|now| now == family.protocol);
        if same { Ok(()) } else { Err(chains::nothing_left(&peer.identifier)) }
    }
}

impl Shared {
    /// What a session with `peer` keeps to. Its age counts from the token.
    pub(super) fn settings(&self, config: &config::Session, peer: &session::Peer, number: u64) -> Settings {
        let (clock, max_age, token_seen) = (self.clock.clone(), config.max_age, peer.token_seen);
        let due = move || Instant::now() + max_age.saturating_sub(clock.now().since(token_seen));
        let mut settings = Settings::new(config, Some(due()), self.sessions.limits(&peer.identifier));
        settings.sooner = Some(Box::new(due));
        let (chains, name) = (Arc::clone(&self.chains), peer.identifier.clone());
        settings.over = Some(Box::new(move |kind| {
            if !leaves(kind) {
                chains.forget(&name, number);
            }
        }));
        settings
    }

    /// A handshake is complete: its session takes its place among the others, and leaves something to resume.
    pub(super) fn arrived(&self, arrival: Arrival, established: &Established, session: &Session) -> Result<()> {
        let Arrival { number, age, family, resumes } = arrival;
        let peer = family.pair.peer.clone();
        let claim = || self.sessions.claim(&peer, number, resumes);
        if resumes.is_some() && !family.is_initiator {
            self.chains.confirm(&peer, number, claim)?;
        } else {
            let link = Link::first(established, family.is_initiator).map_err(|error| noise_error(&error, None))?;
            claim()?;
            self.chains.keep(Chain::new(Arc::clone(&family), link, number), age, self.clock.now());
        }
        if family.protocol.kem.is_some() {
            self.meets_with_kem(&peer);
        }
        if let Some(old) = resumes {
            self.sessions.end(&peer, old, Why::Replaced);
        }
        self.sessions.stands(&peer, number, session);
        // It may be over already, and nobody was told then of what it leaves.
        if session.how_ended().is_some_and(|kind| !leaves(kind)) {
            self.chains.forget(&peer, number);
        }
        Ok(())
    }
}

/// Whether a session that has ended so is one that broke. One that was closed, or whose peer does not keep to the protocol, is not resumed.
pub(super) fn is_broken(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::SessionTruncated | ErrorKind::SessionIo | ErrorKind::PeerSilent | ErrorKind::RecordInvalid
    )
}

/// Whether what a session left stays when it has ended so. That another has taken its place may be heard before the confirmation, which comes on another pipe.
fn leaves(kind: ErrorKind) -> bool {
    is_broken(kind) || kind == ErrorKind::SessionReplaced
}

/// Protocol and prologue of a resumption.
fn resumption(family: &Family, ends: &Ends<'_>) -> (Protocol, Vec<u8>) {
    let protocol = Protocol::resumption(family.protocol.curve, family.protocol.suite);
    (protocol, family.origin.prologue(wire::prologue(protocol.kind(), ends)))
}

fn id_of(message: &[u8]) -> Result<&[u8; RESUMPTION_ID]> {
    // The doorkeeper looked at the length.
    message.first_chunk().ok_or_else(|| internal("a resumption without an id"))
}

/// Whether the other end was there and would have none of it, or this one will not any more. A full handshake tells more.
pub(super) fn is_refusal(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::HandshakeRefused
            | ErrorKind::HandshakeFailed
            | ErrorKind::PacketInvalid
            | ErrorKind::BadPoint
            | ErrorKind::ResumptionRefused
    )
}

/// A resumption was demanded, and nothing is there to resume.
pub(super) fn nothing_here(peer: &Identifier) -> Error {
    Error::new(
        ErrorKind::ResumptionRefused,
        format!("Nothing is left here of a session with `{peer}` that could be resumed."),
        "Connect anew, with the token.",
    )
}
