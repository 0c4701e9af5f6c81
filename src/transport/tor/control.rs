//! A connection to tor's control port (control-spec).

use super::reply::{Decoder, Malformed, Reply};
use crate::config::ControlAddress;
use crate::error::{Error, ErrorKind, Result};
use crate::transport::Pipe;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

/// How long tor may take to accept a connection, and to answer a command. It answers at once unless it hangs.
pub(super) const ANSWER: Duration = Duration::from_secs(10);
/// Events kept while a command's answer is awaited; older ones are dropped. Only the latest matter.
const MAX_EVENTS: usize = 256;

/// A connection to the control port. Dropping it ends the services that were added on it.
pub(super) struct Control {
    pipe: Pipe,
    address: ControlAddress,
    decoder: Decoder,
    events: VecDeque<Reply>,
}

impl Control {
    /// Connects. Nothing is said yet.
    ///
    /// # Errors
    /// `TransportUnavailable` when nothing listens there.
    pub(super) async fn connect(address: &ControlAddress) -> Result<Self> {
        if *address == ControlAddress::None {
            return Err(super::no_control());
        }
        let connect = async {
            Ok(match address {
                ControlAddress::Tcp(address) => Pipe::from(TcpStream::connect(address).await?),
                ControlAddress::Unix(path) => Pipe::from(UnixStream::connect(path).await?),
                ControlAddress::None => return Err(std::io::ErrorKind::Unsupported.into()),
            })
        };
        let connected = timeout(ANSWER, connect).await.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
        let pipe = connected.map_err(|error| super::not_running("control port", address, "control", error))?;
        Ok(Self { pipe, address: address.clone(), decoder: Decoder::default(), events: VecDeque::new() })
    }

    /// Sends `command`, which ends with CR LF and may hold a secret, and returns the answer, whatever its status.
    ///
    /// # Errors
    /// `TransportUnavailable` when tor closes the connection, does not answer in time, or answers something else.
    pub(super) async fn ask(&mut self, command: &str) -> Result<Reply> {
        let exchange = async {
            let sent = self.pipe.write_all(command.as_bytes()).await;
            sent.map_err(|error| closed(&self.address).because(error))?;
            loop {
                let reply = self.read().await?;
                if !reply.is_event() {
                    return Ok(reply);
                }
                if self.events.len() == MAX_EVENTS {
                    self.events.pop_front();
                }
                self.events.push_back(reply);
            }
        };
        match timeout(ANSWER, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(Error::new(
                ErrorKind::TransportUnavailable,
                format!("tor's control port at {} did not answer within {} s.", self.address, ANSWER.as_secs()),
                "Restart tor with `systemctl restart tor`.",
            )),
        }
    }

    /// The next event. Cancel-safe.
    ///
    /// # Errors
    /// `TransportUnavailable` when the connection ends.
    pub(super) async fn event(&mut self) -> Result<Reply> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            let reply = self.read().await?;
            if !reply.is_event() {
                return Err(garbled(&self.address, "an answer came that was not asked for"));
            }
            self.events.push_back(reply);
        }
    }

    /// The next reply or event. Cancel-safe: what was received stays in the decoder.
    async fn read(&mut self) -> Result<Reply> {
        loop {
            if let Some(reply) = self.decoder.next().map_err(|why| garbled(&self.address, why))? {
                return Ok(reply);
            }
            match self.pipe.read_buf(&mut self.decoder.buffer).await {
                Ok(0) => return Err(closed(&self.address)),
                Ok(_) => {}
                Err(error) => return Err(closed(&self.address).because(error)),
            }
        }
    }

    /// Where it is connected to.
    pub(super) fn address(&self) -> &ControlAddress {
        &self.address
    }
}

fn closed(address: &ControlAddress) -> Error {
    Error::new(
        ErrorKind::TransportUnavailable,
        format!("tor closed the control connection at {address}."),
        "See tor's log with `journalctl -u tor@default`, and start tor with `systemctl start tor`.",
    )
}

/// What answers is not tor.
pub(super) fn garbled(address: &ControlAddress, why: Malformed) -> Error {
    Error::new(
        ErrorKind::TransportUnavailable,
        format!("What answers at {address} is not tor's control port: {why}."),
        "Set `control` in [transport.tor] to tor's control port (`ControlPort` in /etc/tor/torrc).",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;
    use tokio::net::TcpListener;

    /// A server that sends `bytes`, whatever it is asked, and then is silent. Real tor sends no such thing.
    async fn server(bytes: &'static [u8]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(bytes).await.unwrap();
            let _ = stream.read_to_end(&mut Vec::new()).await;
        });
        address
    }

    #[tokio::test]
    async fn garbage_is_refused_at_once() {
        for bytes in [&b"SSH-2.0-OpenSSH_9.2p1\r\n"[..], b"\0\0\0\0\n", b"250 OK\n", &[b'x'; 70_000]] {
            let mut control = Control::connect(&ControlAddress::Tcp(server(bytes).await)).await.unwrap();
            let error = control.ask("PROTOCOLINFO 1\r\n").await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TransportUnavailable);
            assert!(error.to_string().contains("is not tor's control port"), "{error}");
        }
    }

    #[tokio::test]
    async fn silence_ends_by_the_deadline() {
        let mut control = Control::connect(&ControlAddress::Tcp(server(b"250-half\r\n").await)).await.unwrap();
        let begin = std::time::Instant::now();
        let error = control.ask("PROTOCOLINFO 1\r\n").await.unwrap_err();
        assert!(error.to_string().contains("did not answer within 10 s"), "{error}");
        assert!(begin.elapsed() < ANSWER + Duration::from_secs(2));
    }

    #[tokio::test]
    async fn events_between_answers_are_kept_in_order() {
        let bytes = b"650 ONE\r\n250 OK\r\n650 TWO\r\n250 STRAY\r\n";
        let mut control = Control::connect(&ControlAddress::Tcp(server(bytes).await)).await.unwrap();
        assert_eq!(control.ask("SETEVENTS\r\n").await.unwrap().message(), "OK");
        assert_eq!(control.event().await.unwrap().message(), "ONE");
        assert_eq!(control.event().await.unwrap().message(), "TWO");
        assert!(control.event().await.unwrap_err().to_string().contains("not asked for"));
    }
}
