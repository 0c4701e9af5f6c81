//! arti's errors as ours.

use super::Client;
use crate::error::{Error, ErrorKind};
use crate::identity::OnionAddress;
use crate::transport::NOT_FOR_US;
use crate::transport::retry::Failure;
use arti_client::{ErrorKind as Arti, HasKind};
use std::path::Path;
use std::time::Duration;

const ONLINE: &str = "See whether this machine is online and its clock is right; `-v` shows what arti does. Behind a censor, set bridges in arti's file.";
const OFFLINE: &str = "See whether its claviger is running and online.";

/// A client that could not be made.
pub(super) fn of_setup(state: &Path, error: arti_client::Error) -> Error {
    let state = state.display();
    let failed = match error.kind() {
        Arti::InvalidConfig | Arti::NoHomeDirectory | Arti::FeatureDisabled => Error::new(
            ErrorKind::ConfigInvalid,
            "arti does not take its configuration.",
            "Correct the file that `config` in [transport.arti] names.",
        ),
        Arti::FsPermissions => Error::new(
            ErrorKind::TransportUnavailable,
            format!("Other users may change arti's directory {state} or one above it."),
            format!("Run `chmod go-w` on {state} and the directories above it, or set `state` in [transport.arti]."),
        ),
        Arti::LocalResourceAlreadyInUse => Error::new(
            ErrorKind::TransportUnavailable,
            format!("Another process uses arti's directory {state}."),
            "End that process, or give this machine a `state` of its own in [transport.arti].",
        ),
        _ => Error::new(
            ErrorKind::TransportUnavailable,
            format!("arti could not be set up in {state}."),
            "Check that the disk is not full and that you may write there; deleting that directory is safe, and chooses new guards.",
        ),
    };
    failed.because(error)
}

/// A bootstrap that ended without success; it may be tried again.
pub(super) fn of_bootstrap(error: arti_client::Error) -> Error {
    Error::new(ErrorKind::TransportUnavailable, "arti could not connect to the Tor network.", ONLINE).because(error)
}

/// A bootstrap that did not end.
pub(super) fn not_ready(client: &Client, waited: Duration) -> Error {
    let status = client.bootstrap_status();
    let percent = status.as_frac() * 100.0;
    let why = status.blocked().map_or(String::new(), |blockage| format!(": {blockage}"));
    Error::new(
        ErrorKind::TransportUnavailable,
        format!("arti had not connected to the Tor network after {:.0} s ({percent:.0} %{why}).", waited.as_secs_f64()),
        ONLINE,
    )
}

/// A service that did not accept a stream.
pub(super) fn silent(onion: &OnionAddress) -> Failure {
    let what = format!("The onion service {} did not answer in time.", onion.redacted());
    Failure::Passing(Error::new(ErrorKind::Unreachable, what, OFFLINE))
}

/// One try to reach port `port` of `onion` that failed.
pub(super) fn of_dial(
    onion: &OnionAddress,
    port: u16,
    error: impl HasKind + std::error::Error + Send + Sync + 'static,
) -> Failure {
    use Failure::{Doubtful, Final, Passing};
    let name = onion.redacted();
    // Each arm: whether it may pass, the kind, what happened, what to do.
    type Shape = fn(Error) -> Failure;
    let (shape, kind, what, hint): (Shape, _, String, _) = match error.kind() {
        Arti::OnionServiceNotFound => {
            (Passing, ErrorKind::Unreachable, format!("The onion service {name} is not published."), OFFLINE)
        }
        Arti::OnionServiceNotRunning => (
            Passing,
            ErrorKind::Unreachable,
            format!("The onion service {name} is published and does not answer."),
            OFFLINE,
        ),
        Arti::OnionServiceConnectionFailed | Arti::OnionServiceProtocolViolation => {
            (Passing, ErrorKind::Unreachable, format!("The onion service {name} can not be reached."), OFFLINE)
        }
        Arti::RemoteConnectionRefused
        | Arti::RemoteStreamClosed
        | Arti::RemoteStreamReset
        | Arti::RemoteStreamError => {
            (Passing, ErrorKind::Unreachable, format!("Nothing answers on port {port} of {name}."), OFFLINE)
        }
        Arti::OnionServiceMissingClientAuth | Arti::OnionServiceWrongClientAuth => {
            (Doubtful, ErrorKind::OnionAuth, format!("{name} is published, and not for this machine."), NOT_FOR_US)
        }
        Arti::OnionServiceAddressInvalid | Arti::InvalidStreamTarget | Arti::ForbiddenStreamTarget => (
            Final,
            ErrorKind::AddressRefused,
            format!("arti does not take {name} for an onion address."),
            "Import the peer's card again.",
        ),
        Arti::BootstrapRequired
        | Arti::DirectoryExpired
        | Arti::TorAccessFailed
        | Arti::LocalNetworkError
        | Arti::TorDirectoryError
        | Arti::TorDirectoryUnusable
        | Arti::NoPath
        | Arti::ClockSkew => {
            (Passing, ErrorKind::TransportUnavailable, "arti has no connection to the Tor network.".into(), ONLINE)
        }
        Arti::Internal | Arti::BadApiUsage | Arti::NotImplemented | Arti::ArtiShuttingDown => (
            Final,
            ErrorKind::Internal,
            "arti failed.".into(),
            "Restart claviger; if it happens again, report it with the output of `-v`.",
        ),
        _ => (Passing, ErrorKind::Unreachable, format!("The way through the Tor network to {name} failed."), OFFLINE),
    };
    shape(Error::new(kind, what, hint).because(error))
}
