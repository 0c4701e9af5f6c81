//! Drives a handshake's steps between a pipe and a token, with a deadline on every wait. The token's own are kept by its thread.

use super::attempt::Attempt;
use super::known::{Shared, facts};
use super::now_ms;
use super::own::Own;
use super::protocol::Terms;
use super::resumption::Arrival;
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::identity::{Identifier, Kem, OnionAddress};
use crate::noise::{self, Established, NoiseError, Protocol, Step, knock};
use crate::secret::KnockKey;
use crate::session::{Peer as SessionPeer, Session, error_of};
use crate::store::{Peer, PeerKey};
use crate::token::TokenHandle;
use crate::transport::Pipe;
use crate::wire::{self, Ends, Kind, Pattern};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

/// An initiator's handshake, begun before there is a pipe.
pub(super) struct Initiation {
    step: Option<Step>,
    pub(super) kind: Kind,
    knock: KnockKey,
    /// Of the knock, once it was made.
    pub(super) time_ms: u64,
    patience: Duration,
}

impl Initiation {
    pub(super) fn new(
        own: &Own,
        peer: &Peer,
        key: &PeerKey,
        onion_address: &OnionAddress,
        port: u16,
        terms: Terms<'_>,
        config: &Config,
    ) -> Result<Self> {
        let ends = ends_calling(own, peer, key, onion_address, port);
        let kind = terms.protocol.kind();
        let prologue = wire::prologue(kind, &ends);
        let setup = terms.setup(&own.key, &key.static_public, &prologue);
        let step = noise::initiator(setup).map_err(|error| noise_error(&error, Some(peer)))?;
        let knock = knock::key(&own.key, &key.static_public);
        Ok(Self { step: Some(step), kind, knock, time_ms: 0, patience: config.handshake.timeout })
    }

    /// Runs the token operations that need nothing from the peer: KK's `ss`.
    pub(super) async fn agree(&mut self, token: &TokenHandle, attempt: &mut Attempt) -> Result<()> {
        let Some(step) = self.step.take() else { return Ok(()) };
        self.step = Some(agree(step, token, attempt).await?);
        Ok(())
    }

    /// Runs the rest on a pipe.
    pub(super) async fn run(
        &mut self,
        pipe: &mut Pipe,
        token: &TokenHandle,
        attempt: &mut Attempt,
    ) -> Result<Established> {
        attempt.handshake_started = Some(Instant::now());
        let patience = self.patience;
        let step = self.step.take().ok_or_else(|| internal("the handshake was used up"))?;
        let Step::Send(send) = agree(step, token, attempt).await? else {
            return Err(internal("an initiator does not begin by sending"));
        };
        self.time_ms = now_ms();
        let packet = knock::packet(&self.knock, self.kind, self.time_ms, send.message());
        write_frame(pipe, &packet, patience).await?;
        let next = send.sent().map_err(|error| noise_error(&error, None))?;
        run(next, pipe, token, patience, attempt).await
    }
}

/// The ends of a handshake that this machine begins.
pub(super) fn ends_calling<'a>(
    own: &'a Own,
    peer: &'a Peer,
    key: &PeerKey,
    onion_address: &'a OnionAddress,
    port: u16,
) -> Ends<'a> {
    Ends {
        initiator: &own.card.identifier,
        initiator_role: &own.card.role,
        responder: &peer.identifier,
        responder_role: facts(peer, key).0,
        onion_address,
        port,
    }
}

pub(super) fn session_peer(
    peer: &Peer,
    key: &PeerKey,
    own: &Own,
    is_initiator: bool,
    protocol: Protocol,
    attempt: &Attempt,
) -> SessionPeer {
    let mixed = attempt.mixed();
    SessionPeer {
        identifier: peer.identifier.clone(),
        role: peer.role.clone(),
        key: key.place,
        by_former: key.former,
        as_former: own.is_former(),
        is_initiator,
        protocol,
        kem: mixed.is_some_and(|kind| kind.kem).then_some(Kem::MlKem768),
        psk: mixed.is_some_and(|kind| kind.psk),
        operations: 0,
        resumed: attempt.resumed,
        token_seen: attempt.token_seen(),
    }
}

