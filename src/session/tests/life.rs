//! Streams and sessions that begin, carry, and end as they should.

use super::*;

#[tokio::test]
async fn both_ends_open_streams_and_each_direction_ends_by_itself() {
    let [one, other] = pair().await;
    for (from, to, parity) in [(&one, &other, 1), (&other, &one, 0)] {
        let [mut near, mut far] = stream(from, to).await;
        assert_eq!(near.id() % 2, parity);
        near.write_all(b"question").await.unwrap();
        near.shutdown().await.unwrap();
        let mut heard = String::new();
        soon(far.read_to_string(&mut heard)).await.unwrap();
        assert_eq!(heard, "question");
        far.write_all(b"answer").await.unwrap();
        far.shutdown().await.unwrap();
        let mut heard = String::new();
        soon(near.read_to_string(&mut heard)).await.unwrap();
        assert_eq!(heard, "answer");
        assert_eq!(near.read(&mut [0; 8]).await.unwrap(), 0, "the end stays the end");
    }
    let (closed, ended) = soon(async { tokio::join!(one.close(), other.ended()) }).await;
    closed.unwrap();
    assert_eq!(ended.kind(), ErrorKind::SessionClosed);
    other.close().await.unwrap();
    assert_eq!(other.accept().await.unwrap_err().kind(), ErrorKind::SessionClosed);
    assert_eq!(one.open(&service("echo")).await.unwrap_err().kind(), ErrorKind::SessionClosed);
    assert_eq!(one.status().streams + other.status().streams, 0);
}

/// What a session with nothing to do and nobody to do it for comes to.
#[tokio::test]
async fn a_session_that_nobody_holds_is_closed() {
    let [one, other] = pair().await;
    let [mut near, mut far] = stream(&one, &other).await;
    drop(one);
    // Its stream goes on; new ones are not for anybody.
    near.write_all(b"still here").await.unwrap();
    let mut heard = [0; 10];
    soon(far.read_exact(&mut heard)).await.unwrap();
    // It learns of that by the DRAIN, or, if it was quicker, by a refusal.
    let refused = soon(async {
        let mut stream = other.open(&service("echo")).await?;
        stream.read(&mut [0]).await.map_err(error_of)
    });
    assert_eq!(refused.await.unwrap_err().kind(), ErrorKind::SessionDraining);
    assert!(!other.status().has_ended);
    near.shutdown().await.unwrap();
    far.shutdown().await.unwrap();
    assert_eq!((near.read(&mut heard).await.unwrap(), far.read(&mut heard).await.unwrap()), (0, 0));
    drop((near, far));
    assert_eq!(soon(other.ended()).await.kind(), ErrorKind::SessionClosed);
    soon(other.close()).await.unwrap();
}

/// What came before the end is there after it: also on streams that nobody had accepted yet.
#[tokio::test]
async fn what_has_arrived_is_read_after_the_session_has_ended() {
    let [one, other] = pair().await;
    let mut said = one.open(&service("note")).await.unwrap();
    said.write_all(&[7; 100_000]).await.unwrap();
    said.shutdown().await.unwrap();
    let mut half = one.open(&service("half")).await.unwrap();
    half.write_all(b"half").await.unwrap();
    let [near, mut far] = [said, half];
    // The other direction is nobody's: dropping it closes the first stream, with what was sent on it.
    drop(near);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(other.status().streams, 2);
    one.end(Why::Replaced);
    assert_eq!(soon(other.ended()).await.kind(), ErrorKind::SessionReplaced);
    let mut first = other.accept().await.unwrap();
    let mut second = other.accept().await.unwrap();
    assert_eq!(other.accept().await.unwrap_err().kind(), ErrorKind::SessionReplaced);
    let mut heard = Vec::new();
    first.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, [7; 100_000]);
    let mut heard = Vec::new();
    let error = error_of(second.read_to_end(&mut heard).await.unwrap_err());
    assert_eq!((error.kind(), &heard[..]), (ErrorKind::SessionReplaced, &b"half"[..]));
    assert!(error.to_string().starts_with("What the stream carried is incomplete: another session"), "{error}");
    assert_eq!(kind(second.write(b"x").await), ErrorKind::SessionReplaced);
    assert_eq!(kind(far.write(b"x").await), ErrorKind::SessionReplaced);
}

/// The END lets the peer go, which may close the session at once: that is no failure of whoever has said everything.
#[tokio::test]
async fn an_end_that_was_heard_is_no_error() {
    use futures::FutureExt as _;
    let [one, other] = pair().await;
    let [mut near, mut far] = stream(&one, &other).await;
    // As much as yamux queues, so that its FIN has to wait.
    let mut said = 0;
    while let Some(n) = near.write(&[1; 1000]).now_or_never() {
        said += n.unwrap();
    }
    assert!(near.shutdown().now_or_never().is_none());
    let hearing = async {
        let mut heard = Vec::new();
        far.read_to_end(&mut heard).await.unwrap();
        drop(far);
        other.end(Why::Done);
        heard.len()
    };
    let ending = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        near.shutdown().await
    };
    let (heard, ended) = soon(async { tokio::join!(hearing, ending) }).await;
    ended.unwrap();
    assert_eq!(heard, said);
}

