//! The error of this library: what failed, of which kind, and what to do.

mod exit;
pub(crate) mod spelling;

pub use exit::ExitCode;

use crate::identity::IdentityError;

/// Result of this library.
pub type Result<T> = std::result::Result<T, Error>;

/// A failure: a typed [`ErrorKind`], a sentence that says what happened (`Display`), and one that says what to do ([`hint`](Self::hint)).
///
/// Neither sentence holds a secret or a full onion address.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    what: String,
    hint: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// A failure. `what` is a full sentence; so is `hint`, with the mending command where there is one.
    pub fn new(kind: ErrorKind, what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, what: what.into(), hint: hint.into(), source: None }))
    }

    /// Adds the foreign error that caused it.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// What kind of failure.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What the system or a library below said, if that is known: its errors' texts, outermost first.
    pub fn cause(&self) -> Option<String> {
        let first = std::error::Error::source(self)?;
        let chain = std::iter::successors(Some(first), |error| error.source());
        // Many errors repeat their source's text.
        let mut texts = vec![self.to_string()];
        for text in chain.map(ToString::to_string) {
            if !texts.iter().any(|said| said.contains(&text)) {
                texts.push(text);
            }
        }
        (texts.len() > 1).then(|| texts[1..].join(": "))
    }

    /// What to do about it: one sentence.
    pub fn hint(&self) -> &str {
        &self.0.hint
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.what)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

