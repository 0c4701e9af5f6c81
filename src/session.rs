//! Sessions: the authenticated channel after a handshake. One session carries many [`Stream`]s, each opened for a named service.
//!
//! ```no_run
//! # async fn example(session: claviger::Session) -> claviger::Result<()> {
//! use claviger::session::error_of;
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! let mut stream = session.open(&"cosign".parse()?).await?;
//! stream.write_all(b"sign this").await.map_err(error_of)?;
//! stream.shutdown().await.map_err(error_of)?;
//! let mut answer = Vec::new();
//! stream.read_to_end(&mut answer).await.map_err(error_of)?;
//! drop(stream);
//! session.close().await
//! # }
//! ```
//!
//! Streams are those of yamux; beside their frames the two ends exchange [control messages](crate::wire::control), since yamux itself does not tell a stream that ended
//! from one that was cut. Both travel in records: Noise transport messages behind a big-endian `u16` length.
//!
//! A stream's reader is told that it has ended only when the peer said so and everything came that it sent. A session ends in one of three ways: one of its ends
//! [closes](Session::close) it and the other acknowledges; the pipe breaks; or the peer breaks the rules, which is not forgiven.

mod boot;
mod closing;
mod driver;
mod end;
mod frames;
mod limits;
mod line;
mod messages;
mod records;
mod shared;
mod status;
mod stream;

pub use crate::wire::control::{Reset, Why};
pub use boot::BootInstant;
pub use closing::CLOSE_PATIENCE;
pub use end::reset_of;
pub(crate) use limits::{PeerLimits, Told};
pub use messages::{Messages, messages};
#[doc(hidden)]
pub use records::Records;
pub use status::Status;
pub use stream::Stream;
pub use tokio_util::bytes::Bytes;

use crate::error::{Error, ErrorKind, Result};
use crate::identity::{Identifier, Kem, KeyPlace, Role, ServiceName};
use crate::noise::{Established, Protocol};
use crate::transport::Pipe;
use driver::Driver;
use end::to_io;
use line::Line;
use shared::Shared;
use std::future::poll_fn;
use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::Instant;

/// Who is at the other end, and how it was established.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Peer {
    /// The peer's name in this machine's store.
    pub identifier: Identifier,
    /// Its role.
    pub role: Role,
    /// Which of its keys it holds the token of.
    pub key: KeyPlace,
    /// The key is on the card that it had before its last one.
    pub by_former: bool,
    /// This machine is, to this peer, who it was before its rotation.
    pub as_former: bool,
    /// Whether it dialled.
    pub is_initiator: bool,
    /// The Noise protocol of the handshake.
    pub protocol: Protocol,
    /// The key encapsulation mechanism that the session's keys come of: that of its handshake, or of the full one that it resumes.
    pub kem: Option<Kem>,
    /// Whether they come of the two machines' pre-shared key, likewise.
    pub psk: bool,
    /// Token operations that the handshake cost this machine.
    pub operations: u32,
    /// Whether a broken session was resumed, without the token.
    pub resumed: bool,
    /// When this machine's token was last asked, for this session or for the one that it resumes.
    pub token_seen: BootInstant,
}

impl std::fmt::Display for Peer {
    /// How the session was made: `Noise_KK_25519_ChaChaPoly_BLAKE2s, 2 token operations`; `resumed, token last seen 4 min ago`. Behind it `, ML-KEM-768` and `, pre-shared key` when these
    /// are in its keys.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.resumed, self.operations) {
            (true, _) => write!(f, "resumed, token last seen {}", boot::ago(self.token_seen.elapsed()))?,
            (false, 1) => write!(f, "{}, 1 token operation", self.protocol.name())?,
            (false, operations) => write!(f, "{}, {operations} token operations", self.protocol.name())?,
        }
        if let Some(kem) = self.kem {
            write!(f, ", {}", kem.as_str())?;
        }
        if self.psk { f.write_str(", pre-shared key") } else { Ok(()) }
    }
}

/// An authenticated, encrypted channel to one peer, which carries streams. Clones share it.
///
/// A session whose handles and streams are all dropped is closed in the background; a program that ends right after should [`close`](Self::close) it, and wait.
#[derive(Clone)]
pub struct Session(Arc<Handle>);

