//! The handshake as a chain of steps over snow.

use super::resolver::{Answers, Resolver, TOKEN_HANDLE};
use super::{NoiseError, Protocol};
use crate::identity::StaticPublic;
use crate::secret::{CipherKey, EphemeralSecret, SharedSecret};
use crate::wire::{MAX_HANDSHAKE_MESSAGE, Pattern};
use snow::{Builder, HandshakeState};
use std::collections::VecDeque;

pub(super) use crate::wire::TAG;

/// What a handshake starts from.
pub struct Setup<'a> {
    protocol: Protocol,
    local: &'a StaticPublic,
    remote: &'a StaticPublic,
    prologue: &'a [u8],
    /// Tests and published vectors choose it; otherwise each handshake makes a fresh one.
    ephemeral: Option<EphemeralSecret>,
}

impl<'a> Setup<'a> {
    /// `protocol`: the same at both ends. `local`: this machine's static public key, whose private half the token has. `remote`: the
    /// peer's, from the store. `prologue`: as [`wire::prologue`](crate::wire::prologue) makes it, the same at both ends.
    pub fn new(protocol: Protocol, local: &'a StaticPublic, remote: &'a StaticPublic, prologue: &'a [u8]) -> Self {
        Self { protocol, local, remote, prologue, ephemeral: None }
    }

    /// Fixes the ephemeral key. Only for tests: a handshake that repeats one gives its secrets away.
    #[cfg(test)]
    pub(crate) fn with_ephemeral(mut self, ephemeral: EphemeralSecret) -> Self {
        self.ephemeral = Some(ephemeral);
        self
    }
}

/// What the handshake needs next. Each is consumed by its answer.
#[must_use = "a handshake goes on only when its step is answered"]
pub enum Step {
    /// One token operation.
    Agree(Agree),
    /// A message to write.
    Send(Send),
    /// A message to read.
    Receive(Receive),
    /// Done.
    Finished(Box<Established>),
}

/// The handshake waits for a Diffie-Hellman operation with the static key.
pub struct Agree {
    state: Box<State>,
    then: Then,
}

/// The handshake waits until its message is written.
pub struct Send {
    state: Box<State>,
    message: Vec<u8>,
}

/// The handshake waits for the peer's message.
pub struct Receive {
    state: Box<State>,
}

/// A finished handshake.
pub struct Established {
    /// Key of the records this end sends. Secret.
    pub send: CipherKey,
    /// Key of the records this end receives. Secret.
    pub receive: CipherKey,
    /// The handshake hash (Noise, section 11.2), 32 bytes: public, the same at both ends, unique to this session.
    pub handshake_hash: [u8; 32],
    /// The peer's static public key. The initiator of every pattern, and XK's responder, has seen it proved; a responder of KK or KK1 has not
    /// before the initiator's [confirmation](Pattern::confirms) opens.
    pub remote: StaticPublic,
    /// Which protocol.
    pub protocol: Protocol,
    /// Token operations spent.
    pub operations: u32,
    /// Payloads of the peer's handshake messages, those that were not empty. Version 1 sends none.
    pub payloads: Vec<Vec<u8>>,
}

enum Then {
    /// Write our next message.
    Write,
    /// Feed the peer's message to snow.
    Read(Vec<u8>),
}

struct State {
    snow: HandshakeState,
    answers: Answers,
    protocol: Protocol,
    initiator: bool,
    remote: StaticPublic,
    /// The peer's ephemeral, once seen.
    remote_ephemeral: Option<StaticPublic>,
    /// Messages written and read so far.
    messages: u8,
    /// Points to agree with before `then`, first one first.
    wanted: VecDeque<StaticPublic>,
    operations: u32,
    /// Payloads of our messages.
    outgoing: VecDeque<Vec<u8>>,
    incoming: Vec<Vec<u8>>,
}

/// Starts a handshake as the end that dials.
///
/// # Errors
/// [`NoiseError::Curve`] when a key is not on the protocol's curve.
pub fn initiator(setup: Setup<'_>) -> Result<Step, NoiseError> {
    let name = setup.protocol.name();
    State::new(setup, &name, true, Vec::new())?.proceed()
}

/// Starts a handshake as the end that listens. With XK, too, the peer is known before (by its knock), and another static key in
/// message 3 ends the handshake.
///
/// # Errors
/// As [`initiator`].
pub fn responder(setup: Setup<'_>) -> Result<Step, NoiseError> {
    let name = setup.protocol.name();
    State::new(setup, &name, false, Vec::new())?.proceed()
}

