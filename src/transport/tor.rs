//! Tor through a daemon of this machine: dialling by its SOCKS port, publishing by its control port.
//!
//! A service's connections arrive on a TCP port of 127.0.0.1 that the system chooses, not on a unix socket: tor runs as another user, who
//! could not open a socket in a private directory, and a directory open to tor's user would need setting up per machine. So any local
//! program can connect to that port; it gains nothing, since whoever comes through Tor is as much of a stranger until the handshake.
//!
//! The client-authorization secret by which this machine finds a peer's service goes to tor by the control port, too, and stays in tor's memory until tor ends.

mod auth;
mod control;
mod line;
mod progress;
mod reply;
mod service;
mod socks;
mod torrc;

pub use torrc::{AUTHORIZED, ClientAuthFile, ServiceFiles};

use super::retry::{self, Attempt, Failure};
use super::{Listener, Pipe, Progress, Service, Target, Transport};
use crate::config::{self, ControlAddress, TorService};
use crate::error::{Error, ErrorKind, Result};
use crate::identity::OnionAddress;
use futures::future::BoxFuture;
use std::sync::{Mutex, PoisonError};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

/// The tor transport.
pub struct Tor {
    config: config::Tor,
    onion: config::Onion,
    isolation: socks::Isolation,
    line: line::Line,
    progress: watch::Sender<Progress>,
    following: Mutex<Option<AbortOnDropHandle<()>>>,
}

impl Tor {
    /// A transport by the daemon of `config`, which is not contacted yet.
    ///
    /// # Errors
    /// `ConfigInvalid` when `onion` asks for what the control port can not do; `Internal` when there is no randomness.
    pub fn new(config: config::Tor, onion: config::Onion) -> Result<Self> {
        check(&config, &onion)?;
        let line = line::Line::new(config.clone());
        let (isolation, progress) = (socks::Isolation::new()?, watch::Sender::new(Progress::idle()));
        Ok(Self { config, onion, isolation, line, progress, following: Mutex::default() })
    }

    async fn connect(&self, onion: &OnionAddress, target: &Target) -> Attempt<TcpStream> {
        let user = self.isolation.user(&target.isolation);
        let connect = || socks::connect(self.config.socks, onion, target.port, &user, &self.isolation);
        let Some(secret) = &target.client else { return connect().await };
        // A service that everyone finds is reached without: what keeps the secret from tor is told when it turns out to be needed.
        let told = match self.config.control {
            ControlAddress::None => Err(no_client_auth()),
            _ => self.line.authorize(onion, secret).await,
        };
        match (connect().await, told) {
            (Err(failure), Err(error)) if failure.kind() == ErrorKind::OnionAuth => Err(Failure::Doubtful(error)),
            // Without `ExtendedErrors` tor does not say why.
            (Err(Failure::Passing(failure)), Err(error))
                if failure.kind() == ErrorKind::Unreachable && self.config.control != ControlAddress::None =>
            {
                let what = format!(
                    "{failure} It may be published for its peers only, and tor does not have this machine's key: {error}"
                );
                Err(Failure::Passing(
                    Error::new(ErrorKind::Unreachable, what, error.hint().to_owned()).because(failure),
                ))
            }
            (outcome, _) => outcome,
        }
    }
}

impl Transport for Tor {
    fn name(&self) -> &'static str {
        "tor"
    }

    /// A service of torrc leads to one place, whatever its address.
    fn addresses(&self) -> bool {
        self.config.service == TorService::Control
    }

    /// By a control connection of its own, which is made when this is first called. Without a control port nobody knows, and it is taken for ready.
    fn progress(&self) -> watch::Receiver<Progress> {
        if self.config.control == ControlAddress::None {
            return watch::channel(Progress {
                summary: "not known without a control port".into(),
                ..Progress::ready()
            })
            .1;
        }
        let mut following = self.following.lock().unwrap_or_else(PoisonError::into_inner);
        if following.as_ref().is_none_or(AbortOnDropHandle::is_finished) {
            let follow = progress::follow(self.config.clone(), self.progress.clone());
            *following = Some(AbortOnDropHandle::new(tokio::spawn(follow)));
        }
        self.progress.subscribe()
    }

    fn dial<'a>(&'a self, target: &'a Target, deadline: Instant) -> BoxFuture<'a, Result<Pipe>> {
        Box::pin(async move {
            let onion = super::onion_of(target)?;
            let stream = retry::until(deadline, || self.connect(&onion, target)).await?;
            Ok(Pipe::of_tor(stream))
        })
    }

    fn listen(&self, service: Service) -> BoxFuture<'_, Result<Box<dyn Listener>>> {
        Box::pin(async move {
            if self.config.service == TorService::Torrc {
                let listen = self.config.listen.as_ref().ok_or_else(torrc::nowhere)?;
                let listener: Box<dyn Listener> = Box::new(torrc::TorrcService::listen(listen).await?);
                return Ok(listener);
            }
            let listener: Box<dyn Listener> =
                Box::new(service::TorService::publish(self.config.clone(), self.onion.clone(), service).await?);
            Ok(listener)
        })
    }
}

