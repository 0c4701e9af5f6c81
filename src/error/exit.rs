//! Exit codes: one set for every program of the house.

use super::ErrorKind;

/// What a program ends with. Scripts may rely on the numbers; they never change meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// Done.
    Success = 0,
    /// A local file, process or machine failed, or there is a bug.
    Failure = 1,
    /// The command line is wrong.
    Misuse = 2,
    /// The configuration is wrong.
    Configuration = 3,
    /// A card or a step of the ceremony was refused: malformed, own, in conflict, fingerprint mismatch, declined; or something is missing for it.
    Refused = 4,
    /// The store is absent, there already, newer, busy, damaged, open to others, not sealed, sealed to other keys, or was changed outside the tool.
    Store = 5,
    /// The token or its key is absent, in use, another, or failed.
    Token = 6,
    /// The PIN or passphrase is wrong, missing or locked.
    Pin = 7,
    /// tor, arti or the local port is not available.
    Transport = 8,
    /// The peer's onion service can not be reached.
    Unreachable = 9,
    /// The handshake failed or was refused.
    Handshake = 10,
    /// The session broke.
    Session = 11,
    /// No peer of that name is recorded.
    UnknownPeer = 12,
    /// Interrupted by the user.
    Interrupted = 130,
}

impl ExitCode {
    /// The number.
    pub const fn code(self) -> u8 {
        self as u8
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(exit: ExitCode) -> Self {
        Self::from(exit.code())
    }
}

impl From<ErrorKind> for ExitCode {
    fn from(kind: ErrorKind) -> Self {
        use ErrorKind as Kind;
        match kind {
            Kind::Io
            | Kind::Internal
            | Kind::DaemonAbsent
            | Kind::DaemonRunning
            | Kind::DaemonRefused
            | Kind::NotWell
            | Kind::NotAllowed
            | Kind::SandboxFailed => Self::Failure,
            Kind::FingerprintInvalid | Kind::LocatorInvalid => Self::Misuse,
            Kind::ConfigInvalid | Kind::RestartNeeded => Self::Configuration,
            Kind::IdentityInvalid
            | Kind::CardInvalid
            | Kind::CardChecksum
            | Kind::CardVersion
            | Kind::FingerprintMismatch
            | Kind::CardIsOwn
            | Kind::PeerConflict
            | Kind::NoSharedCurve
            | Kind::NoSharedSuite
            | Kind::AttestationInvalid
            | Kind::AttestationMissing
            | Kind::PlanInvalid
            | Kind::PlanMismatch
            | Kind::CeremonyIncomplete
            | Kind::ProofInvalid
            | Kind::ProofExpired
            | Kind::ProofUsed
            | Kind::SuccessionInvalid
            | Kind::PresharedKeyInvalid
            | Kind::PeerRevoked
            | Kind::PeerExpired
            | Kind::QrUnreadable
            | Kind::TranscriptInvalid
            | Kind::TranscriptsDiffer
            | Kind::NotReady
            | Kind::Declined => Self::Refused,
            Kind::StoreAbsent
            | Kind::StoreExists
            | Kind::StoreNewer
            | Kind::StorePermissions
            | Kind::StoreBusy
            | Kind::StoreCorrupt
            | Kind::StoreLocked
            | Kind::StoreUnsealed
            | Kind::StoreTampered
            | Kind::StoreIo => Self::Store,
            Kind::TokenAbsent
            | Kind::TokenNotTouched
            | Kind::TokenModule
            | Kind::KeyNotFound
            | Kind::KeyMismatch
            | Kind::KeyExists
            | Kind::CurveUnsupported
            | Kind::TokenBusy
            | Kind::TokenTimeout
            | Kind::TokenFailed => Self::Token,
            Kind::PinRequired | Kind::PinWrong | Kind::PinLocked => Self::Pin,
            Kind::TransportUnavailable | Kind::ControlRefused | Kind::PortInUse => Self::Transport,
            Kind::AddressRefused | Kind::Unreachable | Kind::OnionAuth | Kind::DialTimeout => Self::Unreachable,
            Kind::BadPoint
            | Kind::HandshakeRefused
            | Kind::HandshakeFailed
            | Kind::HandshakeTimeout
            | Kind::VersionUnsupported
            | Kind::PacketInvalid
            | Kind::KnockUnknown
            | Kind::KnockReplayed
            | Kind::KnockStale
            | Kind::RateLimited
            | Kind::PatternRefused
            | Kind::KemMismatch
            | Kind::PresharedKeyMismatch
            | Kind::ResumptionRefused
            | Kind::SessionLimit => Self::Handshake,
            Kind::SessionTruncated
            | Kind::SessionRevoked
            | Kind::RollCallFailed
            | Kind::RecordInvalid
            | Kind::NonceExhausted
            | Kind::SessionIo
            | Kind::SessionInterrupted
            | Kind::PeerSilent
            | Kind::SessionClosed
            | Kind::SessionDraining
            | Kind::SessionAged
            | Kind::SessionIdle
            | Kind::SessionReplaced
            | Kind::SessionProtocol
            | Kind::StreamReset
            | Kind::StreamLimit
            | Kind::ServiceRefused => Self::Session,
            Kind::PeerUnknown => Self::UnknownPeer,
            Kind::Interrupted => Self::Interrupted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_never_exits_with_success() {
        for kind in ErrorKind::ALL {
            assert_ne!(ExitCode::from(*kind), ExitCode::Success, "{kind}");
        }
    }
}