impl From<IdentityError> for Error {
    /// An identity error's two sentences, kept.
    fn from(error: IdentityError) -> Self {
        let kind = match &error {
            IdentityError::CardChecksum => ErrorKind::CardChecksum,
            IdentityError::CardVersion(_) => ErrorKind::CardVersion,
            IdentityError::Card { .. } | IdentityError::CardSize(_) | IdentityError::CardLineEnds => {
                ErrorKind::CardInvalid
            }
            IdentityError::Attestation(_) => ErrorKind::AttestationInvalid,
            IdentityError::Fingerprint(_) => ErrorKind::FingerprintInvalid,
            IdentityError::KeyGeneration => ErrorKind::Internal,
            _ => ErrorKind::IdentityInvalid,
        };
        Self::new(kind, error.to_string(), error.hint())
    }
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// The kind of a failure. Its [text](Self::as_str) is the typed reason in logs and in `--json` output, and never changes meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ErrorKind {
            $($(#[$doc])* $name,)*
        }

        impl ErrorKind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The typed reason, in kebab case.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

kinds! {
    // Configuration and identities.
    /// The configuration file has a wrong or unknown key, or can not be read.
    ConfigInvalid = "config-invalid",
    /// A name, key, address, curve or suite is malformed.
    IdentityInvalid = "identity-invalid",
    /// Not an identity card.
    CardInvalid = "card-invalid",
    /// An identity card that was changed after it was written.
    CardChecksum = "card-checksum",
    /// An identity card of a format version that is not read here.
    CardVersion = "card-version",
    /// Text that is no fingerprint.
    FingerprintInvalid = "fingerprint-invalid",
    /// The fingerprint given is not the card's.
    FingerprintMismatch = "fingerprint-mismatch",
    /// The card is this machine's own.
    CardIsOwn = "card-is-own",
    /// A peer of that name, key or address is recorded already, with other values.
    PeerConflict = "peer-conflict",
    /// The two machines share no curve.
    NoSharedCurve = "no-shared-curve",
    /// The two machines share no suite.
    NoSharedSuite = "no-shared-suite",
    /// A plan that is malformed, or contradicts itself.
    PlanInvalid = "plan-invalid",
    /// A card, a machine or a file that is not according to the plan: a stranger, another role or curve, another plan.
    PlanMismatch = "plan-mismatch",
    /// Something that the plan demands has not been done yet.
    CeremonyIncomplete = "ceremony-incomplete",
    /// A challenge or proof that is malformed, of another ceremony, or does not fit the key on the card.
    ProofInvalid = "proof-invalid",
    /// A challenge whose time has passed.
    ProofExpired = "proof-expired",
    /// A proof that counted already.
    ProofUsed = "proof-used",
    /// A next card that is malformed, not for this machine, or not vouched for by the present key.
    SuccessionInvalid = "succession-invalid",
    /// A pre-shared key's text that is malformed or was changed.
    PresharedKeyInvalid = "preshared-key-invalid",
    /// The machine or key was revoked here.
    PeerRevoked = "peer-revoked",
    /// The peer's time has passed.
    PeerExpired = "peer-expired",
    /// An image in which no QR code can be read, or one of something else.
    QrUnreadable = "qr-unreadable",
    /// A transcript that is malformed or was changed.
    TranscriptInvalid = "transcript-invalid",
    /// Transcripts of machines that did not hold the same ceremony.
    TranscriptsDiffer = "transcripts-differ",
    /// This machine is not ready.
    NotReady = "not-ready",
    /// The person asked said no.
    Declined = "declined",
    // Store.
    /// There is no store.
    StoreAbsent = "store-absent",
    /// There is a store already.
    StoreExists = "store-exists",
    /// The store was written by a newer release.
    StoreNewer = "store-newer",
    /// The store's directory or files can be read or changed by others.
    StorePermissions = "store-permissions",
    /// Another process holds the store's lock for too long.
    StoreBusy = "store-busy",
    /// The store's content is not what this program writes.
    StoreCorrupt = "store-corrupt",
    /// The store is sealed, and its token was not asked.
    StoreLocked = "store-locked",
    /// The store is not sealed, and has to be.
    StoreUnsealed = "store-unsealed",
    /// The store was changed outside the tool: its seal does not fit.
    StoreTampered = "store-tampered",
    /// The store can not be read or written: disk full, I/O error.
    StoreIo = "store-io",
    /// No peer of that name is in the store.
    PeerUnknown = "peer-unknown",
    // Token.
    /// The token's locator is malformed.
    LocatorInvalid = "locator-invalid",
    /// The token is not there.
    TokenAbsent = "token-absent",
    /// The PKCS#11 module is missing or does not work.
    TokenModule = "token-module",
    /// The key is not on the token, or more than one fits.
    KeyNotFound = "key-not-found",
    /// The token holds another key than the identity's.
    KeyMismatch = "key-mismatch",
    /// The token or file holds a key already.
    KeyExists = "key-exists",
    /// The key's curve is another, or the token can not do it.
    CurveUnsupported = "curve-unsupported",
    /// A PIN or passphrase is needed and none could be asked for.
    PinRequired = "pin-required",
    /// The PIN or passphrase was wrong.
    PinWrong = "pin-wrong",
    /// The PIN is blocked, or has one try left.
    PinLocked = "pin-locked",
    /// The token's queue is full, or someone else holds the token.
    TokenBusy = "token-busy",
    /// The token did not answer in time.
    TokenTimeout = "token-timeout",
    /// The token waited for a touch and was not touched.
    TokenNotTouched = "token-not-touched",
    /// An attestation is malformed, does not fit key or device, or leads to no maker's root.
    AttestationInvalid = "attestation-invalid",
    /// A card has no attestation that holds, and one is required here.
    AttestationMissing = "attestation-missing",
    /// The token, or its key file, failed.
    TokenFailed = "token-failed",
    /// A peer sent a point, or an encapsulation key, that no honest machine sends.
    BadPoint = "bad-point",
    // Transport.
    /// tor or arti is not running, can not be reached, or has not bootstrapped.
    TransportUnavailable = "transport-unavailable",
    /// tor's control port refused the password, cookie or command.
    ControlRefused = "control-refused",
    /// The local port is in use.
    PortInUse = "port-in-use",
    /// The address can not be dialled by this transport.
    AddressRefused = "address-refused",
    /// The onion service, or the host, is not reachable.
    Unreachable = "unreachable",
    /// The onion service's descriptor is not for this machine.
    OnionAuth = "onion-auth",
    /// Dialling took too long.
    DialTimeout = "dial-timeout",
    // Handshake.
    /// The other end closed without an answer: it does not know us, or not by this key.
    HandshakeRefused = "handshake-refused",
    /// A handshake message did not authenticate.
    HandshakeFailed = "handshake-failed",
    /// The other end did not answer in time.
    HandshakeTimeout = "handshake-timeout",
    /// A packet of a protocol version that is not spoken here.
    VersionUnsupported = "version-unsupported",
    /// A packet that is malformed or too large.
    PacketInvalid = "packet-invalid",
    /// A knock that fits no peer.
    KnockUnknown = "knock-unknown",
    /// A knock seen before.
    KnockReplayed = "knock-replayed",
    /// A knock outside the time window.
    KnockStale = "knock-stale",
    /// The peer asks for more handshakes than it may.
    RateLimited = "rate-limited",
    /// The peer asks for a pattern that is not allowed here.
    PatternRefused = "pattern-refused",
    /// Both cards offer a key encapsulation mechanism and the handshake has none, or the other way round.
    KemMismatch = "kem-mismatch",
    /// One end has a pre-shared key for the other and the other has none.
    PresharedKeyMismatch = "preshared-key-mismatch",
    /// There is nothing here any more that the peer could resume.
    ResumptionRefused = "resumption-refused",
    /// There are as many sessions as there may be.
    SessionLimit = "session-limit",
    // Session.
    /// The pipe ended without the end-of-session record.
    SessionTruncated = "session-truncated",
    /// A record did not authenticate.
    RecordInvalid = "record-invalid",
    /// The session's keys are used up.
    NonceExhausted = "nonce-exhausted",
    /// The peer was revoked, removed, or has expired while the session ran.
    SessionRevoked = "session-revoked",
    /// An edge of the plan failed in the roll call.
    RollCallFailed = "roll-call-failed",
    /// The session's pipe failed.
    SessionIo = "session-io",
    /// The session broke before a stream had ended: what it carried is incomplete, and it can be carried on by another session.
    SessionInterrupted = "session-interrupted",
    /// The peer gave no sign of life.
    PeerSilent = "peer-silent",
    /// The session was closed by one of its ends.
    SessionClosed = "session-closed",
    /// The session takes on no new streams: it is about to be closed.
    SessionDraining = "session-draining",
    /// The session's time since the last token operation is over.
    SessionAged = "session-aged",
    /// The session was closed because nobody used it.
    SessionIdle = "session-idle",
    /// Another session of the peer took this one's place.
    SessionReplaced = "session-replaced",
    /// The peer does not keep to the session protocol.
    SessionProtocol = "session-protocol",
    /// The peer reset the stream.
    StreamReset = "stream-reset",
    /// There are as many streams as there may be.
    StreamLimit = "stream-limit",
    /// The peer serves nothing of that name, or not to this machine.
    ServiceRefused = "service-refused",
    // Daemon.
    /// No daemon answers on the control socket.
    DaemonAbsent = "daemon-absent",
    /// Another daemon has the control socket.
    DaemonRunning = "daemon-running",
    /// The daemon does not do this, or not for this user, or answers in a way that is not understood.
    DaemonRefused = "daemon-refused",
    /// The daemon works, and says that something is wrong.
    NotWell = "not-well",
    /// The policy does not let a peer open a service.
    NotAllowed = "not-allowed",
    /// What is asked for can not change while the daemon runs.
    RestartNeeded = "restart-needed",
    // Anything.
    /// What the daemon is to give up can not be given up here, and the configuration demands it.
    SandboxFailed = "sandbox-failed",
    /// A local file or process failed.
    Io = "io",
    /// Ended by a signal.
    Interrupted = "interrupted",
    /// A bug or a broken machine.
    Internal = "internal",
}

impl std::fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_unique_kebab_case() {
        for (at, kind) in ErrorKind::ALL.iter().enumerate() {
            let text = kind.as_str();
            assert!(text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{text}");
            assert!(!ErrorKind::ALL[..at].iter().any(|other| other.as_str() == text), "{text} twice");
        }
    }
}
