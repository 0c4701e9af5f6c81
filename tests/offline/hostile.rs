//! A member that keeps to the handshake and to nothing after it: its records hold whatever a test wants.

use crate::support::Machine;
use claviger::noise::{self, Opener, Protocol, Sealer, Setup, Step, knock};
use claviger::token::{Reason, TokenHandle};
use claviger::wire::control::Control;
use claviger::wire::{self, Ends, Pattern};
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// Its directions, which can be driven apart from each other.
pub struct Member {
    pub hears: Hears,
    pub says: Says,
}

pub struct Hears {
    pub pipe: OwnedReadHalf,
    opener: Opener,
}

pub struct Says {
    pub pipe: OwnedWriteHalf,
    sealer: Sealer,
}

/// yamux's frames.
pub const DATA: u8 = 0;
pub const WINDOW: u8 = 1;
pub const PING: u8 = 2;
pub const GO_AWAY: u8 = 3;
pub const SYN: u16 = 1;
pub const ACK: u16 = 2;
pub const FIN: u16 = 4;
pub const RST: u16 = 8;

/// A frame of yamux's with any length, and what follows it.
pub fn frame(kind: u8, flags: u16, stream: u32, len: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, kind];
    bytes.extend_from_slice(&flags.to_be_bytes());
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(&len.to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// A frame of data.
pub fn data(flags: u16, stream: u32, body: &[u8]) -> Vec<u8> {
    frame(DATA, flags, stream, body.len() as u32, body)
}

/// An OPEN.
pub fn open(stream: u32) -> Control {
    Control::Open { stream, service: "test".parse().unwrap() }
}

pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// One frame of the wire: its length, and so many bytes.
pub async fn read_frame(pipe: &mut (impl tokio::io::AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let len = pipe.read_u16().await?;
    let mut body = vec![0; usize::from(len)];
    pipe.read_exact(&mut body).await?;
    Ok(body)
}

impl Member {
    /// Calls `victim` by KK1, whose first message costs no token, and confirms.
    pub async fn call(own: &Machine, token: &TokenHandle, victim: &Machine) -> Self {
        let mut pipe = TcpStream::connect(victim.address()).await.unwrap();
        let ends = Ends {
            initiator: &own.card.identifier,
            initiator_role: &own.card.role,
            responder: &victim.card.identifier,
            responder_role: &victim.card.role,
            onion_address: &victim.card.onion_address,
            port: 4747,
        };
        let protocol = Protocol {
            pattern: Pattern::Kk1,
            kem: None,
            psk: false,
            curve: own.card.curve(),
            suite: claviger::identity::Suite::ChaChaPolyBlake2s,
        };
        let prologue = wire::prologue(protocol.kind(), &ends);
        let (ours, theirs) = (&own.card.static_public, &victim.card.static_public);
        let mut step = noise::initiator(Setup::new(protocol, ours, theirs, &prologue)).unwrap();
        let mut knocks = true;
        let established = loop {
            step = match step {
                Step::Agree(agree) => {
                    let secret = token.agree(agree.public(), &Reason::OPENING).await.unwrap();
                    agree.resume(secret).unwrap()
                }
                Step::Send(send) => {
                    let message = if std::mem::take(&mut knocks) {
                        knock::packet(&knock::key(ours, theirs), protocol.kind(), now_ms(), send.message())
                    } else {
                        send.message().to_vec()
                    };
                    pipe.write_all(&wire::frame(&message).unwrap()).await.unwrap();
                    send.sent().unwrap()
                }
                Step::Receive(receive) => receive.received(&read_frame(&mut pipe).await.unwrap()).unwrap(),
                Step::Finished(established) => break *established,
            };
        };
        let suite = established.protocol.suite;
        let (read, write) = pipe.into_split();
        let hears = Hears { pipe: read, opener: Opener::new(suite, &established.receive).unwrap() };
        let mut says = Says { pipe: write, sealer: Sealer::new(suite, &established.send).unwrap() };
        says.record(&[]).await.unwrap();
        Self { hears, says }
    }
}

impl Says {
    /// One record, kind byte and all.
    pub async fn record(&mut self, plain: &[u8]) -> io::Result<()> {
        let mut sealed = Vec::new();
        self.sealer.seal(plain, &mut sealed).unwrap();
        self.pipe.write_all(&sealed).await
    }

    /// Control messages, in one record.
    pub async fn control(&mut self, messages: &[Control]) -> io::Result<()> {
        let mut plain = vec![1];
        messages.iter().for_each(|message| message.write(&mut plain));
        self.record(&plain).await
    }

    /// Bytes of the streams, in as many records as it takes.
    pub async fn frames(&mut self, bytes: &[u8]) -> io::Result<()> {
        for part in bytes.chunks(60_000) {
            self.record(&[&[0], part].concat()).await?;
        }
        Ok(())
    }
}

impl Hears {
    /// The next record, kind byte and all.
    pub async fn record(&mut self) -> io::Result<Vec<u8>> {
        let mut sealed = read_frame(&mut self.pipe).await?;
        Ok(self.opener.open(&mut sealed).unwrap().to_vec())
    }

    /// Reads until the pipe ends.
    pub async fn everything(&mut self) -> Vec<Vec<u8>> {
        let mut records = Vec::new();
        while let Ok(record) = self.record().await {
            records.push(record);
        }
        records
    }
}
