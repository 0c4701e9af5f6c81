//! The handshake as a chain of steps over snow.

use super::kem::{self, DecapsulationKey, Encapsulation, Exchange};
use super::resolver::{Answers, Resolver, TOKEN_HANDLE};
use super::{NoiseError, Protocol};
use crate::identity::{Kem, StaticPublic};
use crate::secret::{CipherKey, EphemeralSecret, NoisePsk, PresharedKey, SharedSecret};
use crate::wire::{KEM_CIPHERTEXT, MAX_HANDSHAKE_MESSAGE, Pattern};
use snow::{Builder, HandshakeState};
use std::collections::VecDeque;

pub(super) use crate::wire::TAG;

/// What a handshake starts from.
pub struct Setup<'a> {
    protocol: Protocol,
    /// A resumption has no static key.
    local: Option<&'a StaticPublic>,
    remote: &'a StaticPublic,
    prologue: &'a [u8],
    preshared: Option<&'a PresharedKey>,
    /// Given beforehand: of a resumption, and in the published vectors.
    psk: Option<&'a NoisePsk>,
    fixed: Fixed,
}

/// What tests and vectors choose, and every other handshake makes anew: one that is used twice gives its secrets away.
#[derive(Default)]
pub(super) struct Fixed {
    pub(super) ephemeral: Option<EphemeralSecret>,
    pub(super) decapsulation_key: Option<DecapsulationKey>,
    pub(super) encapsulation: Option<Encapsulation>,
    /// Payloads of any length, which the published vectors have.
    pub(super) payloads: Option<Vec<Vec<u8>>>,
}

impl<'a> Setup<'a> {
    /// `protocol`: the same at both ends. `local`: this machine's static public key, whose private half the token has. `remote`: the
    /// peer's, from the store. `prologue`: as [`wire::prologue`](crate::wire::prologue) makes it, the same at both ends.
    pub fn new(protocol: Protocol, local: &'a StaticPublic, remote: &'a StaticPublic, prologue: &'a [u8]) -> Self {
        Self { protocol, local: Some(local), remote, prologue, preshared: None, psk: None, fixed: Fixed::default() }
    }

    /// The key that the two machines hold beside; given exactly when the protocol has [`psk`](Protocol::psk).
    #[must_use]
    pub fn with_preshared_key(mut self, key: &'a PresharedKey) -> Self {
        self.preshared = Some(key);
        self
    }

    /// For a resumption, NNpsk0, which asks nothing of the token. `protocol`: a [`Protocol::resumption`]. `remote`: who is at the other end, by the chain that `psk` is of;
    /// the prologue binds both static keys. The id in front of the first message is not seen here.
    pub fn resumption(protocol: Protocol, remote: &'a StaticPublic, prologue: &'a [u8], psk: &'a NoisePsk) -> Self {
        Self { protocol, local: None, remote, prologue, preshared: None, psk: Some(psk), fixed: Fixed::default() }
    }

    #[cfg(test)]
    pub(super) fn with_fixed(mut self, fixed: Fixed) -> Self {
        self.fixed = fixed;
        self
    }