fn no_control() -> Error {
    Error::new(
        ErrorKind::ConfigInvalid,
        "Without tor's control port nothing can be published.",
        "Set `control` in [transport.tor]; or `service = \"torrc\"` there, with the files that `claviger onion service` writes.",
    )
}

fn no_client_auth() -> Error {
    Error::new(
        ErrorKind::OnionAuth,
        "The peer's service is not found by any key that tor has for it.",
        "Write the keys with `claviger onion client-auth DIR`, set `ClientOnionAuthDir DIR` in torrc, and run `systemctl reload tor`; the peer must have recorded this machine's card.",
    )
}

/// What `ADD_ONION` has no word for.
fn check(config: &config::Tor, onion: &config::Onion) -> Result<()> {
    if onion.vanguards == Some(config::Vanguards::Full) {
        return Err(Error::new(
            ErrorKind::ConfigInvalid,
            "tor has no full vanguards of its own.",
            "Use `--transport arti`; or run the addon `vanguards` beside tor and remove `vanguards` under [onion].",
        ));
    }
    // What is in torrc is tor's own to do; `claviger onion service` writes the lines.
    let by_control = config.service == config::TorService::Control;
    let lacks = [
        (
            by_control && onion.introduction_points.is_some(),
            "introduction-points",
            "HiddenServiceNumIntroductionPoints",
        ),
        (by_control && onion.introduction_limit.is_some(), "introduction-limit", "HiddenServiceEnableIntroDoSDefense"),
        (by_control && onion.vanguards.is_some(), "vanguards", "VanguardsLiteEnabled"),
    ];
    let Some((_, key, option)) = lacks.into_iter().find(|(is_set, ..)| *is_set) else { return Ok(()) };
    Err(Error::new(
        ErrorKind::ConfigInvalid,
        format!("`{key}` under [onion] is not for a tor daemon: its control port takes no such thing."),
        format!(
            "Remove it and set `{option}` in /etc/tor/torrc; for single services that needs `service = \"torrc\"` in [transport.tor]. Or use `--transport arti`."
        ),
    ))
}

/// Random bytes.
fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| {
        let hint = "Check that the operating system's random generator works, and try again.";
        Error::new(ErrorKind::Internal, "There is no randomness.", hint)
    })?;
    Ok(bytes)
}

/// The lines of torrc that this transport needs, for hints.
const TORRC: &str =
    "`SocksPort 9050 ExtendedErrors`, `ControlPort 9051` and `CookieAuthentication 1` in /etc/tor/torrc";

/// tor is not there.
fn not_running(what: &str, address: &dyn std::fmt::Display, key: &str, source: std::io::Error) -> Error {
    Error::new(
        ErrorKind::TransportUnavailable,
        format!("tor's {what} at {address} can not be reached."),
        format!("Start tor with `systemctl start tor`, with {TORRC}; or set `{key}` in [transport.tor]."),
    )
    .because(source)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{IntroductionLimit, Onion, Vanguards};

    fn refused(service: TorService, onion: Onion) -> Option<Error> {
        let config = config::Tor { service, ..config::Tor::default() };
        Tor::new(config, onion).err()
    }

    #[test]
    fn what_the_control_port_can_not_do_is_refused() {
        let points = Onion { introduction_points: Some(5), ..Onion::default() };
        let limit = Onion { introduction_limit: Some(IntroductionLimit { rate: 1, burst: 2 }), ..Onion::default() };
        let [lite, full] = [Vanguards::Lite, Vanguards::Full].map(|v| Onion { vanguards: Some(v), ..Onion::default() });
        for onion in [&points, &limit, &lite, &full] {
            let error = refused(TorService::Control, onion.clone()).unwrap();
            assert_eq!(error.kind(), ErrorKind::ConfigInvalid);
        }
        let error = refused(TorService::Control, points.clone()).unwrap();
        assert!(error.to_string().contains("`introduction-points`"), "{error}");
        assert!(error.hint().contains("HiddenServiceNumIntroductionPoints"), "{}", error.hint());
        for onion in [points, limit, lite, Onion { proof_of_work: true, ..Onion::default() }] {
            assert!(refused(TorService::Torrc, onion).is_none());
        }
        assert!(refused(TorService::Torrc, full).is_some(), "tor has no full vanguards");
    }
}