struct Handle(Arc<Shared>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

/// A session that is not kept from being closed by being known: see [`Session::downgrade`].
#[derive(Clone)]
pub struct WeakSession(Weak<Handle>);

impl WeakSession {
    /// The session, if anybody still holds it.
    pub fn upgrade(&self) -> Option<Session> {
        self.0.upgrade().map(Session)
    }
}

/// A session, looked at and ended whether or not anybody still has a handle of it.
pub(crate) struct Watched(Weak<Shared>);

impl Watched {
    /// `None`: it is over.
    pub(crate) fn status(&self) -> Option<Status> {
        self.0.upgrade().map(|shared| Status::of(&shared)).filter(|status| !status.has_ended)
    }

    /// As [`Session::end`].
    pub(crate) fn end(&self, why: Why) {
        if let Some(shared) = self.0.upgrade() {
            shared.end(why);
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.0.upgrade().is_none_or(|shared| shared.queue().has_ended())
    }
}

/// Told once how a session has ended, before anybody else is.
pub(crate) type Over = Box<dyn FnOnce(ErrorKind) + Send + Sync>;

/// What a session keeps to.
pub(crate) struct Settings {
    /// After so long without a byte the peer is asked for a sign of life.
    pub(crate) keepalive: Duration,
    /// How long it may take for one.
    pub(crate) keepalive_timeout: Duration,
    /// After so long without a stream the session is closed; the responder's decision, ignored at the initiator. `None`: never.
    pub(crate) idle: Option<Duration>,
    /// How long streams may go on when no new ones are taken on.
    pub(crate) drain: Duration,
    /// When the session has come to its age. `None`: never.
    pub(crate) due: Option<Instant>,
    /// The same by a clock that goes on while the machine is suspended, which tokio's does not: looked at whenever the session does something, at least once in `keepalive`.
    pub(crate) sooner: Option<Box<dyn Fn() -> Instant + Send + Sync>>,
    /// What all sessions of the peer may use up together.
    pub(crate) limits: Arc<PeerLimits>,
    pub(crate) over: Option<Over>,
}

impl Settings {
    /// As configured.
    pub(crate) fn new(config: &crate::config::Session, due: Option<Instant>, limits: Arc<PeerLimits>) -> Self {
        Self {
            keepalive: config.keepalive,
            keepalive_timeout: config.keepalive_timeout,
            idle: Some(config.idle).filter(|idle| !idle.is_zero()),
            drain: config.drain,
            due,
            sooner: None,
            limits,
            over: None,
        }
    }
}

impl Session {
    /// From a finished handshake and the pipe it ran on. Where the handshake wants it confirmed (KK, KK1, NN), the initiator confirms, and the responder waits for that: until
    /// then nobody is known to be there.
    ///
    /// # Errors
    /// Those of the record layer; [`ErrorKind::Internal`].
    pub(crate) async fn begin(
        pipe: Pipe,
        peer: Peer,
        established: &Established,
        settings: Settings,
    ) -> io::Result<Self> {
        let (mut reader, mut writer) = records::split(pipe, established).map_err(|error| {
            to_io(Error::new(ErrorKind::Internal, format!("The session failed: {error}."), "Please report this."))
        })?;
        if established.protocol.pattern.confirms() {
            if peer.is_initiator {
                poll_fn(|cx| reader.poll_empty(cx)).await?;
            } else {
                writer.empty()?;
                poll_fn(|cx| writer.poll_flush(cx)).await?;
            }
        }
        let limits = Arc::clone(&settings.limits);
        let line = Line::new(peer.identifier.clone(), !peer.is_initiator, reader, writer, limits);
        let shared = Shared::new(peer, established.handshake_hash, Arc::clone(&settings.limits), line);
        tokio::spawn(Driver::new(Arc::clone(&shared), settings));
        Ok(Self(Arc::new(Handle(shared))))
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.0.0
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &Peer {
        &self.shared().peer
    }

    /// 32 bytes, the same at both ends and unique to this session: to bind something above to it (Noise, section 11.2). Public.
    pub fn handshake_hash(&self) -> &[u8; 32] {
        &self.shared().handshake_hash
    }

    /// Opens a stream for a service of the peer's. The peer's refusal is the first read's or write's error, not this one's.
    ///
    /// # Errors
    /// [`ErrorKind::StreamLimit`], [`ErrorKind::SessionDraining`], and why the session has ended.
    pub async fn open(&self, service: &ServiceName) -> Result<Stream> {
        self.shared().open(service).await
    }

    /// The next stream that the peer opens. Cancel-safe. Streams that came before the session ended are given first.
    ///
    /// # Errors
    /// Why the session has ended: [`ErrorKind::SessionClosed`] when one of the ends was done.
    pub async fn accept(&self) -> Result<Stream> {
        self.shared().accept().await
    }

    /// Closes the session so that both ends know that everything arrived. No new streams are taken on, and those that nobody has accepted yet are refused; those that
    /// are open may go on for as long as the configuration says (`drain`, 10 minutes by default), and are cut then.
    ///
    /// A stream is open until it is dropped, also when both its directions have ended: drop yours before, or this waits for them until that time is over.
    ///
    /// # Errors
    /// [`ErrorKind::SessionTruncated`] when the peer does not acknowledge the end within [`CLOSE_PATIENCE`], and may not have received everything; why the session
    /// has broken before.
    pub async fn close(&self) -> Result<()> {
        self.drain(Why::Done);
        self.shared().refuse();
        self.shared().closed().await.map_err(|end| end.error())
    }

    /// Takes on no new streams from now on, at either end. The session is closed when the last stream has ended, or when the time for that is over.
    pub fn drain(&self, why: Why) {
        self.shared().drain(why);
    }

    /// Closes the session at once: its streams are cut, and both ends are told why.
    pub fn end(&self, why: Why) {
        self.shared().end(why);
    }

    /// Waits until the session has ended.
    ///
    /// The error says why: [`ErrorKind::SessionClosed`] and its like when it was closed, another when it broke.
    pub async fn ended(&self) -> Error {
        self.shared().ended().await.error()
    }

    /// What it carries, and has carried.
    pub fn status(&self) -> Status {
        Status::of(self.shared())
    }

    /// How it has ended, if it has.
    pub(crate) fn how_ended(&self) -> Option<ErrorKind> {
        self.shared().how_ended()
    }

    pub(crate) fn watched(&self) -> Watched {
        Watched(Arc::downgrade(self.shared()))
    }

    /// A handle that does not keep it open.
    pub fn downgrade(&self) -> WeakSession {
        WeakSession(Arc::downgrade(&self.0))
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("peer", self.peer()).finish_non_exhaustive()
    }
}

/// This end cut the pipe.
pub(crate) fn is_revoked(error: &io::Error) -> bool {
    let error = error.get_ref().and_then(|error| error.downcast_ref::<Error>());
    error.is_some_and(|error| error.kind() == ErrorKind::SessionRevoked)
}

/// The typed error of a failed read or write on a [`Stream`].
pub fn error_of(error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(typed) => typed,
        Err(error) => Error::new(
            ErrorKind::SessionIo,
            format!("The session's pipe failed: {error}."),
            "Connect again; the circuit or the other machine went away.",
        ),
    }
}

#[cfg(test)]
mod tests;