    /// For the published vectors: a `psk` as it is.
    #[cfg(test)]
    pub(super) fn with_psk(mut self, psk: Option<&'a NoisePsk>) -> Self {
        self.psk = psk;
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
    /// before the initiator's [confirmation](Pattern::confirms) opens. Of a resumption: as it was given.
    pub remote: StaticPublic,
    /// Which protocol.
    pub protocol: Protocol,
    /// Token operations spent.
    pub operations: u32,
    /// Payloads of the peer's handshake messages, of the published vectors.
    #[cfg(test)]
    pub(super) payloads: Vec<Vec<u8>>,
}

enum Then {
    /// Write our next message.
    Write,
    /// Take the ciphertext, if one came in front, and feed the peer's message to snow.
    Read { ciphertext: Vec<u8>, message: Vec<u8> },
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
    preshared: Option<PresharedKey>,
    /// The initiator's, from message 1 to message 2.
    decapsulation_key: Option<DecapsulationKey>,
    /// The responder's, from message 1 to message 2.
    ciphertext: Vec<u8>,
    fixed: Fixed,
    #[cfg(test)]
    incoming: Vec<Vec<u8>>,
}

/// Starts a handshake as the end that dials.
///
/// # Errors
/// [`NoiseError::Curve`] when a key is not on the protocol's curve; [`NoiseError::Internal`] when the protocol has a pre-shared key and the set-up none, or the other way round.
pub fn initiator(setup: Setup<'_>) -> Result<Step, NoiseError> {
    let name = setup.protocol.name();
    State::new(setup, &name, true)?.proceed()
}

/// Starts a handshake as the end that listens. With XK, too, the peer is known before (by its knock), and another static key in
/// message 3 ends the handshake.
///
/// # Errors
/// As [`initiator`].
pub fn responder(setup: Setup<'_>) -> Result<Step, NoiseError> {
    let name = setup.protocol.name();
    State::new(setup, &name, false)?.proceed()
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
    /// The exact length in bytes of the message expected.
    pub fn expected_len(&self) -> usize {
        let state = &self.state;
        state.protocol.kind().message_len(state.protocol.curve, state.messages + 1)
    }

    /// Goes on with the peer's message: the frame's body, which is more than Noise's message where a ciphertext stands in front of it.
    ///
    /// # Errors
    /// [`NoiseError::Length`]; [`NoiseError::Point`] for an ephemeral that no honest peer sends (found before any token operation);
    /// [`NoiseError::EncapsulationKey`] (before one with KK1, after with KK and XK, which encrypt it); [`NoiseError::Decrypt`]; [`NoiseError::OtherStatic`].
    pub fn received(mut self, message: &[u8]) -> Result<Step, NoiseError> {
        if !self.state.takes_payloads() && message.len() != self.expected_len() {
            return Err(NoiseError::Length);
        }
        let state = &mut self.state;
        let (ciphertext, message) = message.split_at_checked(state.ciphertext_in_front()).ok_or(NoiseError::Length)?;
        // Messages 1 and 2 begin with `e` in the clear, in every pattern here.
        if state.messages < 2 {
            let point = message.get(..state.protocol.curve.public_len()).ok_or(NoiseError::Length)?;
            let point = StaticPublic::new(state.protocol.curve, point).map_err(NoiseError::Point)?;
            state.remote_ephemeral = Some(point);
        }
        state.want_for_reading()?;
        let (ciphertext, message) = (ciphertext.to_vec(), message.to_vec());
        self.state.after_agreeing(Then::Read { ciphertext, message })
    }
}

impl State {
    fn new(setup: Setup<'_>, name: &str, initiator: bool) -> Result<Box<Self>, NoiseError> {
        let protocol = setup.protocol;
        if [setup.local, Some(setup.remote)].into_iter().flatten().any(|key| key.curve() != protocol.curve) {
            return Err(NoiseError::Curve);
        }
        let has_psk = setup.preshared.is_some() || setup.local.is_some() && setup.psk.is_some();
        if protocol.psk != has_psk || setup.local.is_some() == (protocol.pattern == Pattern::Nn) {
            return Err(NoiseError::Internal("keys that are not the protocol's"));
        }
        let answers = Answers::default();
        let public = setup.local.map_or_else(Box::default, |local| local.as_bytes().into());
        let resolver = Resolver { curve: protocol.curve, public, answers: answers.clone() };
        let params = name.parse().map_err(|_| NoiseError::Internal("protocol name"))?;
        let failed = |_| NoiseError::Internal("handshake set-up");
        let mut builder =
            Builder::with_resolver(params, Box::new(resolver)).prologue(setup.prologue).map_err(failed)?;
        if setup.local.is_some() {
            builder = builder.local_private_key(TOKEN_HANDLE).map_err(failed)?;
            // XK's responder learns the static key from message 3.
            if initiator || protocol.pattern != Pattern::Xk {
                builder = builder.remote_public_key(setup.remote.as_bytes()).map_err(failed)?;
            }
        }
        if let Some(ephemeral) = &setup.fixed.ephemeral {
            builder = builder.fixed_ephemeral_key_for_testing_only(ephemeral.expose());
        }
        let snow = if initiator { builder.build_initiator() } else { builder.build_responder() }.map_err(failed)?;
        let mut state = Box::new(Self {
            snow,
            answers,
            protocol,
            initiator,
            remote: setup.remote.clone(),
            remote_ephemeral: None,
            messages: 0,
            wanted: VecDeque::new(),
            operations: 0,
            preshared: setup.preshared.map(|key| PresharedKey::new(*key.expose())),
            decapsulation_key: None,
            ciphertext: Vec::new(),
            fixed: setup.fixed,
            #[cfg(test)]
            incoming: Vec::new(),
        });
        match (setup.psk, protocol.kem) {
            (Some(psk), _) => state.set_psk(psk)?,
            (None, None) if protocol.psk => state.mix(None)?,
            // With the KEM it is there when both halves of the exchange are.
            (None, _) => {}
        }
        Ok(state)
    }

    fn set_psk(&mut self, psk: &NoisePsk) -> Result<(), NoiseError> {
        let place = usize::from(self.protocol.psk_place());
        self.snow.set_psk(place, psk.expose()).map_err(|_| NoiseError::Internal("psk"))
    }

    /// Everything that the `psk` is made of is there.
    fn mix(&mut self, exchange: Option<Exchange<'_>>) -> Result<(), NoiseError> {
        let psk = kem::psk(self.protocol.kind(), exchange, self.preshared.as_ref())?;
        self.set_psk(&psk)
    }

