//! What a peer may not do, said to a session by hand: through its own records, so that only the session's rules are tried.

use super::*;
use crate::session::records::{Kind, RecordReader, RecordWriter};
use crate::wire::control::Control;

/// A peer that says what it likes. The session is the responder's.
pub(super) struct Rogue {
    reader: RecordReader,
    writer: RecordWriter,
}

const SYN: u16 = 1;
const FIN: u16 = 4;
const RST: u16 = 8;

impl Rogue {
    pub(super) async fn new() -> (Self, Session) {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Settings)) -> (Self, Session) {
        let [initiator, responder] = established(Suite::ChaChaPolyBlake2s);
        let (one, other) = duplex(1 << 20);
        let (reader, mut writer) = records::split(Pipe::joined(one), &initiator).unwrap();
        writer.empty().unwrap();
        poll_fn(|cx| writer.poll_flush(cx)).await.unwrap();
        let mut settings = settings();
        change(&mut settings);
        let session = Session::begin(Pipe::joined(other), peer("wallet", true), &responder, settings).await.unwrap();
        (Self { reader, writer }, session)
    }

    async fn control(&mut self, message: &Control) {
        let mut bytes = Vec::new();
        message.write(&mut bytes);
        self.raw_control(&bytes).await;
    }

    async fn raw_control(&mut self, bytes: &[u8]) {
        self.writer.control(bytes).unwrap();
        let _ = poll_fn(|cx| self.writer.poll_flush(cx)).await;
    }

    pub(super) async fn frame(&mut self, kind: u8, flags: u16, stream: u32, len: u32, body: &[u8]) {
        let mut bytes = vec![0, kind];
        bytes.extend_from_slice(&flags.to_be_bytes());
        bytes.extend_from_slice(&stream.to_be_bytes());
        bytes.extend_from_slice(&len.to_be_bytes());
        bytes.extend_from_slice(body);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let Ok(n) = poll_fn(|cx| self.writer.poll_streams(cx, rest)).await else { return };
            rest = &rest[n..];
        }
        let _ = poll_fn(|cx| self.writer.poll_flush(cx)).await;
    }

    pub(super) async fn data(&mut self, flags: u16, stream: u32, body: &[u8]) {
        self.frame(0, flags, stream, body.len() as u32, body).await;
    }

    pub(super) async fn open(&mut self, stream: u32) {
        self.control(&Control::Open { stream, service: service("echo") }).await;
        self.data(SYN, stream, b"").await;
    }

    /// The next control message that is not about life.
    async fn hears(&mut self) -> Option<Control> {
        loop {
            let kind = soon(poll_fn(|cx| self.reader.poll_record(cx))).await.ok()?;
            let mut bytes = self.reader.bytes();
            let len = bytes.len();
            let message = (kind == Kind::Control).then(|| Control::read(&mut bytes).unwrap());
            let taken = if message.is_some() { len - bytes.len() } else { len };
            self.reader.consume(taken);
            match message {
                None | Some(Control::Ping(_)) => {}
                Some(message) => return Some(message),
            }
        }
    }
}

/// The session ends, and says that it was the peer's fault.
async fn ends(session: &Session, why: &str) {
    let ended = soon(session.ended()).await;
    assert_eq!(ended.kind(), ErrorKind::SessionProtocol, "{why}: {ended}");
    assert!(ended.to_string().contains(why), "{why}: {ended}");
    assert_eq!(session.close().await.unwrap_err().kind(), ErrorKind::SessionProtocol);
}

#[tokio::test]
async fn streams_are_announced_and_begun_once() {
    let (mut rogue, session) = Rogue::new().await;
    rogue.data(SYN, 1, b"hello").await;
    ends(&session, "had not announced").await;

    let (mut rogue, session) = Rogue::new().await;
    rogue.control(&Control::Open { stream: 1, service: service("echo") }).await;
    rogue.frame(1, SYN, 3, 0, b"").await;
    ends(&session, "had not announced").await;

    for number in [0, 2, u32::MAX - 1] {
        let (mut rogue, session) = Rogue::new().await;
        rogue.control(&Control::Open { stream: number, service: service("echo") }).await;
        ends(&session, "not free").await;
    }

    let (mut rogue, session) = Rogue::new().await;
    rogue.open(5).await;
    let _five = soon(session.accept()).await.unwrap();
    rogue.control(&Control::Open { stream: 3, service: service("echo") }).await;
    ends(&session, "not free").await;

    let (mut rogue, session) = Rogue::new().await;
    rogue.open(1).await;
    let _one = soon(session.accept()).await.unwrap();
    rogue.data(SYN, 1, b"").await;
    ends(&session, "had not announced").await;

    let (mut rogue, session) = Rogue::new().await;
    for number in 0..257 {
        rogue.control(&Control::Open { stream: 2 * number + 1, service: service("echo") }).await;
    }
    ends(&session, "without beginning").await;
}