/// Makes the session, has the initiator of KK, KK1 and NN confirm it, and gives it its place among the others.
pub(super) async fn finish(
    shared: &Shared,
    config: &Config,
    pipe: Pipe,
    mut peer: SessionPeer,
    established: &Established,
    arrival: Arrival,
) -> Result<Session> {
    let patience = config.handshake.timeout;
    peer.operations = established.operations;
    let (name, is_called) = (peer.identifier.clone(), peer.is_initiator);
    let settings = shared.settings(&config.session, &peer, arrival.number);
    let beginning = timeout(patience, Session::begin(pipe, peer, established, settings));
    let begun = beginning.await.map_err(|_| late(patience)).and_then(|begun| begun.map_err(error_of));
    let session = begun.map_err(|error| match error.kind() {
        ErrorKind::SessionRevoked | ErrorKind::Internal => error,
        // The pipe would not take the confirmation, and says why.
        _ if !is_called => error,
        kind if established.protocol.pattern == Pattern::Nn => unconfirmed(&name, kind).because(error),
        ErrorKind::HandshakeTimeout => error,
        _ => Error::new(
            ErrorKind::HandshakeFailed,
            format!("`{name}` did not confirm the handshake: whoever called does not hold its key, or left."),
            compare(established.protocol.psk),
        )
        .because(error),
    })?;
    shared.arrived(arrival, established, &session)?;
    Ok(session)
}

/// A resumption that was answered, and nobody is there. Its first message proves that the peer made it, not when.
fn unconfirmed(name: &Identifier, why: ErrorKind) -> Error {
    let kind = match why {
        ErrorKind::HandshakeTimeout => why,
        ErrorKind::RecordInvalid => ErrorKind::HandshakeFailed,
        _ => ErrorKind::HandshakeRefused,
    };
    Error::new(
        kind,
        format!(
            "`{name}` did not confirm that it resumes: its connection broke, or its message was kept back on the way."
        ),
        "Nothing needs mending here: it cost nothing, and it can resume by its next link.",
    )
}

/// Answers every step until the handshake is done.
pub(super) async fn run(
    mut step: Step,
    pipe: &mut Pipe,
    token: &TokenHandle,
    patience: Duration,
    attempt: &mut Attempt,
) -> Result<Established> {
    loop {
        step = match agree(step, token, attempt).await? {
            Step::Send(send) => {
                write_frame(pipe, send.message(), patience).await?;
                send.sent()
            }
            Step::Receive(receive) => {
                let len = receive.expected_len();
                let message = read_frame(pipe, len, len, patience).await?;
                receive.received(&message)
            }
            Step::Finished(established) => return Ok(*established),
            Step::Agree(_) => return Err(internal("an unanswered step")),
        }
        .map_err(|error| failed(&error, attempt))?;
    }
}

/// Answers `Agree` steps until something else is needed.
pub(super) async fn agree(mut step: Step, token: &TokenHandle, attempt: &mut Attempt) -> Result<Step> {
    while let Step::Agree(waiting) = step {
        let started = Instant::now();
        let secret = token.agree(waiting.public(), &attempt.reason()).await;
        attempt.token += started.elapsed();
        // A full queue is the one failure before which nothing was asked of the token.
        if !secret.as_ref().is_err_and(|error| error.kind() == ErrorKind::TokenBusy) {
            attempt.asked();
        }
        step = waiting.resume(secret?).map_err(|error| failed(&error, attempt))?;
    }
    Ok(step)
}

/// Writes one frame within the deadline. How long the other end may take, here and below.
pub(super) async fn write_frame(pipe: &mut Pipe, body: &[u8], deadline: Duration) -> Result<()> {
    let frame = wire::frame(body).map_err(|_| internal("a handshake message is too long"))?;
    let writing = async {
        pipe.write_all(&frame).await?;
        pipe.flush().await
    };
    timeout(deadline, writing).await.map_err(|_| late(deadline))?.map_err(closed)
}

/// Reads one frame of `min..=max` bytes within the deadline.
pub(super) async fn read_frame(pipe: &mut Pipe, min: usize, max: usize, deadline: Duration) -> Result<Vec<u8>> {
    let reading = async {
        let mut header = [0; wire::FRAME_HEADER];
        pipe.read_exact(&mut header).await.map_err(closed)?;
        let len = wire::frame_len(header, min, max).map_err(|error| wire_error(&error))?;
        let mut body = vec![0; len];
        pipe.read_exact(&mut body).await.map_err(closed)?;
        Ok(body)
    };
    timeout(deadline, reading).await.map_err(|_| late(deadline))?
}

fn late(deadline: Duration) -> Error {
    Error::new(
        ErrorKind::HandshakeTimeout,
        format!("The other end did not answer within {} s.", deadline.as_secs()),
        "Try again; when it happens again, look at the other machine's log and token.",
    )
}

