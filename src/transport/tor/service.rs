//! An onion service published through tor's control port, and kept published.

use super::auth::{authenticate, sentence};
use super::control::Control;
use crate::config;
use crate::error::{Error, ErrorKind, Result};
use crate::identity::OnionAddress;
use crate::secret::{OnionSecretKey, SecretString};
use crate::transport::{Listener, Pipe, Service, ServiceState, set, tcp, wrong_key};
use data_encoding::BASE64;
use futures::future::BoxFuture;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{Instant, interval, sleep};
use tokio_util::task::AbortOnDropHandle;

/// Pauses between two tries to publish again: the first, and the longest, which is then kept to.
const PAUSES: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(5)];
/// How long a connection lasts that was not just another failure.
const STABLE: Duration = Duration::from_secs(60);
/// How often tor is asked whether it is alive and has circuits.
const PROBE: Duration = Duration::from_secs(30);
/// How long an address may still be published by a control connection that has just ended, this program's last run for one. Asked for
/// three times within it, not more: each refusal is a page in tor's log.
const COLLISION: Duration = Duration::from_secs(3);

/// A service that tor publishes for us. Dropping it closes the control connection, which ends the service.
pub(super) struct TorService {
    listener: TcpListener,
    state: watch::Receiver<ServiceState>,
    _watch: AbortOnDropHandle<()>,
}

impl TorService {
    /// Publishes `service`, and from then on publishes it again whenever tor comes back.
    ///
    /// # Errors
    /// `TransportUnavailable`, `ControlRefused` (not let in, or the address is published by someone else), `IdentityInvalid` when tor
    /// derives another address from the key.
    pub(super) async fn publish(config: config::Tor, service: Service) -> Result<Self> {
        let listener = tcp::bind((Ipv4Addr::LOCALHOST, 0).into()).await?;
        let local = listener.local_addr().map_err(|error| {
            Error::new(ErrorKind::Io, "The port of a listening socket can not be read.", "Try again.").because(error)
        })?;
        let Service { onion, address, port } = service;
        let publication = Publication { config, onion, address, port, local };
        let control = publication.publish().await?;
        let (sender, state) = watch::channel(ServiceState::Starting);
        let watch = AbortOnDropHandle::new(tokio::spawn(publication.keep(control, sender)));
        Ok(Self { listener, state, _watch: watch })
    }
}

impl Listener for TorService {
    fn accept(&mut self) -> BoxFuture<'_, Result<Pipe>> {
        Box::pin(async { Ok(Pipe::of_tor(tcp::accept(&self.listener).await)) })
    }

    fn status(&self) -> watch::Receiver<ServiceState> {
        self.state.clone()
    }
}

/// What is published, and how tor is reached.
struct Publication {
    config: config::Tor,
    onion: OnionSecretKey,
    address: OnionAddress,
    port: u16,
    local: SocketAddr,
}

impl Publication {
    /// Keeps the service published for ever.
    async fn keep(self, mut control: Control, state: watch::Sender<ServiceState>) {
        let mut pause = PAUSES[0];
        loop {
            let begin = Instant::now();
            // Takes the connection and closes it: tor keeps the address for as long as it is open.
            let mut why = self.watch(control, &state).await;
            // A control port that lets us in and then ends, again and again, is not sent the key at once each time.
            if begin.elapsed() > STABLE {
                pause = PAUSES[0];
            }
            control = loop {
                self.interrupted(&state, &why);
                sleep(pause).await;
                match self.publish().await {
                    Ok(control) => {
                        pause = (pause * 2).min(PAUSES[1]);
                        break control;
                    }
                    Err(error) => why = error,
                }
                pause = (pause * 2).min(PAUSES[1]);
            };
            tracing::info!(onion = self.address.redacted(), "tor is back, publishing again");
        }
    }

    fn interrupted(&self, state: &watch::Sender<ServiceState>, why: &Error) {
        let reason = why.to_string().trim_end_matches('.').to_owned();
        if set(state, ServiceState::Interrupted(reason)) {
            tracing::warn!(
                onion = self.address.redacted(),
                reason = why.kind().as_str(),
                "service interrupted: {why} {}",
                why.hint()
            );
        }
    }

    /// Connects, authenticates, and adds the service. Every step has a deadline.
    async fn publish(&self) -> Result<Control> {
        let mut control = Control::connect(&self.config.control).await?;
        authenticate(&mut control, &self.config).await?;
        let reply = control.ask("SETEVENTS HS_DESC STATUS_CLIENT\r\n").await?;
        if reply.status != 250 {
            return Err(refused("refused to report events", reply.message()));
        }
        let give_up = Instant::now() + COLLISION;
        loop {
            let reply = control.ask(&self.command()).await?;
            match (reply.status, reply.after("ServiceID=")) {
                (250, Some(label)) if label == self.address.label() => return Ok(control),
                // The connection closes on return, which takes the wrong service back.
                (250, _) => return Err(wrong_key(&self.address)),
                (550, _) if reply.message().to_ascii_lowercase().contains("collision") => {
                    if Instant::now() >= give_up {
                        return Err(Error::new(
                            ErrorKind::ControlRefused,
                            format!("tor publishes {} already, for another program.", self.address.redacted()),
                            "End the other claviger that listens on this machine, or run `systemctl restart tor`.",
                        ));
                    }
                    sleep(COLLISION / 3).await;
                }
                _ => return Err(refused("did not publish the service", reply.message())),
            }
        }
    }