#[tokio::test]
async fn an_end_is_said_once_and_is_true() {
    let (mut rogue, session) = Rogue::new().await;
    rogue.open(1).await;
    for bytes in [3, 3] {
        rogue.control(&Control::End { stream: 1, bytes }).await;
    }
    ends(&session, "twice").await;

    let (mut rogue, session) = Rogue::new().await;
    rogue.control(&Control::End { stream: 1, bytes: 0 }).await;
    ends(&session, "nobody has opened").await;
    let (mut rogue, session) = Rogue::new().await;
    rogue.control(&Control::Reset { stream: 2, reason: Reset::Dropped }).await;
    ends(&session, "nobody has opened").await;

    // Fewer bytes than said, and more.
    for said in [4, 2] {
        let (mut rogue, session) = Rogue::new().await;
        rogue.open(1).await;
        let mut stream = soon(session.accept()).await.unwrap();
        rogue.control(&Control::End { stream: 1, bytes: said }).await;
        rogue.data(FIN, 1, b"abc").await;
        let mut heard = Vec::new();
        let read = soon(stream.read_to_end(&mut heard)).await;
        assert_eq!(kind(read), ErrorKind::SessionProtocol, "{said}");
        ends(&session, "another length").await;
    }

    // yamux's end alone is none, and neither is its reset.
    let (mut rogue, session) = Rogue::new().await;
    for stream in [1, 3] {
        rogue.open(stream).await;
    }
    let [mut one, mut three] = [soon(session.accept()).await.unwrap(), soon(session.accept()).await.unwrap()];
    rogue.data(FIN, 1, b"abc").await;
    rogue.data(RST, 3, b"").await;
    let mut heard = [0; 3];
    soon(one.read_exact(&mut heard)).await.unwrap();
    assert!(timeout(Duration::from_millis(200), one.read(&mut heard)).await.is_err(), "a FIN was taken for an end");
    assert_eq!(kind(soon(three.read(&mut heard)).await), ErrorKind::StreamReset);
    drop(rogue);
    assert_eq!(kind(soon(one.read(&mut heard)).await), ErrorKind::SessionInterrupted);
    assert_eq!(soon(session.ended()).await.kind(), ErrorKind::SessionTruncated);
}

#[tokio::test]
async fn frames_keep_to_yamux() {
    // More than the window; a window too large; a credit beyond what a number holds; another version; another type; a frame too large.
    type Say = fn(&mut Rogue) -> futures::future::BoxFuture<'_, ()>;
    let cases: [(&str, Say); 7] = [
        ("window", |rogue| Box::pin(async { rogue.frame(0, 0, 1, 300 << 10, &vec![0; 300 << 10]).await })),
        ("first body", |rogue| {
            Box::pin(async {
                rogue.control(&Control::Open { stream: 3, service: service("echo") }).await;
                rogue.frame(0, SYN, 3, 300 << 10, &vec![0; 300 << 10]).await;
            })
        }),
        ("credit", |rogue| Box::pin(async { rogue.frame(1, 0, 1, u32::MAX, b"").await })),
        ("pong", |rogue| {
            Box::pin(async {
                for _ in 0..2 {
                    rogue.frame(2, 2, 0, 77, b"").await;
                }
            })
        }),
        ("type", |rogue| Box::pin(async { rogue.frame(9, 0, 1, 0, b"").await })),
        ("too large", |rogue| Box::pin(async { rogue.frame(0, 0, 1, 2 << 20, b"").await })),
        ("go away", |rogue| Box::pin(async { rogue.frame(3, 0, 0, 0, b"").await })),
    ];
    for (name, say) in cases {
        let (mut rogue, session) = Rogue::new().await;
        rogue.open(1).await;
        let _stream = soon(session.accept()).await.unwrap();
        say(&mut rogue).await;
        let ended = timeout(Duration::from_secs(10), session.ended()).await.expect(name);
        assert_eq!(ended.kind(), ErrorKind::SessionProtocol, "{name}: {ended}");
    }
}