    /// Bytes of KEM ciphertext in front of the message that comes next. In message 2 of KK and KK1 the `psk` comes before the payload,
    /// so the payload can not carry what it is made of.
    fn ciphertext_in_front(&self) -> usize {
        match (self.protocol.pattern, self.protocol.kem, self.messages) {
            (Pattern::Kk | Pattern::Kk1, Some(Kem::MlKem768), 1) => KEM_CIPHERTEXT,
            _ => 0,
        }
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

    fn after_agreeing(self: Box<Self>, then: Then) -> Result<Step, NoiseError> {
        if !self.wanted.is_empty() {
            return Ok(Step::Agree(Agree { state: self, then }));
        }
        match then {
            Then::Write => self.write(),
            Then::Read { ciphertext, message } => self.read(&ciphertext, &message),
        }
    }

    fn write(mut self: Box<Self>) -> Result<Step, NoiseError> {
        let mut payload = Vec::new();
        let mut message = Vec::new();
        if self.protocol.kem.is_some() && self.messages == 0 {
            // Not before: the token may be asked while there is no pipe yet, and must not wait for this.
            let fixed = self.fixed.decapsulation_key.take();
            let key = fixed.map_or_else(DecapsulationKey::generate, Ok)?;
            payload.extend_from_slice(key.public());
            self.decapsulation_key = Some(key);
        } else if self.ciphertext_in_front() > 0 {
            message = std::mem::take(&mut self.ciphertext);
        } else {
            payload = std::mem::take(&mut self.ciphertext);
        }
        if let Some(given) = self.fixed.payloads.as_mut().filter(|given| !given.is_empty()) {
            payload = given.remove(0);
        }
        let start = message.len();
        message.resize(start + MAX_HANDSHAKE_MESSAGE, 0);
        let written = self.snow.write_message(&payload, &mut message[start..]);
        message.truncate(start + written.map_err(|_| NoiseError::Internal("write_message"))?);
        self.messages += 1;
        Ok(Step::Send(Send { state: self, message }))
    }

    fn read(mut self: Box<Self>, ciphertext: &[u8], message: &[u8]) -> Result<Step, NoiseError> {
        if !ciphertext.is_empty() {
            self.decapsulate(ciphertext)?;
        }
        let mut payload = vec![0; MAX_HANDSHAKE_MESSAGE];
        let len = self.snow.read_message(message, &mut payload).map_err(|error| match error {
            snow::Error::Decrypt => NoiseError::Decrypt,
            snow::Error::Input => NoiseError::Length,
            snow::Error::Dh => NoiseError::Decrypt,
            _ => NoiseError::Internal("read_message"),
        })?;
        payload.truncate(len);
        #[cfg(test)]
        if self.takes_payloads() && len > 0 {
            self.incoming.push(std::mem::take(&mut payload));
        }
        // The message's length was checked, so a payload that is not empty is of the KEM and has its length.
        match (self.initiator, payload.len()) {
            (_, 0) => {}
            (true, _) => self.decapsulate(&payload)?,
            (false, _) => self.encapsulate(&payload)?,
        }
        self.messages += 1;
        self.proceed()
    }

    fn decapsulate(&mut self, ciphertext: &[u8]) -> Result<(), NoiseError> {
        let key = self.decapsulation_key.take().ok_or(NoiseError::Internal("no decapsulation key"))?;
        let secret = key.decapsulate(ciphertext)?;
        self.mix(Some(Exchange { public: key.public(), ciphertext, secret: &secret }))
    }

    fn encapsulate(&mut self, public: &[u8]) -> Result<(), NoiseError> {
        let fixed = self.fixed.encapsulation.take();
        let Encapsulation { ciphertext, secret } = fixed.map_or_else(|| kem::encapsulate(public), Ok)?;
        self.mix(Some(Exchange { public, ciphertext: &ciphertext, secret: &secret }))?;
        self.ciphertext = ciphertext;
        Ok(())
    }

    fn takes_payloads(&self) -> bool {
        self.fixed.payloads.is_some()
    }

    fn finish(mut self: Box<Self>) -> Result<Step, NoiseError> {
        let shown = self.snow.get_remote_static().and_then(|bytes| bytes.get(..self.protocol.curve.public_len()));
        if self.protocol.pattern != Pattern::Nn && shown != Some(self.remote.as_bytes()) {
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
            #[cfg(test)]
            payloads: std::mem::take(&mut self.incoming),
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
    /// For the vectors: any protocol name.
    pub(super) fn start(self, name: &str, initiator: bool) -> Result<Step, NoiseError> {
        State::new(self, name, initiator)?.proceed()
    }
}
