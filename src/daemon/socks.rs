//! A front for programs that speak only SOCKS5 (RFC 1928): `SERVICE.PEER.claviger`, on any port, is a peer's service.
//!
//! Nothing else is ever dialled, and no name resolved: an address, or any other name, is answered "not allowed" by what it looks like alone. Who asks is not asked for: a user name and password
//! (RFC 1929), which programs use to keep circuits of Tor apart, are accepted and mean nothing.
//!
//! | reply | when |
//! |---|---|
//! | 0 succeeded | there is a stream, and the peer has not refused it within 250 ms; what refuses it later cuts the connection |
//! | 2 not allowed | the name is none of these, or SOCKS4 |
//! | 3 network unreachable | this machine has no way out: tor, arti, or its own token |
//! | 4 host unreachable | the peer is not in the store, was revoked or has expired, or is not there |
//! | 5 connection refused | the peer serves no such thing, or not to this machine, or refused the handshake |
//! | 6 TTL expired | no session came about in time |
//! | 7 command not supported | BIND, UDP ASSOCIATE and Tor's RESOLVE |
//! | 1 general failure | anything else; the log has the reason |

use crate::error::{Error, ErrorKind, Result};
use crate::identity::{Identifier, ServiceName};
use crate::session::{Stream, error_of};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;
use tor_socksproto::{
    Buffer, Error as ProtocolError, Handshake as _, NextStep, SocksAddr, SocksCmd, SocksProxyHandshake, SocksRequest,
    SocksStatus, SocksVersion,
};

/// What every name ends with.
const SUFFIX: &str = ".claviger";

/// How long the caller may take to say what it wants.
const GREETING: Duration = Duration::from_secs(10);

/// How long a refusal of the peer's is waited for, which no stream says by itself that it is not. A circuit of Tor is rarely so fast; a peer on a private network is.
const VERDICT: Duration = Duration::from_millis(250);

/// How long the caller may take to read an answer that is none it hoped for.
const PARTING: Duration = Duration::from_secs(2);

/// Most bytes that a caller may have sent before it was answered.
const EARLY: u64 = 64 * 1024;

/// A caller that said what it wants, and waits for an answer.
pub(super) struct Asked {
    request: SocksRequest,
    /// The peer and its service, or what is answered instead.
    pub(super) destination: std::result::Result<(Identifier, ServiceName), Refusal>,
}

/// What no peer has to be asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// No name of a service.
    NotAllowed,
    /// No CONNECT.
    Command,
}

impl Refusal {
    /// The name is not told: it may be where a browser was to go.
    pub(super) fn error(self) -> Error {
        let what = match self {
            Self::NotAllowed => "A program asked the SOCKS5 front for something that is no peer's service.",
            Self::Command => "A program asked the SOCKS5 front for something other than a connection.",
        };
        let hint = "Have it connect to SERVICE.PEER.claviger, by name and through SOCKS5 (`socks5h:`): nothing else is reached here.";
        Error::new(ErrorKind::AddressRefused, what, hint)
    }
}