#[tokio::test]
async fn control_messages_are_whole_and_known() {
    for (bytes, why) in [
        (&[][..], "cut short"),
        (&[1, 0, 0], "cut short"),
        (&[3, 0, 0, 0, 1, 9, b'a'], "cut short"),
        (&[3, 0, 0, 0, 1, 1, b'A'], "names no service"),
        (&[9], "not assigned"),
        (&[6, 99], "not assigned"),
        (&[7, 0, 6, 0], "after its CLOSE"),
    ] {
        let (mut rogue, session) = Rogue::new().await;
        rogue.raw_control(bytes).await;
        let ended = soon(session.ended()).await;
        assert_eq!(ended.kind(), ErrorKind::SessionProtocol, "{bytes:?}: {ended}");
        assert!(ended.to_string().contains(why), "{bytes:?}: {ended}");
    }
    // An end without a word is none.
    let (mut rogue, session) = Rogue::new().await;
    rogue.writer.empty().unwrap();
    poll_fn(|cx| rogue.writer.poll_flush(cx)).await.unwrap();
    ends(&session, "without a word").await;
}

#[tokio::test]
async fn what_comes_after_a_close_is_not_taken_for_it() {
    let (mut rogue, session) = Rogue::new().await;
    rogue.control(&Control::Close(Why::Done)).await;
    assert_eq!(rogue.hears().await, Some(Control::Close(Why::Done)));
    assert_eq!(soon(session.ended()).await.kind(), ErrorKind::SessionClosed);
    rogue.data(0, 1, b"more").await;
    let closed = soon(session.close()).await.unwrap_err();
    assert_eq!(closed.kind(), ErrorKind::SessionProtocol, "{closed}");
}

/// A peer that has not heard of the CLOSE yet goes on opening streams.
#[tokio::test]
async fn streams_that_cross_a_close_are_no_offence() {
    let (mut rogue, session) = Rogue::new().await;
    session.end(Why::Done);
    assert_eq!(rogue.hears().await, Some(Control::Close(Why::Done)));
    for number in 0..300 {
        rogue.open(2 * number + 1).await;
    }
    rogue.control(&Control::Close(Why::Done)).await;
    for _ in 0..2 {
        rogue.writer.empty().unwrap();
    }
    poll_fn(|cx| rogue.writer.poll_flush(cx)).await.unwrap();
    soon(session.close()).await.unwrap();
}

#[tokio::test]
async fn refusals_are_typed() {
    // One more stream than there may be, and none when the session drains.
    let (mut rogue, session) =
        Rogue::with(|settings| settings.limits = PeerLimits::new(1, 1 << 20, Arc::default())).await;
    rogue.open(1).await;
    let one = soon(session.accept()).await.unwrap();
    rogue.open(3).await;
    assert_eq!(rogue.hears().await, Some(Control::Reset { stream: 3, reason: Reset::Limit }));
    assert_eq!(session.open(&service("echo")).await.unwrap_err().kind(), ErrorKind::StreamLimit);
    drop(one);
    assert_eq!(rogue.hears().await, Some(Control::Reset { stream: 1, reason: Reset::Dropped }));
    rogue.open(5).await;
    let five = soon(session.accept()).await.unwrap();
    session.drain(Why::ShuttingDown);
    assert_eq!(rogue.hears().await, Some(Control::Drain(Why::ShuttingDown)));
    rogue.open(7).await;
    assert_eq!(rogue.hears().await, Some(Control::Reset { stream: 7, reason: Reset::Draining }));
    assert_eq!(session.open(&service("echo")).await.unwrap_err().kind(), ErrorKind::SessionDraining);
    five.reset(Reset::Application(7));
    assert_eq!(rogue.hears().await, Some(Control::Reset { stream: 5, reason: Reset::Application(7) }));
    assert_eq!(rogue.hears().await, Some(Control::Close(Why::ShuttingDown)));
}

/// A peer that asks and asks, and reads nothing.
#[tokio::test]
async fn a_peer_that_does_not_read_costs_no_memory() {
    let (mut rogue, session) = Rogue::new().await;
    let flood = async {
        for round in 0..20_000_u32 {
            rogue.control(&Control::Ping([0; 8])).await;
            rogue.open(2 * round + 1).await;
        }
    };
    // It is not read any more at some point, or every stream is refused.
    let _ = timeout(Duration::from_secs(5), flood).await;
    let pending = session.shared().line().writer.as_ref().map_or(0, RecordWriter::pending);
    assert!(pending < 1 << 20, "{pending} bytes wait");
    assert!(session.status().streams <= 256);
}
