//! An onion service published through tor's control port, and kept published.

use super::auth::{authenticate, sentence};
use super::control::Control;
use crate::config;
use crate::error::{Error, ErrorKind, Result};
use crate::identity::OnionAddress;
use crate::secret::{OnionSecretKey, SecretString};
use crate::transport::{
    Audience, Listener, Pipe, SETTLED, Service, ServiceState, changed, crowded, set, tcp, wrong_key,
};
use data_encoding::{BASE32_NOPAD, BASE64};
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
    pub(super) async fn publish(config: config::Tor, options: config::Onion, service: Service) -> Result<Self> {
        let listener = tcp::bind((Ipv4Addr::LOCALHOST, 0).into()).await?;
        let local = listener.local_addr().map_err(|error| {
            Error::new(ErrorKind::Io, "The port of a listening socket can not be read.", "Try again.").because(error)
        })?;
        let Service { onion, address, port, audience } = service;
        if let Some(error) = crowded(&audience.borrow()) {
            return Err(error);
        }
        let mut publication = Publication { config, options, onion, address, port, local, audience };
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
    options: config::Onion,
    onion: OnionSecretKey,
    address: OnionAddress,
    port: u16,
    local: SocketAddr,
    audience: watch::Receiver<Audience>,
}

impl Publication {
    /// Keeps the service published for ever.
    async fn keep(mut self, mut control: Control, state: watch::Sender<ServiceState>) {
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
    async fn publish(&mut self) -> Result<Control> {
        let mut control = Control::connect(&self.config.control).await?;
        authenticate(&mut control, &self.config).await?;
        let reply = control.ask("SETEVENTS HS_DESC STATUS_CLIENT\r\n").await?;
        if reply.status != 250 {
            return Err(refused("refused to report events", reply.message()));
        }
        self.add(&mut control).await?;
        Ok(control)
    }

    async fn add(&mut self, control: &mut Control) -> Result<()> {
        let give_up = Instant::now() + COLLISION;
        loop {
            let audience = self.audience.borrow_and_update().clone();
            if let Some(error) = crowded(&audience) {
                return Err(error);
            }
            let reply = control.ask(&self.command(&audience)).await?;
            match (reply.status, reply.after("ServiceID=")) {
                (250, Some(label)) if label == self.address.label() => return Ok(()),
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
                (512 | 513, _) if self.options.proof_of_work => {
                    return Err(Error::new(
                        ErrorKind::ControlRefused,
                        format!("tor did not publish the service: {}", sentence(reply.message())),
                        "Its release may be without proof of work for such services: install tor 0.4.9.2 or later, or remove `proof-of-work` under [onion].",
                    ));
                }
                _ => return Err(refused("did not publish the service", reply.message())),
            }
        }
    }

    /// `ADD_ONION` with the key (control-spec, section 3.27). Without the flag `Detach`, the service ends with the connection.
    fn command(&self, audience: &Audience) -> SecretString {
        let mut rest = String::from(" Flags=MaxStreamsCloseCircuit");
        rest += if audience.is_some() { ",V3Auth" } else { "" };
        let config::Onion { streams_per_circuit, proof_of_work, .. } = &self.options;
        rest += &format!(" MaxStreams={streams_per_circuit}");
        rest += if *proof_of_work { " PoWDefensesEnabled=1" } else { "" };
        rest += &format!(" Port={},{}", self.port, self.local);
        for key in audience.iter().flat_map(|keys| keys.iter()) {
            rest += &format!(" ClientAuthV3={}", BASE32_NOPAD.encode(key.as_bytes()));
        }
        rest += "\r\n";
        // Reserved whole: a buffer that grows would leave a copy of the key behind.
        let mut command = SecretString::new(String::with_capacity(128 + rest.len()));
        command.push_str("ADD_ONION ED25519-V3:");
        BASE64.encode_append(self.onion.expose(), &mut command);
        command.push_str(&rest);
        command
    }

    /// Publishes the service to another audience. tor has no command for it: the service is taken away and added anew, which closes its introduction points and
    /// leaves the circuits of those who are connected.
    async fn readmit(&mut self, control: &mut Control) -> Result<()> {
        // Several changes at once are one.
        sleep(SETTLED).await;
        let audience = self.audience.borrow_and_update().clone();
        if let Some(error) = crowded(&audience) {
            tracing::error!(
                onion = self.address.redacted(),
                reason = error.kind().as_str(),
                hint = error.hint(),
                "who finds the service has not changed: {error}"
            );
            return Ok(());
        }
        let reply = control.ask(&format!("DEL_ONION {}\r\n", self.address.label())).await?;
        if reply.status != 250 {
            return Err(refused("did not take the service away", reply.message()));
        }
        self.add(control).await?;
        tracing::info!(
            onion = self.address.redacted(),
            keys = audience.map_or(0, |keys| keys.len()),
            "who finds the service has changed"
        );
        Ok(())
    }

    /// Follows tor's events into `state` until the connection ends, and says why it did.
    async fn watch(&mut self, mut control: Control, state: &watch::Sender<ServiceState>) -> Error {
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
                () = changed(&mut self.audience) => match self.readmit(&mut control).await {
                    Ok(()) => seen = Seen { circuits: seen.circuits, ..Seen::default() },
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
    use crate::identity::{ClientAuthPublic, OnionKeys};
    use std::sync::Arc;

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
        let (config, audience) = (config::Tor::default(), crate::transport::everyone());
        let options = config::Onion { proof_of_work: true, ..config::Onion::default() };
        let publication = Publication { config, options, onion, address, port: 65535, local, audience };
        let plain = " Flags=MaxStreamsCloseCircuit MaxStreams=256 PoWDefensesEnabled=1 Port=65535,127.0.0.1:65535\r\n";
        let restricted = format!(
            " Flags=MaxStreamsCloseCircuit,V3Auth MaxStreams=256 PoWDefensesEnabled=1 Port=65535,127.0.0.1:65535 ClientAuthV3={0} ClientAuthV3={1}\r\n",
            BASE32_NOPAD.encode(&[7; 32]),
            BASE32_NOPAD.encode(&[8; 32]),
        );
        let keys = [8, 7].map(|byte| ClientAuthPublic::from_bytes([byte; 32]));
        for (audience, rest) in [(None, plain), (Some(Arc::new(keys.into())), &restricted)] {
            let command = publication.command(&audience);
            let capacity = SecretString::new(String::with_capacity(128 + rest.len())).capacity();
            assert_eq!(command.capacity(), capacity);
            assert!(command.starts_with("ADD_ONION ED25519-V3:") && command.ends_with(rest), "{}", &command[109..]);
        }
    }
}