#[tokio::test]
async fn a_pipe_that_breaks_interrupts_what_is_incomplete_and_nothing_else() {
    let (one, near_pipe) = duplex(1 << 16);
    let (other, far_pipe) = duplex(1 << 16);
    let mut between = tokio::spawn(async move {
        let (mut near, mut far) = (near_pipe, far_pipe);
        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
    });
    let [one, other] = pair_on([Pipe::joined(one), Pipe::joined(other)], |_| {}).await;
    let [mut whole, mut whole_there] = stream(&one, &other).await;
    let [mut half, mut half_there] = stream(&one, &other).await;
    whole.write_all(b"whole").await.unwrap();
    whole.shutdown().await.unwrap();
    half.write_all(b"half").await.unwrap();
    let mut heard = [0; 1];
    for there in [&mut whole_there, &mut half_there] {
        soon(there.read_exact(&mut heard)).await.unwrap();
    }
    // The END has come when the session that it came by has nothing more to hear.
    tokio::time::sleep(Duration::from_millis(100)).await;
    between.abort();
    let _ = (&mut between).await;
    assert_eq!(soon(other.ended()).await.kind(), ErrorKind::SessionTruncated);
    let mut heard = Vec::new();
    whole_there.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"hole");
    let mut heard = Vec::new();
    let error = error_of(half_there.read_to_end(&mut heard).await.unwrap_err());
    assert_eq!((error.kind(), &heard[..]), (ErrorKind::SessionInterrupted, &b"alf"[..]));
    assert!(error.cause().unwrap().contains("cut"), "{error:?}");
    assert_eq!(kind(soon(half.read(&mut [0])).await), ErrorKind::SessionInterrupted);
    assert_eq!(soon(one.close()).await.unwrap_err().kind(), ErrorKind::SessionTruncated);
    assert_eq!(soon(whole.lost()).await.kind(), ErrorKind::SessionInterrupted);
}

/// Bytes that depend on stream and place.
fn pattern(seed: u32, at: usize, out: &mut [u8]) {
    for (offset, byte) in out.iter_mut().enumerate() {
        *byte =
            (seed.wrapping_mul(0x9e37_79b9).wrapping_add((at + offset) as u32).wrapping_mul(0x85eb_ca6b) >> 24) as u8;
    }
}

/// Says `len` bytes in pieces of varying sizes and ends its direction; hears the other end's, every byte.
async fn converse(stream: Stream, say: (u32, usize), hear: (u32, usize)) {
    let (mut read, mut write) = tokio::io::split(stream);
    let saying = async {
        let (mut at, mut size, mut buffer) = (0, 1, vec![0; 70_000]);
        while at < say.1 {
            let len = size.min(say.1 - at);
            pattern(say.0, at, &mut buffer[..len]);
            write.write_all(&buffer[..len]).await.unwrap();
            at += len;
            size = size * 7 % 65_521 + 1;
        }
        write.shutdown().await.unwrap();
    };
    let hearing = async {
        let (mut at, mut size, mut heard, mut expected) = (0, 3, vec![0; 70_000], vec![0; 70_000]);
        loop {
            let len = read.read(&mut heard[..size]).await.unwrap();
            if len == 0 {
                break;
            }
            pattern(hear.0, at, &mut expected[..len]);
            assert!(heard[..len] == expected[..len], "stream {}: wrong bytes after {at}", hear.0);
            at += len;
            size = size * 5 % 65_521 + 1;
        }
        assert_eq!(at, hear.1);
    };
    tokio::join!(saying, hearing);
}

