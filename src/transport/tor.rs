//! Tor through a daemon of this machine: dialling by its SOCKS port, publishing by its control port.
//!
//! A service's connections arrive on a TCP port of 127.0.0.1 that the system chooses, not on a unix socket: tor runs as another user, who
//! could not open a socket in a private directory, and a directory open to tor's user would need setting up per machine. So any local
//! program can connect to that port; it gains nothing, since whoever comes through Tor is as much of a stranger until the handshake.
//!
//! Client authorization (Tor rend-spec-v3, appendix G) is not spoken yet; it will be `ClientAuthV3=` of `ADD_ONION` and `ONION_CLIENT_AUTH_ADD`.

mod auth;
mod control;
mod reply;
mod service;
mod socks;

use super::retry;
use super::{Listener, Pipe, Service, Target, Transport};
use crate::config;
use crate::error::{Error, ErrorKind, Result};
use futures::future::BoxFuture;
use tokio::time::Instant;

/// The tor transport.
pub struct Tor {
    config: config::Tor,
    isolation: socks::Isolation,
}

impl Tor {
    /// A transport by the daemon of `config`, which is not contacted yet.
    ///
    /// # Errors
    /// `Internal` when there is no randomness.
    pub fn new(config: config::Tor) -> Result<Self> {
        Ok(Self { config, isolation: socks::Isolation::new()? })
    }
}

impl Transport for Tor {
    fn name(&self) -> &'static str {
        "tor"
    }

    fn dial<'a>(&'a self, target: &'a Target, deadline: Instant) -> BoxFuture<'a, Result<Pipe>> {
        Box::pin(async move {
            let onion = super::onion_of(target)?;
            let user = self.isolation.user(&target.isolation);
            let connect = || socks::connect(self.config.socks, &onion, target.port, &user, &self.isolation);
            let stream = retry::until(deadline, connect).await?;
            Ok(Pipe::of_tor(stream))
        })
    }

    fn listen(&self, service: Service) -> BoxFuture<'_, Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let listener: Box<dyn Listener> =
                Box::new(service::TorService::publish(self.config.clone(), service).await?);
            Ok(listener)
        })
    }
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
