//! vpcd's protocol over TCP, as <https://frankmorgner.github.io/vsmartcard/virtualsmartcard/api.html> documents it: each message is a
//! length (16 bits, big endian) and that many bytes. A message of one byte is for the card's hardware; every other one is an APDU.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;

use rustix::net::sockopt::set_tcp_quickack;

/// What the reader sends.
pub(crate) enum Message {
    /// Power off, power on or reset: the card forgets what is in its RAM.
    Reset,
    /// The reader wants the answer to reset.
    Atr,
    /// An APDU.
    Apdu(Vec<u8>),
}

/// Waits for a message. Fails when the reader has gone or the connection was cut.
///
/// vpcd writes length and bytes in two steps and leaves Nagle's algorithm on, so a late ACK would cost 40 ms each time: ACKs
/// are sent at once, which Linux must be told before every read.
pub(crate) fn read(mut stream: &TcpStream) -> io::Result<Message> {
    loop {
        let mut length = [0; 2];
        set_tcp_quickack(stream, true)?;
        stream.read_exact(&mut length)?;
        set_tcp_quickack(stream, true)?;
        let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut message)?;
        match message[..] {
            [0 | 2] => return Ok(Message::Reset),
            [4] => return Ok(Message::Atr),
            // Power on follows power off.
            [1] | [] => {}
            _ => return Ok(Message::Apdu(message)),
        }
    }
}

/// Answers an APDU or a question for the answer to reset.
pub(crate) fn write(mut stream: &TcpStream, answer: &[u8]) -> io::Result<()> {
    let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], answer].concat())
}
