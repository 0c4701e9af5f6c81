//! Dialling through tor's SOCKS port (RFC 1928, RFC 1929; tor's socks-extensions and proposal 304).

use crate::error::{Error, ErrorKind, Result};
use crate::identity::OnionAddress;
use crate::transport::NOT_FOR_US;
use crate::transport::retry::{Attempt, Failure};
use aws_lc_rs::digest;
use data_encoding::HEXLOWER;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_socks::tcp::Socks5Stream;

/// How peers' circuits are kept apart: tor gives streams with different SOCKS credentials different circuits (`IsolateSOCKSAuth`, on by
/// default). The user name is a hash of the label, so tor's log names no peer; the password is random, so that other programs and other
/// runs of this one share no circuit with it either.
pub(super) struct Isolation {
    password: String,
}

impl Isolation {
    pub(super) fn new() -> Result<Self> {
        Ok(Self { password: HEXLOWER.encode(&super::random::<16>()?) })
    }

    /// The user name of a label: 32 hexadecimal digits.
    pub(super) fn user(&self, label: &str) -> String {
        let text = format!("{}:{label}", self.password);
        HEXLOWER.encode(&digest::digest(&digest::SHA256, text.as_bytes()).as_ref()[..16])
    }
}

/// One try to reach port `port` of `onion`. The address goes to tor as a name.
pub(super) async fn connect(
    socks: SocketAddr,
    onion: &OnionAddress,
    port: u16,
    user: &str,
    isolation: &Isolation,
) -> Attempt<TcpStream> {
    let stream = TcpStream::connect(socks)
        .await
        .map_err(|error| Failure::Final(super::not_running("SOCKS port", &socks, "socks", error)))?;
    let mut tap = Tap { stream, seen: [0; SEEN], len: 0 };
    let name = onion.to_string();
    let opened =
        Socks5Stream::connect_with_password_and_socket(&mut tap, (name.as_str(), port), user, &isolation.password);
    let opened = opened.await.map(drop);
    match (opened, tap.method()) {
        (Ok(()), Some(PASSWORD)) => Ok(tap.stream),
        (Ok(()), _) => Err(Failure::Final(Error::new(
            ErrorKind::TransportUnavailable,
            format!("tor's SOCKS port at {socks} takes no user name, so peers would share circuits."),
            "Remove `PreferSOCKSNoAuth` from `SocksPort` in /etc/tor/torrc, and run `systemctl reload tor`.",
        ))),
        (Err(error), _) => Err(failed(socks, onion, port, tap.reply(), error)),
    }
}

/// The method "user name and password" of RFC 1928, section 3.
const PASSWORD: u8 = 2;
/// Bytes of the server's side that are remembered: method selection (5, METHOD), password status (1, STATUS), and the reply's
/// first two (5, REP). tokio-socks drops a REP that RFC 1928 does not list, and tor's own are the ones that say most.
const SEEN: usize = 6;

/// A stream that remembers the first [`SEEN`] bytes read.
struct Tap {
    stream: TcpStream,
    seen: [u8; SEEN],
    len: usize,
}

impl Tap {
    fn method(&self) -> Option<u8> {
        (self.len > 1).then_some(self.seen[1])
    }

    /// The reply code, if the server got so far.
    fn reply(&self) -> Option<u8> {
        (self.len == SEEN && self.seen[..5] == [5, PASSWORD, 1, 0, 5]).then_some(self.seen[5])
    }
}