fn closed(error: io::Error) -> Error {
    // This end may have cut the pipe, and says why.
    let error = match error.downcast::<Error>() {
        Ok(typed) => return typed,
        Err(error) => error,
    };
    Error::new(
        ErrorKind::HandshakeRefused,
        "The other end closed the connection without an answer.",
        "Look at its log: its token is absent or was not touched, it does not know this machine by this key, KEM or pre-shared key (compare `claviger-ceremony show` on both), or the clocks differ.",
    )
    .because(error)
}

pub(super) fn wire_error(error: &wire::WireError) -> Error {
    let kind = match error {
        wire::WireError::Version(_) => ErrorKind::VersionUnsupported,
        _ => ErrorKind::PacketInvalid,
    };
    Error::new(
        kind,
        format!("The other end does not speak this protocol: {error}."),
        "Check that the address is that of a claviger machine of the same release.",
    )
}

pub(super) fn noise_error(error: &NoiseError, peer: Option<&Peer>) -> Error {
    let who = peer.map_or_else(|| "The other end".to_owned(), |peer| format!("`{}`", peer.identifier));
    match error {
        NoiseError::Curve => Error::new(
            ErrorKind::NoSharedCurve,
            format!("{who} has a key on another curve than this machine's."),
            "Give one of them a key on the other's curve and exchange cards again.",
        ),
        NoiseError::Point(_) => Error::new(
            ErrorKind::BadPoint,
            format!("{who} sent a public key that no honest machine sends."),
            "Treat it as an attack or as broken software on that machine.",
        ),
        NoiseError::EncapsulationKey => Error::new(
            ErrorKind::BadPoint,
            format!("{who} sent an encapsulation key that no honest machine sends."),
            "Treat it as an attack or as broken software on that machine.",
        ),
        NoiseError::Internal(what) => internal(what),
        NoiseError::Length => wire_error(&wire::WireError::Length),
        _ => Error::new(
            ErrorKind::HandshakeFailed,
            format!("{who} did not authenticate: {error}."),
            "Compare names, roles, keys and port of the two machines with `claviger-ceremony show` on both.",
        ),
    }
}

/// A step that failed on what the other end sent.
fn failed(error: &NoiseError, attempt: &Attempt) -> Error {
    match (error, &attempt.peer) {
        (NoiseError::Decrypt, Some(peer)) => Error::new(
            ErrorKind::HandshakeFailed,
            format!("`{peer}` did not authenticate: {error}."),
            compare(attempt.kind.is_some_and(|kind| kind.psk)),
        ),
        _ => noise_error(error, None),
    }
}

/// What to look at when the two ends do not agree. A pre-shared key is shown by no program.
fn compare(psk: bool) -> String {
    let psk =
        if psk { "; if they agree, give both the same pre-shared key with `claviger-ceremony psk record`" } else { "" };
    format!("Compare names, roles, keys and port of the two machines with `claviger-ceremony show` on both{psk}.")
}

pub(super) fn internal(what: &str) -> Error {
    Error::new(
        ErrorKind::Internal,
        format!("The handshake failed by an internal error: {what}."),
        "Please report this.",
    )
}

pub(super) fn knock_error(refused: knock::Refused, name: impl Fn(usize) -> String) -> Error {
    use knock::Refused;
    match refused {
        Refused::Wire(error) => wire_error(&error),
        Refused::Unknown => Error::new(
            ErrorKind::KnockUnknown,
            "A caller that fits no peer was dropped.",
            "If it should be a peer, import its card with `claviger-ceremony import`.",
        ),
        Refused::Stale { peer, ahead_ms } => Error::new(
            ErrorKind::KnockStale,
            format!(
                "`{}` knocked with a time that is {} s {} ours, or before this listener began.",
                name(peer),
                ahead_ms.unsigned_abs().div_ceil(1000),
                if ahead_ms < 0 { "behind" } else { "ahead of" }
            ),
            "Set the clocks of both machines, for example with NTP.",
        ),
        Refused::Replayed { peer } => Error::new(
            ErrorKind::KnockReplayed,
            format!("A knock of `{}` was sent a second time.", name(peer)),
            "Somebody recorded and repeated it; it cost nothing.",
        ),
        Refused::TooMany { peer } => Error::new(
            ErrorKind::RateLimited,
            format!("`{}` knocked more than {} times within the window.", name(peer), knock::MAX_SEEN),
            "Look for a client that connects in a loop on that machine.",
        ),
    }
}