    /// `ADD_ONION` with the key (control-spec, section 3.27). Without the flag `Detach`, the service ends with the connection.
    fn command(&self) -> SecretString {
        let target = format!(" Port={},{}\r\n", self.port, self.local);
        // Reserved whole: a buffer that grows would leave a copy of the key behind.
        let mut command = SecretString::new(String::with_capacity(128 + target.len()));
        command.push_str("ADD_ONION ED25519-V3:");
        BASE64.encode_append(self.onion.expose(), &mut command);
        command.push_str(&target);
        command
    }

    /// Follows tor's events into `state` until the connection ends, and says why it did.
    async fn watch(&self, mut control: Control, state: &watch::Sender<ServiceState>) -> Error {
        let mut seen = Seen::default();
        let mut probe = interval(PROBE);
        loop {
            tokio::select! {
                event = control.event() => match event {
                    Ok(event) => seen.event(event.message(), &self.address.label()),
                    Err(error) => return error,
                },
                _ = probe.tick() => match control.ask("GETINFO status/circuit-established\r\n").await {
                    Ok(reply) => seen.circuits = reply.after("status/circuit-established=") == Some("1"),
                    Err(error) => return error,
                },
            }
            let now = seen.state();
            if set(state, now.clone()) {
                tracing::info!(onion = self.address.redacted(), state = ?now, "service");
            }
        }
    }
}

/// What tor's events have said since the service was added.
#[derive(Default)]
struct Seen {
    circuits: bool,
    uploaded: bool,
    refused: bool,
}

impl Seen {
    /// One event of control-spec: section 4.1.25 (`HS_DESC`), section 4.1.10 (`STATUS_CLIENT`).
    fn event(&mut self, event: &str, label: &str) {
        let mut words = event.split(' ');
        match [words.next(), words.next(), words.next()].map(Option::unwrap_or_default) {
            ["HS_DESC", "UPLOADED", address] if address == label => {
                self.uploaded = true;
                self.circuits = true;
            }
            ["HS_DESC", "FAILED", address] if address == label => {
                self.refused |= event.split(' ').any(|word| word == "REASON=UPLOAD_REJECTED");
            }
            ["STATUS_CLIENT", _, "CIRCUIT_ESTABLISHED"] => self.circuits = true,
            ["STATUS_CLIENT", _, "CIRCUIT_NOT_ESTABLISHED"] => self.circuits = false,
            _ => {}
        }
    }

    fn state(&self) -> ServiceState {
        match (self.circuits, self.uploaded) {
            (true, true) => ServiceState::Reachable,
            // They keep the descriptor with the highest revision, which counts the seconds of the day.
            (true, false) if self.refused => ServiceState::Interrupted(
                "Tor's directories refuse the descriptor: another machine publishes this address, or this clock is slow".into(),
            ),
            (true, false) => ServiceState::Publishing,
            (false, false) => ServiceState::Starting,
            (false, true) => ServiceState::Interrupted("tor has no circuits".into()),
        }
    }
}

fn refused(what: &str, message: &str) -> Error {
    Error::new(
        ErrorKind::ControlRefused,
        format!("tor {what}: {}", sentence(message)),
        "See tor's log with `journalctl -u tor@default`; a filter before the control port must let ADD_ONION and SETEVENTS pass.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::OnionKeys;

    #[test]
    fn events_become_states() {
        let label = OnionKeys::generate().unwrap().address.label();
        let mut seen = Seen::default();
        let mut after = |event: &str| {
            seen.event(event, &label);
            seen.state()
        };
        assert_eq!(after("STATUS_CLIENT NOTICE BOOTSTRAP PROGRESS=50"), ServiceState::Starting);
        assert_eq!(after("STATUS_CLIENT NOTICE CIRCUIT_ESTABLISHED"), ServiceState::Publishing);
        assert_eq!(after(&format!("HS_DESC UPLOAD {label} UNKNOWN $AB")), ServiceState::Publishing);
        assert_eq!(after(&format!("HS_DESC UPLOADED {} UNKNOWN $AB", "a".repeat(56))), ServiceState::Publishing);
        assert_eq!(after(&format!("HS_DESC FAILED {label} UNKNOWN $AB REASON=UNEXPECTED")), ServiceState::Publishing);
        let refused = after(&format!("HS_DESC FAILED {label} UNKNOWN $AB REASON=UPLOAD_REJECTED"));
        assert!(matches!(refused, ServiceState::Interrupted(why) if why.contains("refuse")));
        assert_eq!(after(&format!("HS_DESC UPLOADED {label} UNKNOWN $AB")), ServiceState::Reachable);
        let broken = ServiceState::Interrupted("tor has no circuits".into());
        assert_eq!(after("STATUS_CLIENT NOTICE CIRCUIT_NOT_ESTABLISHED REASON=CLOCK_JUMPED"), broken);
        assert_eq!(after(""), broken);
        assert_eq!(after("STATUS_CLIENT NOTICE CIRCUIT_ESTABLISHED"), ServiceState::Reachable);
    }

    #[test]
    fn the_command_is_made_in_one_buffer() {
        let keys = OnionKeys::generate().unwrap();
        let local = "127.0.0.1:65535".parse().unwrap();
        let (onion, address) = (keys.secret, keys.address);
        let publication = Publication { config: config::Tor::default(), onion, address, port: 65535, local };
        let command = publication.command();
        let capacity =
            SecretString::new(String::with_capacity(128 + " Port=65535,127.0.0.1:65535\r\n".len())).capacity();
        assert_eq!(command.capacity(), capacity);
        assert!(command.starts_with("ADD_ONION ED25519-V3:") && command.ends_with(" Port=65535,127.0.0.1:65535\r\n"));
    }
}