impl AsyncRead for Tap {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let (at, new) = (self.len, &buf.filled()[before..]);
        let take = new.len().min(SEEN - at);
        self.seen[at..at + take].copy_from_slice(&new[..take]);
        self.len += take;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tap {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

fn failed(
    socks: SocketAddr,
    onion: &OnionAddress,
    port: u16,
    reply: Option<u8>,
    source: tokio_socks::Error,
) -> Failure {
    use ErrorKind::{AddressRefused, OnionAuth, TransportUnavailable, Unreachable};
    use Failure::{Doubtful, Final, Passing};
    const OFFLINE: &str = "See whether its claviger and its tor are running and online.";
    const TOR_LOG: &str = "See tor's log: `journalctl -u tor@default`.";
    const NOT_TOR: &str = "Set `socks` in [transport.tor] to tor's SOCKS port (`SocksPort` in /etc/tor/torrc).";
    let name = onion.redacted();
    let Some(reply) = reply else {
        return match source {
            // tor ended in the middle; if it is gone, the next try says so.
            tokio_socks::Error::Io(_) => Passing(
                Error::new(TransportUnavailable, "tor closed the SOCKS connection without an answer.", TOR_LOG)
                    .because(source),
            ),
            _ => Final(
                Error::new(TransportUnavailable, format!("What answers at {socks} is not tor's SOCKS port."), NOT_TOR)
                    .because(source),
            ),
        };
    };
    // Each arm: whether it may pass, the kind, what happened, what to do.
    type Shape = fn(Error) -> Failure;
    let (shape, kind, what, hint): (Shape, _, String, _) = match reply {
        // RFC 1928, section 6.
        0x02 => (
            Final,
            TransportUnavailable,
            format!("tor's configuration does not let {name} be dialled."),
            "Remove `NoOnionTraffic` and `SocksPolicy` from /etc/tor/torrc, and run `systemctl reload tor`.",
        ),
        0x03 => (Passing, TransportUnavailable, "tor has no network.".into(), TOR_LOG),
        0x04 => (Passing, Unreachable, format!("The onion service {name} can not be reached."), OFFLINE),
        0x05 => (Passing, Unreachable, format!("Nothing answers on port {port} of {name}."), OFFLINE),
        0x06 => (Passing, Unreachable, format!("The way to {name} took too long."), OFFLINE),
        0x07 | 0x08 => {
            (Final, TransportUnavailable, format!("What answers at {socks} is not tor's SOCKS port."), NOT_TOR)
        }
        // tor proposal 304: SocksPort flag ExtendedErrors.
        0xf0 => (Passing, Unreachable, format!("The onion service {name} is not published."), OFFLINE),
        0xf1 => (
            Final,
            Unreachable,
            format!("The descriptor of {name} is not valid."),
            "Use the same release of tor on both machines, and see the other machine's tor log.",
        ),
        0xf2 => (Passing, Unreachable, format!("The introduction to {name} failed."), OFFLINE),
        0xf3 => (Passing, Unreachable, format!("The rendezvous with {name} failed."), OFFLINE),
        // None of its keys, and not the one that tor was told.
        0xf4 | 0xf5 => (Doubtful, OnionAuth, format!("{name} is published, and not for this machine."), NOT_FOR_US),
        0xf6 => (
            Final,
            AddressRefused,
            format!("tor does not take {name} for an onion address."),
            "Import the peer's card again.",
        ),
        0xf7 => (Passing, Unreachable, format!("The introduction to {name} took too long."), OFFLINE),
        _ => (Passing, Unreachable, format!("tor did not reach {name} (SOCKS reply {reply:#04x})."), TOR_LOG),
    };
    shape(Error::new(kind, what, hint).because(source))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::OnionKeys;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    /// What one try makes of a server that answers `answers` in turn, whatever it is asked. Real tor gives only a few of these codes on demand.
    async fn outcome(answers: &'static [&'static [u8]]) -> Attempt<TcpStream> {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        let serve = async move {
            let (mut stream, _) = server.accept().await.unwrap();
            for answer in answers {
                let _ = stream.read(&mut [0; 1024]).await.unwrap();
                stream.write_all(answer).await.unwrap();
            }
        };
        let onion = OnionKeys::generate().unwrap().address;
        let isolation = Isolation::new().unwrap();
        let connect = connect(address, &onion, 4747, "user", &isolation);
        tokio::time::timeout(Duration::from_secs(5), async { tokio::join!(connect, serve).0 }).await.unwrap()
    }

    macro_rules! replies {
        ($code:literal) => {
            outcome(&[&[5, 2], &[1, 0], &[5, $code, 0, 1, 0, 0, 0, 0, 0, 0]]).await
        };
    }

    fn kind(outcome: Attempt<TcpStream>) -> (bool, ErrorKind) {
        match outcome {
            Ok(_) => panic!("connected"),
            Err(Failure::Passing(error) | Failure::Doubtful(error)) => (true, error.kind()),
            Err(Failure::Final(error)) => (false, error.kind()),
        }
    }

    #[tokio::test]
    async fn reply_codes_are_told_apart() {
        use ErrorKind::{AddressRefused, OnionAuth, TransportUnavailable, Unreachable};
        assert!(replies!(0x00).is_ok());
        assert_eq!(kind(replies!(0x01)), (true, Unreachable));
        assert_eq!(kind(replies!(0x02)), (false, TransportUnavailable));
        assert_eq!(kind(replies!(0x04)), (true, Unreachable));
        assert_eq!(kind(replies!(0x07)), (false, TransportUnavailable));
        assert_eq!(kind(replies!(0xf0)), (true, Unreachable));
        assert_eq!(kind(replies!(0xf1)), (false, Unreachable));
        assert_eq!(kind(replies!(0xf2)), (true, Unreachable));
        assert_eq!(kind(replies!(0xf3)), (true, Unreachable));
        assert_eq!(kind(replies!(0xf4)), (true, OnionAuth));
        assert_eq!(kind(replies!(0xf5)), (true, OnionAuth));
        assert_eq!(kind(replies!(0xf6)), (false, AddressRefused));
        assert_eq!(kind(replies!(0xf7)), (true, Unreachable));
        assert_eq!(kind(replies!(0xff)), (true, Unreachable));
    }

    #[tokio::test]
    async fn a_server_that_is_no_socks_port_of_tor_is_refused() {
        use ErrorKind::TransportUnavailable;
        assert_eq!(kind(outcome(&[b"HTTP/1.0 400 Bad Request\r\n\r\n"]).await), (false, TransportUnavailable));
        assert_eq!(kind(outcome(&[&[5, 0xff]]).await), (false, TransportUnavailable));
        assert_eq!(kind(outcome(&[&[5, 2], &[1, 1]]).await), (false, TransportUnavailable));
        // Takes no credentials, so circuits would be shared.
        let open = outcome(&[&[5, 0], &[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]]).await;
        assert_eq!(kind(open), (false, TransportUnavailable));
        // Ends in the middle, as tor does when it is stopped.
        assert_eq!(kind(outcome(&[&[5]]).await), (true, TransportUnavailable));
        assert_eq!(kind(outcome(&[&[5, 2], &[1, 0], &[]]).await), (true, TransportUnavailable));
    }

    #[test]
    fn labels_give_users_of_one_form() {
        let (one, other) = (Isolation::new().unwrap(), Isolation::new().unwrap());
        assert_ne!(one.user("a"), one.user("b"));
        assert_eq!(one.user("a"), one.user("a"));
        assert_ne!(one.user("a"), other.user("a"));
        for label in ["", &"x".repeat(1000)] {
            assert_eq!(one.user(label).len(), 32);
        }
    }
}
