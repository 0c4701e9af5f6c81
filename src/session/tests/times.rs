//! What happens by the clock, on a clock that the test winds.

use super::*;
use tokio::io::DuplexStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// Two ends whose pipe carries nothing any more once that is said, and does not end.
fn mutable_pipes() -> ([Pipe; 2], watch::Sender<bool>) {
    let ((one, near), (other, far)) = (duplex(1 << 16), duplex(1 << 16));
    let (mute, _) = watch::channel(false);
    let ((near_read, near_write), (far_read, far_write)) = (tokio::io::split(near), tokio::io::split(far));
    type Half<T> = (tokio::io::ReadHalf<T>, tokio::io::WriteHalf<T>);
    let halves: [Half<DuplexStream>; 2] = [(near_read, far_write), (far_read, near_write)];
    for (mut from, mut to) in halves {
        let mut muted = mute.subscribe();
        tokio::spawn(async move {
            tokio::select! {
                _ = tokio::io::copy(&mut from, &mut to) => return,
                () = async { drop(muted.wait_for(|muted| *muted).await) } => {}
            }
            std::future::pending::<()>().await;
        });
    }
    ([Pipe::joined(one), Pipe::joined(other)], mute)
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_found() {
    let (pipes, mute) = mutable_pipes();
    let [one, other] = pair_on(pipes, |_| {}).await;
    let [mut near, _far] = stream(&one, &other).await;
    // Hours without a word from anybody above are none of silence: the ends ask each other.
    sleep(Duration::from_secs(8 * 3600)).await;
    assert!(!one.status().has_ended && one.status().silent <= Duration::from_secs(61), "{:?}", one.status());
    mute.send(true).unwrap();
    let began = Instant::now();
    assert_eq!(one.ended().await.kind(), ErrorKind::PeerSilent);
    // 60 s of silence, 30 s for an answer.
    assert!(began.elapsed() <= Duration::from_secs(91), "{:?}", began.elapsed());
    assert_eq!(kind(near.read(&mut [0]).await), ErrorKind::SessionInterrupted);
    assert_eq!(one.close().await.unwrap_err().kind(), ErrorKind::PeerSilent);
}

#[tokio::test(start_paused = true)]
async fn an_idle_session_is_closed_by_the_responder() {
    let (one, other) = duplex(1 << 16);
    let [one, other] = pair_on([Pipe::joined(one), Pipe::joined(other)], |settings| {
        settings.idle = Some(Duration::from_secs(1800));
    })
    .await;
    sleep(Duration::from_secs(1700)).await;
    let [near, far] = stream(&one, &other).await;
    sleep(Duration::from_secs(36_000)).await;
    assert!(!one.status().has_ended, "it has a stream");
    drop((near, far));
    let began = Instant::now();
    assert_eq!(one.ended().await.kind(), ErrorKind::SessionIdle);
    assert_eq!(other.ended().await.kind(), ErrorKind::SessionIdle);
    assert!((1795..1805).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    other.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_session_comes_to_its_age() {
    let (one, other) = duplex(1 << 16);
    let due = Instant::now() + Duration::from_secs(3600);
    let [one, other] = pair_on([Pipe::joined(one), Pipe::joined(other)], |settings| settings.due = Some(due)).await;
    let [mut near, mut far] = stream(&one, &other).await;
    sleep(Duration::from_secs(3601)).await;
    assert_eq!(one.open(&service("echo")).await.unwrap_err().kind(), ErrorKind::SessionDraining);
    assert_eq!(other.open(&service("echo")).await.unwrap_err().kind(), ErrorKind::SessionDraining);
    assert!(one.status().is_draining);
    // Ten minutes for what is under way.
    near.write_all(b"still").await.unwrap();
    far.read_exact(&mut [0; 5]).await.unwrap();
    assert_eq!(one.ended().await.kind(), ErrorKind::SessionAged);
    assert!((4200..4202).contains(&(due.elapsed().as_secs() + 3600)), "{:?}", due.elapsed());
    assert_eq!(kind(near.read(&mut [0]).await), ErrorKind::SessionAged);
    assert_eq!(kind(far.read(&mut [0]).await), ErrorKind::SessionAged);
    one.close().await.unwrap();

    // Without streams there is nothing to wait for.
    let (one, other) = duplex(1 << 16);
    let due = Instant::now() + Duration::from_secs(3600);
    let [one, _other] = pair_on([Pipe::joined(one), Pipe::joined(other)], |settings| {
        (settings.due, settings.idle) = (Some(due), None);
    })
    .await;
    assert_eq!(one.ended().await.kind(), ErrorKind::SessionAged);
    assert!(due.elapsed() < Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn a_close_waits_for_streams_and_not_for_ever() {
    let [one, other] = pair().await;
    let [mut near, mut far] = stream(&one, &other).await;
    let closing = tokio::spawn({
        let one = one.clone();
        async move { one.close().await }
    });
    sleep(Duration::from_secs(300)).await;
    far.write_all(b"the last word").await.unwrap();
    far.shutdown().await.unwrap();
    near.shutdown().await.unwrap();
    let mut heard = String::new();
    near.read_to_string(&mut heard).await.unwrap();
    assert!(!closing.is_finished());
    far.read_to_end(&mut Vec::new()).await.unwrap();
    drop((near, far));
    closing.await.unwrap().unwrap();

    let [one, other] = pair().await;
    let [mut near, _far] = stream(&one, &other).await;
    let began = Instant::now();
    one.close().await.unwrap();
    assert!((600..603).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    assert_eq!(kind(near.read(&mut [0]).await), ErrorKind::SessionClosed);
}

/// Nobody would ever accept them.
#[tokio::test(start_paused = true)]
async fn a_close_does_not_wait_for_streams_that_nobody_has_accepted() {
    let [one, other] = pair().await;
    let mut waiting = one.open(&service("echo")).await.unwrap();
    waiting.write_all(b"hello?").await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(other.status().streams, 1);
    let began = Instant::now();
    other.close().await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(kind(waiting.read(&mut [0]).await), ErrorKind::SessionDraining);
}

#[tokio::test(start_paused = true)]
async fn an_end_that_is_not_acknowledged_is_told() {
    let (pipes, mute) = mutable_pipes();
    let [one, _other] = pair_on(pipes, |_| {}).await;
    sleep(Duration::from_secs(1)).await;
    mute.send(true).unwrap();
    let began = Instant::now();
    assert_eq!(one.close().await.unwrap_err().kind(), ErrorKind::SessionTruncated);
    assert!((20..22).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    assert_eq!(one.ended().await.kind(), ErrorKind::SessionClosed);
}