impl Agree {
    /// The checked point to agree with.
    pub fn public(&self) -> &StaticPublic {
        &self.state.wanted[0] // an Agree is only made with a point in `wanted`
    }

    /// Goes on with the token's answer.
    ///
    /// # Errors
    /// [`NoiseError::Decrypt`] when the peer's message, kept until now, does not authenticate.
    pub fn resume(mut self, secret: SharedSecret) -> Result<Step, NoiseError> {
        if let Some(point) = self.state.wanted.pop_front() {
            self.state.answers.put(point.as_bytes(), secret);
            self.state.operations += 1;
        }
        self.state.after_agreeing(self.then)
    }
}

impl Send {
    /// The Noise message to write.
    pub fn message(&self) -> &[u8] {
        &self.message
    }

    /// Goes on after it was written.
    ///
    /// # Errors
    /// [`NoiseError::Internal`] only.
    pub fn sent(self) -> Result<Step, NoiseError> {
        self.state.proceed()
    }
}

impl Receive {
    /// The exact length of the message expected, with an empty payload: what version 1 accepts.
    pub fn expected_len(&self) -> usize {
        let state = &self.state;
        match (state.protocol.pattern, state.messages) {
            (pattern, 0) => pattern.first_message_len(state.protocol.curve),
            // XK   -> s, se
            (Pattern::Xk, 2) => state.protocol.curve.public_len() + TAG + TAG,
            _ => state.protocol.curve.public_len() + TAG,
        }
    }

    /// Goes on with the peer's message.
    ///
    /// # Errors
    /// [`NoiseError::Length`], [`NoiseError::Point`] for an ephemeral that no honest peer sends (found before any token operation),
    /// [`NoiseError::Decrypt`], [`NoiseError::OtherStatic`].
    pub fn received(mut self, message: &[u8]) -> Result<Step, NoiseError> {
        let state = &mut self.state;
        if message.len() > MAX_HANDSHAKE_MESSAGE {
            return Err(NoiseError::Length);
        }
        // Messages 1 and 2 begin with `e` in the clear, in every pattern here.
        if state.messages < 2 {
            let point = message.get(..state.protocol.curve.public_len()).ok_or(NoiseError::Length)?;
            let point = StaticPublic::new(state.protocol.curve, point).map_err(NoiseError::Point)?;
            state.remote_ephemeral = Some(point);
        }
        state.want_for_reading()?;
        self.state.after_agreeing(Then::Read(message.to_vec()))
    }
}

impl State {
    pub(super) fn new(
        setup: Setup<'_>,
        name: &str,
        initiator: bool,
        outgoing: Vec<Vec<u8>>,
    ) -> Result<Box<Self>, NoiseError> {
        let protocol = setup.protocol;
        if setup.local.curve() != protocol.curve || setup.remote.curve() != protocol.curve {
            return Err(NoiseError::Curve);
        }
        let answers = Answers::default();
        let resolver =
            Resolver { curve: protocol.curve, public: setup.local.as_bytes().into(), answers: answers.clone() };
        let params = name.parse().map_err(|_| NoiseError::Internal("protocol name"))?;
        let failed = |_| NoiseError::Internal("handshake set-up");
        let mut builder = Builder::with_resolver(params, Box::new(resolver))
            .prologue(setup.prologue)
            .and_then(|builder| builder.local_private_key(TOKEN_HANDLE))
            .map_err(failed)?;
        // XK's responder learns the static key from message 3.
        if initiator || protocol.pattern != Pattern::Xk {
            builder = builder.remote_public_key(setup.remote.as_bytes()).map_err(failed)?;
        }
        if let Some(ephemeral) = &setup.ephemeral {
            builder = builder.fixed_ephemeral_key_for_testing_only(ephemeral.expose());
        }
        let snow = if initiator { builder.build_initiator() } else { builder.build_responder() }.map_err(failed)?;
        Ok(Box::new(Self {
            snow,
            answers,
            protocol,
            initiator,
            remote: setup.remote.clone(),
            remote_ephemeral: None,
            messages: 0,
            wanted: VecDeque::new(),
            operations: 0,
            outgoing: outgoing.into(),
            incoming: Vec::new(),
        }))
    }

    /// Decides what comes next between two messages.
    pub(super) fn proceed(mut self: Box<Self>) -> Result<Step, NoiseError> {
        if self.snow.is_handshake_finished() {
            return self.finish();
        }
        if !self.snow.is_my_turn() {
            return Ok(Step::Receive(Receive { state: self }));
        }
        self.want_for_writing()?;
        self.after_agreeing(Then::Write)
    }