/// 32 streams from each end at once, of every size, over a pipe of `size` bytes.
async fn many(pipes: [Pipe; 2]) {
    let [one, other] = pair_on(pipes, |_| {}).await;
    let size = |seed: u32| (seed as usize * 7919 * (seed as usize % 5)) % 300_000;
    let mut tasks = tokio::task::JoinSet::new();
    for (session, parity) in [(&one, 1), (&other, 0)] {
        for _ in 0..32 {
            let session = session.clone();
            tasks.spawn(async move {
                let stream = session.open(&service("echo")).await.unwrap();
                let seed = stream.id();
                assert_eq!(seed % 2, parity);
                converse(stream, (seed, size(seed)), (seed + 1000, size(seed + 1000))).await;
            });
            let session = if parity == 1 { other.clone() } else { one.clone() };
            tasks.spawn(async move {
                let stream = session.accept().await.unwrap();
                let seed = stream.id();
                converse(stream, (seed + 1000, size(seed + 1000)), (seed, size(seed))).await;
            });
        }
    }
    while let Some(ended) = timeout(Duration::from_secs(120), tasks.join_next()).await.expect("in time") {
        ended.unwrap();
    }
    let (here, there) = soon(async { tokio::join!(one.close(), other.close()) }).await;
    here.unwrap();
    there.unwrap();
    assert_eq!((one.status().streams, other.status().streams), (0, 0));
    assert_eq!(one.status().sent, other.status().received);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_streams_in_both_directions() {
    let (one, other) = duplex(1 << 16);
    many([Pipe::joined(one), Pipe::joined(other)]).await;
    // A pipe that takes a few bytes at a time.
    let (one, other) = duplex(777);
    many([Pipe::joined(one), Pipe::joined(other)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_streams_over_tcp() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (one, other) = tokio::join!(tokio::net::TcpStream::connect(address), listener.accept());
    many([Pipe::from(one.unwrap()), Pipe::from(other.unwrap().0)]).await;
}

#[tokio::test]
async fn a_slow_reader_stalls_nobody_else() {
    let [one, other] = pair().await;
    let [mut stuck, mut unread] = stream(&one, &other).await;
    let stalled = tokio::spawn(async move {
        let _ = stuck.write_all(&vec![1; 2 << 20]).await;
        stuck
    });
    let [mut near, mut far] = stream(&one, &other).await;
    let mut buffer = vec![0; 64 * 1024];
    for _ in 0..100 {
        near.write_all(&[2; 64 * 1024]).await.unwrap();
        soon(far.read_exact(&mut buffer)).await.unwrap();
    }
    assert!(!stalled.is_finished(), "what nobody reads is not sent without end");
    // A reader that goes away frees the writer, which learns why.
    unread.read_exact(&mut [0; 10]).await.unwrap();
    unread.reset(Reset::Application(9));
    let mut stuck = soon(stalled).await.unwrap();
    let error = error_of(stuck.write(b"x").await.unwrap_err());
    assert_eq!((error.kind(), reset_of(&error)), (ErrorKind::StreamReset, Some(Reset::Application(9))));
    assert_eq!(kind(soon(stuck.read(&mut [0])).await), ErrorKind::StreamReset);
    assert_eq!(kind(stuck.shutdown().await), ErrorKind::StreamReset);
}

/// A writer that is blocked on the window is woken, also by a peer whose yamux says nothing: it had ended its own direction.
#[tokio::test]
async fn a_reader_that_leaves_after_its_end_frees_the_writer() {
    let [one, other] = pair().await;
    let [mut near, mut far] = stream(&one, &other).await;
    far.shutdown().await.unwrap();
    let writing = tokio::spawn(async move { near.write_all(&vec![1; 2 << 20]).await });
    soon(far.read_exact(&mut [0; 100])).await.unwrap();
    drop(far);
    assert_eq!(kind(soon(writing).await.unwrap()), ErrorKind::StreamReset);
}

#[tokio::test]
async fn writers_take_turns() {
    let [one, other] = pair().await;
    let reading = tokio::spawn({
        let other = other.clone();
        async move {
            let mut tasks = tokio::task::JoinSet::new();
            let counts = std::sync::Arc::new([const { std::sync::atomic::AtomicUsize::new(0) }; 8]);
            for at in 0..8 {
                let (mut stream, counts) = (other.accept().await.unwrap(), std::sync::Arc::clone(&counts));
                tasks.spawn(async move {
                    let mut buffer = vec![0; 16 * 1024];
                    while let Ok(n @ 1..) = stream.read(&mut buffer).await {
                        counts[at].fetch_add(n, std::sync::atomic::Ordering::Relaxed);
                    }
                });
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
            counts.iter().map(|count| count.load(std::sync::atomic::Ordering::Relaxed)).collect::<Vec<_>>()
        }
    });
    for _ in 0..8 {
        let mut stream = one.open(&service("flood")).await.unwrap();
        tokio::spawn(async move { while stream.write_all(&[0; 16 * 1024]).await.is_ok() {} });
    }
    let counts = soon(reading).await.unwrap();
    let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
    assert!(*least > 0 && *most < least * 3, "{counts:?}");
}

#[tokio::test]
async fn messages_of_any_size() {
    use futures::{SinkExt, StreamExt as _};
    let [one, other] = pair().await;
    let [near, far] = stream(&one, &other).await;
    let (mut near, mut far) = (messages(near, 1 << 20), messages(far, 1 << 20));
    for len in [0, 1, 70_000, 1 << 20] {
        let message = vec![5; len];
        let (sent, heard) = soon(async { tokio::join!(near.send(Bytes::from(message.clone())), far.next()) }).await;
        sent.unwrap();
        assert!(heard.unwrap().unwrap() == message);
    }
    assert!(near.send(Bytes::from(vec![0; (1 << 20) + 1])).await.is_err());
    SinkExt::<Bytes>::close(&mut near).await.unwrap();
    assert!(soon(far.next()).await.is_none());
}

/// Beside the pipe and the keys an idle session has these, its task's header, and what yamux keeps for no stream: a few hundred bytes.
#[test]
fn an_idle_session_is_small() {
    let sizes = [size_of::<Driver>(), size_of::<Shared>(), size_of::<Stream>()];
    assert!(sizes.iter().zip([640, 1024, 192]).all(|(size, limit)| *size <= limit), "{sizes:?}");
}
