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