    /// Static-key operations of the message we write next.
    fn want_for_writing(&mut self) -> Result<(), NoiseError> {
        match (self.protocol.pattern, self.initiator, self.messages) {
            // KK   -> e, es, ss
            (Pattern::Kk, true, 0) => self.wanted.push_back(self.remote.clone()),
            // KK1  <- e, ee, se, es  (the responder's static with the initiator's ephemeral)
            // XK   -> s, se
            (Pattern::Kk1, false, 1) | (Pattern::Xk, true, 2) => {
                let point = self.ephemeral()?;
                self.wanted.push_back(point);
            }
            _ => {}
        }
        Ok(())
    }

    /// Static-key operations of the message we read next.
    fn want_for_reading(&mut self) -> Result<(), NoiseError> {
        match (self.protocol.pattern, self.initiator, self.messages) {
            // KK   -> e, es, ss
            (Pattern::Kk, false, 0) => {
                let point = self.ephemeral()?;
                self.wanted.push_back(point);
                self.wanted.push_back(self.remote.clone());
            }
            // KK   <- e, ee, se      KK1  <- e, ee, se, es      XK   -> e, es
            (Pattern::Kk | Pattern::Kk1, true, 1) | (Pattern::Xk, false, 0) => {
                let point = self.ephemeral()?;
                self.wanted.push_back(point);
            }
            _ => {}
        }
        Ok(())
    }

    fn ephemeral(&self) -> Result<StaticPublic, NoiseError> {
        self.remote_ephemeral.clone().ok_or(NoiseError::Internal("no remote ephemeral"))
    }

    fn after_agreeing(mut self: Box<Self>, then: Then) -> Result<Step, NoiseError> {
        if !self.wanted.is_empty() {
            return Ok(Step::Agree(Agree { state: self, then }));
        }
        match then {
            Then::Write => {
                let payload = self.outgoing.pop_front().unwrap_or_default();
                let mut message = vec![0; MAX_HANDSHAKE_MESSAGE];
                let len = self
                    .snow
                    .write_message(&payload, &mut message)
                    .map_err(|_| NoiseError::Internal("write_message"))?;
                message.truncate(len);
                self.messages += 1;
                Ok(Step::Send(Send { state: self, message }))
            }
            Then::Read(message) => {
                let mut payload = vec![0; MAX_HANDSHAKE_MESSAGE];
                let len = self.snow.read_message(&message, &mut payload).map_err(|error| match error {
                    snow::Error::Decrypt => NoiseError::Decrypt,
                    snow::Error::Input => NoiseError::Length,
                    snow::Error::Dh => NoiseError::Decrypt,
                    _ => NoiseError::Internal("read_message"),
                })?;
                if len > 0 {
                    payload.truncate(len);
                    self.incoming.push(payload);
                }
                self.messages += 1;
                self.proceed()
            }
        }
    }

    fn finish(mut self: Box<Self>) -> Result<Step, NoiseError> {
        let shown = self.snow.get_remote_static().and_then(|bytes| bytes.get(..self.protocol.curve.public_len()));
        if shown != Some(self.remote.as_bytes()) {
            return Err(NoiseError::OtherStatic);
        }
        let mut handshake_hash = [0; 32];
        let hash = self.snow.get_handshake_hash();
        handshake_hash.copy_from_slice(hash.get(..32).ok_or(NoiseError::Internal("handshake hash"))?);
        let (mut first, mut second) = self.snow.dangerously_get_raw_split();
        let (first, second) = (CipherKey::take(&mut first), CipherKey::take(&mut second));
        let (send, receive) = if self.initiator { (first, second) } else { (second, first) };
        Ok(Step::Finished(Box::new(Established {
            send,
            receive,
            handshake_hash,
            remote: self.remote,
            protocol: self.protocol,
            operations: self.operations,
            payloads: self.incoming,
        })))
    }
}

impl std::fmt::Debug for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Agree(_) => "Step::Agree",
            Self::Send(_) => "Step::Send",
            Self::Receive(_) => "Step::Receive",
            Self::Finished(_) => "Step::Finished",
        })
    }
}

#[cfg(test)]
impl Setup<'_> {
    /// For the vectors: any protocol name, payloads.
    pub(super) fn start(self, name: &str, initiator: bool, payloads: Vec<Vec<u8>>) -> Result<Step, NoiseError> {
        State::new(self, name, initiator, payloads)?.proceed()
    }
}
