//! Whether this machine's onion service is reached from outside: it is dialled by its own address, through circuits of their own.
//!
//! What is sent there is what any stranger may send, random bytes of a knock's form, so nothing on the way can treat it otherwise. The listening side knows them
//! again, and drops the connection as it drops a stranger's.

use super::Endpoint;
use super::Inner;
use super::now_ms;
use crate::error::{Error, ErrorKind, Result};
use crate::transport::Target;
use crate::wire::{self, KNOCK_MAC, Kind, KnockPacket, Pattern};
use data_encoding::HEXLOWER;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use subtle::{Choice, ConstantTimeEq as _};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

/// How long a probe may be on its way once it was sent.
const ARRIVAL: Duration = Duration::from_secs(30);

/// The probes that are on their way.
#[derive(Default)]
pub(super) struct Probes(Mutex<Vec<Outstanding>>);

struct Outstanding {
    /// As [`KnockPacket::to_bytes`] gives it.
    packet: Vec<u8>,
    arrived: oneshot::Sender<()>,
}

impl Probes {
    fn lock(&self) -> MutexGuard<'_, Vec<Outstanding>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn register(&self, packet: &[u8]) -> oneshot::Receiver<()> {
        let (arrived, arrival) = oneshot::channel();
        let mut outstanding = self.lock();
        // Those that nobody waits for any more.
        outstanding.retain(|probe| !probe.arrived.is_closed());
        outstanding.push(Outstanding { packet: packet.to_vec(), arrived });
        arrival
    }

    /// Whether a first packet is a probe of this machine's own; whoever sent it is told. Good once.
    pub(super) fn arrived(&self, packet: &[u8]) -> bool {
        let mut outstanding = self.lock();
        let mut found = None;
        for (at, probe) in outstanding.iter().enumerate() {
            let same: Choice = probe.packet.as_slice().ct_eq(packet);
            if bool::from(same) {
                found = Some(at);
            }
        }
        found.map(|at| outstanding.swap_remove(at)).is_some_and(|probe| probe.arrived.send(()).is_ok())
    }
}

impl Endpoint {
    /// Dials this machine's own onion address through fresh circuits, and returns how long it took until the listening side had heard of it. It must be
    /// [listening](Self::listen). `None` with a transport that does not go through Tor: there is no outside.
    ///
    /// # Errors
    /// The transport's; [`ErrorKind::Unreachable`] when it was connected and nothing arrived: another machine publishes this address, too.
    pub async fn probe(&self) -> Result<Option<Duration>> {
        let Inner { shared, own, transport, config, .. } = &*self.0;
        if !transport.is_tor() {
            return Ok(None);
        }
        let began = Instant::now();
        let deadline = began + config.transport.dial_timeout;
        let kind = Kind::from(Pattern::Kk);
        let mut message = vec![0; kind.first_message_len(own.card.curve())];
        let (mut mac, mut label) = ([0; KNOCK_MAC], [0; 16]);
        for bytes in [&mut message[..], &mut mac, &mut label] {
            aws_lc_rs::rand::fill(bytes).map_err(|_| super::drive::internal("there is no randomness"))?;
        }
        let packet = KnockPacket { kind, time_ms: now_ms(), mac, message: &message }.to_bytes();
        let target = Target {
            onion: Some(own.card.onion_address),
            port: config.transport.port,
            tcp: None,
            isolation: format!("probe {}", HEXLOWER.encode(&label)),
            client: Some(Arc::clone(&own.client_auth)),
        };
        let mut pipe = transport.dial(&target, deadline).await?;
        let arrival = shared.probes.register(&packet);
        let knock = wire::frame(&packet).map_err(|error| super::drive::wire_error(&error))?;
        let sent = async {
            pipe.write_all(&knock).await?;
            pipe.flush().await
        };
        let lost = || {
            Error::new(
                ErrorKind::Unreachable,
                "What was sent to this machine's own onion address did not arrive here.",
                "End whatever else publishes this address: another claviger with a copy of this store, or this one's last run.",
            )
        };
        let outcome = async {
            sent.await.map_err(|error| lost().because(error))?;
            arrival.await.map_err(|_| lost())
        };
        match timeout_at(Instant::now() + ARRIVAL, outcome).await {
            Ok(Ok(())) => Ok(Some(began.elapsed())),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(lost()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_is_known_again_once() {
        let probes = Probes::default();
        let mut arrival = probes.register(b"one");
        let gone = probes.register(b"two");
        drop(gone);
        assert!(!probes.arrived(b"on") && !probes.arrived(b"three") && !probes.arrived(b""));
        assert!(arrival.try_recv().is_err());
        assert!(!probes.arrived(b"two"), "nobody waits for it");
        assert!(probes.arrived(b"one"));
        assert!(arrival.try_recv().is_ok());
        assert!(!probes.arrived(b"one"));
        assert!(probes.lock().is_empty());
    }
}