/// Hears what a caller wants.
///
/// # Errors
/// [`ErrorKind::Io`]: it does not speak SOCKS, took too long, or has gone. There is nothing to answer.
pub(super) async fn asked(caller: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Result<Asked> {
    let request = match timeout(GREETING, greet(caller)).await {
        Ok(request) => request?,
        Err(_) => return Err(unspoken("took longer than 10 s to say what it wants")),
    };
    let destination = destination(&request);
    Ok(Asked { request, destination })
}

async fn greet(caller: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Result<SocksRequest> {
    let gone = |_| unspoken("went away before it had said what it wants");
    let (mut handshake, mut buffer) = (SocksProxyHandshake::new(), Buffer::new_precise());
    let mut answered = false;
    loop {
        match handshake.step(&mut buffer) {
            Ok(NextStep::Send(bytes)) => {
                answered = true;
                caller.write_all(&bytes).await.map_err(gone)?;
            }
            Ok(NextStep::Recv(mut more)) => {
                let n = caller.read(more.buf()).await.map_err(gone)?;
                more.note_received(n).map_err(|_| unspoken("went away before it had said what it wants"))?;
            }
            Ok(NextStep::Finished(finished)) => {
                return finished.into_output().map_err(|_| unspoken("does not keep to SOCKS5"));
            }
            Err(ProtocolError::NotImplemented(_)) if !answered => {
                // No acceptable method.
                caller.write_all(&[5, 0xff]).await.map_err(gone)?;
                return Err(unspoken("wants to authenticate in a way that is not known here"));
            }
            Err(ProtocolError::NotImplemented(_)) => {
                // A command that not even the parser knows.
                caller
                    .write_all(&[5, SocksStatus::COMMAND_NOT_SUPPORTED.into(), 0, 1, 0, 0, 0, 0, 0, 0])
                    .await
                    .map_err(gone)?;
                return Err(Refusal::Command.error());
            }
            Err(_) => return Err(unspoken("does not speak SOCKS5")),
        }
    }
}

fn unspoken(how: &str) -> Error {
    Error::new(
        ErrorKind::Io,
        format!("A program that came to the SOCKS5 front {how}."),
        "Set the program up for a SOCKS5 proxy that it gives names to (`socks5h:`), or use a [[forward]].",
    )
}

fn destination(request: &SocksRequest) -> std::result::Result<(Identifier, ServiceName), Refusal> {
    match (request.version(), request.addr()) {
        _ if request.command() != SocksCmd::CONNECT => Err(Refusal::Command),
        (SocksVersion::V5, SocksAddr::Hostname(name)) => named(name.as_ref()).ok_or(Refusal::NotAllowed),
        _ => Err(Refusal::NotAllowed),
    }
}

/// The peer and service of `SERVICE.PEER.claviger`. Names of hosts have no case.
fn named(host: &str) -> Option<(Identifier, ServiceName)> {
    let host = host.to_ascii_lowercase();
    let (service, peer) = host.strip_suffix(SUFFIX)?.split_once('.')?;
    Some((peer.parse().ok()?, service.parse().ok()?))
}

/// What the peer does with a stream at once: its first bytes, none if it waits to be spoken to.
///
/// # Errors
/// Its refusal.
pub(super) async fn verdict(stream: &mut Stream) -> Result<Vec<u8>> {
    let mut first = vec![0; 4096];
    match timeout(VERDICT, stream.read(&mut first)).await {
        Ok(Ok(n)) => first.truncate(n),
        Ok(Err(error)) => return Err(error_of(error)),
        Err(_) => first.clear(),
    }
    Ok(first)
}

impl Asked {
    /// Says that the stream is there.
    ///
    /// # Errors
    /// [`ErrorKind::Io`]: the caller has gone.
    pub(super) async fn accept(&self, caller: &mut (impl AsyncWrite + Unpin)) -> Result<()> {
        let reply = self.reply(SocksStatus::SUCCEEDED)?;
        caller.write_all(&reply).await.map_err(|_| unspoken("went away before it was answered"))
    }

    /// Says why there is none, and waits until the caller knows.
    pub(super) async fn refuse(&self, mut caller: impl AsyncRead + AsyncWrite + Unpin, error: &Error) {
        let status = match self.destination {
            Err(Refusal::Command) => SocksStatus::COMMAND_NOT_SUPPORTED,
            Err(Refusal::NotAllowed) => SocksStatus::NOT_ALLOWED,
            Ok(_) => status(error.kind()),
        };
        let parting = async {
            let Ok(reply) = self.reply(status) else { return };
            if caller.write_all(&reply).await.is_ok() && caller.shutdown().await.is_ok() {
                // Closed upon what it may have sent already, it would lose the answer.
                let _ = tokio::io::copy(&mut caller.take(EARLY), &mut tokio::io::sink()).await;
            }
        };
        let _ = timeout(PARTING, parting).await;
    }

    fn reply(&self, status: SocksStatus) -> Result<Vec<u8>> {
        self.request.reply(status, None).map_err(|error| {
            Error::new(ErrorKind::Internal, "A SOCKS5 reply can not be written.", "Please report this.").because(error)
        })
    }
}

/// The reply for a failure.
fn status(kind: ErrorKind) -> SocksStatus {
    use ErrorKind as Kind;
    match kind {
        Kind::AddressRefused => SocksStatus::NOT_ALLOWED,
        Kind::TransportUnavailable
        | Kind::NotReady
        | Kind::TokenAbsent
        | Kind::TokenBusy
        | Kind::TokenFailed
        | Kind::TokenNotTouched
        | Kind::TokenTimeout
        | Kind::PinRequired
        | Kind::PinWrong
        | Kind::PinLocked => SocksStatus::NETWORK_UNREACHABLE,
        Kind::PeerUnknown | Kind::PeerRevoked | Kind::PeerExpired | Kind::Unreachable | Kind::OnionAuth => {
            SocksStatus::HOST_UNREACHABLE
        }
        Kind::ServiceRefused | Kind::StreamReset | Kind::HandshakeRefused | Kind::PatternRefused => {
            SocksStatus::CONNECTION_REFUSED
        }
        Kind::DialTimeout | Kind::HandshakeTimeout | Kind::PeerSilent => SocksStatus::TTL_EXPIRED,
        _ => SocksStatus::GENERAL_FAILURE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::io::{DuplexStream, duplex};

    fn hear(bytes: &[u8]) -> (Result<Asked>, Vec<u8>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let (mut near, mut far): (DuplexStream, DuplexStream) = duplex(64 * 1024);
            far.write_all(bytes).await.unwrap();
            far.shutdown().await.unwrap();
            let asked = asked(&mut near).await;
            if let Ok(asked) = &asked
                && let Err(refusal) = asked.destination
            {
                asked.refuse(near, &refusal.error()).await;
            } else {
                drop(near);
            }
            let mut answer = Vec::new();
            far.read_to_end(&mut answer).await.unwrap();
            (asked, answer)
        })
    }

    fn connect(command: u8, host: &str) -> Vec<u8> {
        let mut bytes = vec![5, 1, 0, 5, command, 0, 3, host.len() as u8];
        bytes.extend_from_slice(host.as_bytes());
        bytes.extend_from_slice(&[0, 22]);
        bytes
    }

    #[test]
    fn names_of_services_and_nothing_else() {
        for host in ["ssh.cosigner.claviger", "SSH.Cosigner.Claviger"] {
            let destination = hear(&connect(1, host)).0.unwrap().destination.unwrap();
            assert_eq!((destination.0.as_str(), destination.1.as_str()), ("cosigner", "ssh"));
        }
        for host in [
            "cosigner.claviger",
            "a.ssh.cosigner.claviger",
            "ssh..claviger",
            ".cosigner.claviger",
            "ssh.cosigner.claviger.",
            "ssh.cosigner.claviger.example",
            "ssh.cosigner",
            "claviger",
            "",
            "example.com",
            "localhost",
            "127.0.0.1",
            "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion",
        ] {
            let (asked, answer) = hear(&connect(1, host));
            assert_eq!(asked.unwrap().destination.unwrap_err(), Refusal::NotAllowed, "{host}");
            assert_eq!(answer[..4], [5, 0, 5, 2], "{host}");
        }
        // Addresses, of both families.
        let v4 = [&[5, 1, 0, 5, 1, 0, 1, 192, 0, 2, 1, 0, 80][..]].concat();
        let v6 = [&[5, 1, 0, 5, 1, 0, 4][..], &[0; 16], &[0, 80]].concat();
        // SOCKS4, and 4a with a name that would be good in 5.
        let four = [&[4, 1, 0, 80, 192, 0, 2, 1, 0][..]].concat();
        let four_a = [&[4, 1, 0, 80, 0, 0, 0, 1, 0][..], b"ssh.cosigner.claviger\0"].concat();
        for bytes in [v4, v6, four, four_a] {
            assert_eq!(hear(&bytes).0.unwrap().destination.unwrap_err(), Refusal::NotAllowed, "{bytes:?}");
        }
    }

    #[test]
    fn other_commands_and_methods() {
        for command in [2, 3, 0xf0, 0xf1, 9] {
            let (asked, answer) = hear(&connect(command, "ssh.cosigner.claviger"));
            assert!(asked.is_err() || asked.unwrap().destination == Err(Refusal::Command));
            assert_eq!(answer[..4], [5, 0, 5, 7], "{command}");
        }
        // GSSAPI alone.
        let (asked, answer) = hear(&[5, 1, 1]);
        assert!(asked.is_err());
        assert_eq!(answer, [5, 0xff]);
        // A user name and password mean nothing.
        let mut bytes = vec![5, 2, 0, 2, 1, 3, b'a', b'b', b'c', 1, b'd'];
        bytes.extend_from_slice(&connect(1, "ssh.cosigner.claviger")[3..]);
        let (asked, answer) = hear(&bytes);
        assert!(asked.unwrap().destination.is_ok());
        assert_eq!(answer, [5, 2, 1, 0]);
        // A browser that was told that this is a web proxy.
        let (asked, answer) = hear(b"GET http://example.com/ HTTP/1.1\r\n\r\n");
        assert!(!asked.err().unwrap().to_string().contains("example"));
        assert!(answer.is_empty());
    }

    proptest! {
        #[test]
        fn whatever_is_said_nothing_but_a_service_is_reached(bytes in prop::collection::vec(any::<u8>(), 0..600), host in "[ -~]{0,80}") {
            for bytes in [[&[5, 1, 0][..], &bytes].concat(), [&connect(1, &host)[..], &bytes].concat(), bytes] {
                if let Ok(Asked { destination: Ok((peer, service)), .. }) = hear(&bytes).0 {
                    let name = format!("{service}.{peer}.claviger");
                    let said = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
                    prop_assert!(said.contains(&name), "{name}");
                }
            }
        }
    }
}
