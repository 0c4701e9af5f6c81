use super::*;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(10);

fn config(text: &str) -> Config {
    Config::parse(text, std::path::Path::new("/")).unwrap()
}

fn forward(listen: &str, to: &str) -> String {
    format!("[[forward]]\nlisten = \"{listen}\"\nto = \"{to}\"\n")
}

fn free() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A daemon that has no store yet: every connection is cut.
async fn daemon(text: &str) -> (Arc<Shared>, JoinSet<()>) {
    let dir = tempfile::tempdir().unwrap();
    let shared = Shared::new("wallet".parse().unwrap(), config(text), dir.path()).unwrap();
    let mut tasks = JoinSet::new();
    start(&shared, &mut tasks).await.unwrap();
    (shared, tasks)
}

/// What comes of a connection to a front that can not open a stream.
async fn is_cut(address: SocketAddr) {
    let mut connection = TcpStream::connect(address).await.unwrap();
    let read = timeout(SOON, connection.read(&mut [0])).await.expect("it is not kept waiting");
    assert_eq!(read.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

async fn is_gone(address: SocketAddr) {
    timeout(SOON, async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("nobody listens there any more");
}

#[tokio::test]
async fn a_reload_changes_all_or_nothing() {
    let (stays, goes, comes) = (free(), free(), free());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let unix = format!("unix:{}", path.display());
    let before =
        [(format!("tcp:{stays}"), "cosigner/ssh"), (format!("tcp:{goes}"), "cosigner/web"), (unix, "tower/watch")];
    let before: String = before.iter().map(|(listen, to)| forward(listen, to)).collect();
    let (shared, _tasks) = daemon(&before).await;
    is_cut(stays).await;
    assert!(path.exists());

    // The last one can not be opened: those before it are closed again.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let bad = forward(&format!("tcp:{comes}"), "cosigner/ssh")
        + &forward(&format!("tcp:{}", taken.local_addr().unwrap()), "cosigner/ssh");
    let refused = prepare(&shared, &config(&bad)).err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::PortInUse);
    is_gone(comes).await;
    is_cut(stays).await;
    is_cut(goes).await;
    let twice = forward(&format!("tcp:{stays}"), "cosigner/ssh").repeat(2);
    assert_eq!(prepare(&shared, &config(&twice)).err().unwrap().kind(), ErrorKind::ConfigInvalid);

    let after = forward(&format!("tcp:{stays}"), "tower/watch") + &forward(&format!("tcp:{comes}"), "cosigner/web");
    let told = commit(&shared, prepare(&shared, &config(&after)).unwrap());
    assert_eq!(told.len(), 4, "{told:?}");
    is_gone(goes).await;
    is_cut(comes).await;
    is_cut(stays).await;
    let told = commit(&shared, prepare(&shared, &config(&after)).unwrap());
    assert!(told.is_empty(), "{told:?}");
    let reports = reports(&shared);
    let [first, second] = &reports[..] else { panic!("{reports:?}") };
    assert_eq!([first.peer.as_deref(), first.service.as_deref()], [Some("tower"), Some("watch")]);
    assert_eq!((second.streams, second.open, second.waiting), (256, 0, 0));
    // What was counted for another peer's service is not this one's.
    assert_eq!(first.failures["not-ready"], 1);
    assert!(first.last_failure.as_ref().unwrap().what.contains("has not started yet"));
    timeout(SOON, async {
        while path.exists() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("its socket is taken away");
    // Of the same kind, it may be another part's from now on.
    let socks = format!("[socks]\nlisten = \"tcp:{comes}\"\n");
    commit(&shared, prepare(&shared, &config(&socks)).unwrap());
    is_gone(stays).await;
    let mut asking = TcpStream::connect(comes).await.unwrap();
    asking.write_all(&[5, 1, 0]).await.unwrap();
    let mut answer = [0; 2];
    timeout(SOON, asking.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(answer, [5, 0]);
}

#[tokio::test]
async fn the_daemons_end_closes_everything() {
    let address = free();
    let (shared, mut tasks) = daemon(&forward(&format!("tcp:{address}"), "cosigner/ssh")).await;
    is_cut(address).await;
    shared.enter(Phase::Stopping);
    is_gone(address).await;
    tasks.shutdown().await;
    assert!(reports(&shared).is_empty());
}

/// Each source has a flow, the oldest makes room, and what fails is not tried again for each datagram.
#[tokio::test]
async fn flows_are_bounded() {
    let address = free();
    let text = forward(&format!("udp:{address}"), "cosigner/dns") + "streams = 4\n";
    let (shared, _tasks) = daemon(&text).await;
    let report = || reports(&shared).remove(0);
    for tried in 1..=10 {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        for _ in 0..20 {
            socket.send_to(b"question", address).await.unwrap();
        }
        timeout(SOON, async {
            while report().failures.get("not-ready") != Some(&tried) {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("one try each");
    }
    let all = reports(&shared).remove(0);
    assert_eq!((all.failures["not-ready"], all.waiting, all.open), (10, 0, 0));
}
