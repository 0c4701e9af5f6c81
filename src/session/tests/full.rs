//! Sessions whose pipe takes nothing for a while.

use super::*;
use tokio::io::{AsyncRead, AsyncWrite, split};
use tokio::sync::watch;

/// Copies while the gate is open.
async fn carry(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, mut gate: watch::Receiver<bool>) {
    let mut buffer = vec![0; 1 << 14];
    loop {
        if gate.wait_for(|open| *open).await.is_err() {
            return;
        }
        let Ok(n @ 1..) = from.read(&mut buffer).await else { return };
        if gate.wait_for(|open| *open).await.is_err() || to.write_all(&buffer[..n]).await.is_err() {
            return;
        }
    }
}

/// A pair of sessions; while the gate is shut nothing of the first's arrives.
async fn gated(change: impl Fn(&mut Settings)) -> ([Session; 2], watch::Sender<bool>) {
    let (one, near) = duplex(1 << 16);
    let (other, far) = duplex(1 << 16);
    let (gate, passes) = watch::channel(true);
    let always = watch::channel(true);
    let ((near_read, near_write), (far_read, far_write)) = (split(near), split(far));
    tokio::spawn(carry(near_read, far_write, passes));
    tokio::spawn(async move {
        carry(far_read, near_write, always.1).await;
        drop(always.0);
    });
    (pair_on([Pipe::joined(one), Pipe::joined(other)], change).await, gate)
}

/// Fills the first's pipe, until nothing more is taken.
async fn fill(near: &mut Stream) {
    let _ = timeout(Duration::from_millis(500), near.write_all(&[0; 1 << 20])).await;
}

#[tokio::test]
async fn streams_that_are_ended_at_once_do_not_run_ahead() {
    run_ahead(256, 1).await;
    run_ahead(4096, 1).await;
    run_ahead(256, 200_000).await;
}

async fn run_ahead(limit: usize, len: usize) {
    let ([one, other], gate) =
        gated(|settings| settings.limits = PeerLimits::new(limit, 1 << 30, Arc::default())).await;
    let [mut near, _far] = stream(&one, &other).await;
    gate.send_replace(false);
    fill(&mut near).await;
    let opening = {
        let one = one.clone();
        tokio::spawn(async move {
            for _ in 0..2000 {
                let mut stream = one.open(&service("note")).await?;
                let _ = timeout(Duration::from_millis(1), stream.write_all(&vec![7; len])).await;
                stream.shutdown().await.map_err(error_of)?;
            }
            Ok::<_, Error>(())
        })
    };
    tokio::time::sleep(Duration::from_secs(1)).await;
    let accepting = {
        let other = other.clone();
        tokio::spawn(async move {
            let mut count = 0;
            while count < 2000 {
                let mut stream = other.accept().await?;
                let mut heard = Vec::new();
                if stream.read_to_end(&mut heard).await.is_ok() {
                    count += 1;
                }
            }
            Ok::<_, Error>(())
        })
    };
    gate.send_replace(true);
    soon(opening).await.unwrap().unwrap();
    if limit > 2000 {
        soon(accepting).await.unwrap().unwrap();
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!one.status().has_ended && !other.status().has_ended);
}

#[tokio::test]
async fn streams_that_both_ends_give_up_are_gone() {
    let ([one, other], gate) = gated(|_| {}).await;
    let [near, far] = stream(&one, &other).await;
    let [mut more, more_there] = stream(&one, &other).await;
    gate.send_replace(false);
    fill(&mut more).await;
    drop(near);
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(far);
    tokio::time::sleep(Duration::from_millis(100)).await;
    gate.send_replace(true);
    drop((more, more_there));
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!((one.status().streams, other.status().streams), (0, 0));
    timeout(Duration::from_secs(5), one.close()).await.expect("in time").unwrap();
}

/// Else two ends that both wait for an answer of yamux's to leave would both read nothing.
#[tokio::test]
async fn an_answer_that_can_not_leave_keeps_nobody_from_reading() {
    let (mut rogue, session) = super::rules::Rogue::new().await;
    rogue.open(1).await;
    let (mut read, mut write) = split(soon(session.accept()).await.unwrap());
    rogue.frame(1, 0, 1, 8 << 20, b"").await;
    let _ = timeout(Duration::from_millis(500), write.write_all(&[0; 8 << 20])).await;
    rogue.frame(2, 1, 0, 7, b"").await;
    rogue.data(0, 1, b"read on").await;
    let mut heard = [0; 7];
    timeout(Duration::from_secs(5), read.read_exact(&mut heard)).await.expect("it reads").unwrap();
    assert_eq!(&heard, b"read on");
}
