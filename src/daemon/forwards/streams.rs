//! Connections that become streams.

use super::front::{Front, Stage, To};
use super::stopping;
use crate::daemon::listeners::{Listener, Socket};
use crate::daemon::shared::Shared;
use crate::daemon::socks;
use crate::daemon::splice::{Broken, Local, splice};
use crate::error::Result;
use crate::identity::{Identifier, ServiceName};
use crate::session::Stream;
use std::future::pending;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncWriteExt as _, Interest};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Pause after an accept that failed: for want of file descriptors or memory, which somebody has to give back.
const PAUSE: Duration = Duration::from_millis(200);

/// A listening socket for connections.
trait Accept {
    type Connection: Caller;

    async fn accept(&self) -> io::Result<Self::Connection>;
}

/// An accepted connection.
pub(super) trait Caller: Local + Sync + 'static {
    /// Ready when its other end has given it up, which is more than to have ended what it says. Never, where that can not be told.
    fn given_up(&self) -> impl Future<Output = ()> + Send;
}

impl Accept for TcpListener {
    type Connection = TcpStream;

    async fn accept(&self) -> io::Result<TcpStream> {
        let (connection, _) = self.accept().await?;
        // What it brings is passed on at once. It may be gone again already.
        let _ = connection.set_nodelay(true);
        Ok(connection)
    }
}

impl Accept for UnixListener {
    type Connection = UnixStream;

    async fn accept(&self) -> io::Result<UnixStream> {
        Ok(self.accept().await?.0)
    }
}

impl Caller for TcpStream {
    async fn given_up(&self) {
        if self.ready(Interest::ERROR).await.is_err() {
            pending().await
        }
    }
}

impl Caller for UnixStream {
    async fn given_up(&self) {
        pending().await
    }
}

/// Accepts connections until it is told not to, and carries them until they have ended.
pub(super) async fn serve(
    shared: Arc<Shared>,
    listener: Listener,
    front: watch::Receiver<Arc<Front>>,
    listening: CancellationToken,
) {
    let mut connections = JoinSet::new();
    let accepting = async {
        match &listener.socket {
            Socket::Tcp(socket) => accept(&shared, socket, front, &mut connections).await,
            Socket::Unix(socket) => accept(&shared, socket, front, &mut connections).await,
            Socket::Datagrams(_) => {}
        }
    };
    tokio::select! {
        () = accepting => {}
        () = listening.cancelled() => {}
        () = stopping(&shared) => {}
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn accept<L: Accept>(
    shared: &Arc<Shared>,
    socket: &L,
    mut fronts: watch::Receiver<Arc<Front>>,
    connections: &mut JoinSet<()>,
) {
    loop {
        let front = Arc::clone(&fronts.borrow_and_update());
        let next = async {
            // A place first: without one, whoever comes waits in the socket's queue.
            let place = Arc::clone(&front.places).acquire_owned().await.ok()?;
            Some((place, socket.accept().await))
        };
        let (place, accepted) = tokio::select! {
            next = next => match next {
                Some(next) => next,
                None => return,
            },
            changed = fronts.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok(connection) => {
                let carried = one(Arc::clone(shared), front, connection, place);
                connections.spawn(shared.carriers.track_future(carried));
            }
            // It was gone before it was accepted.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                front.stalls(&error);
                sleep(PAUSE).await;
            }
        }
    }
}

async fn one(shared: Arc<Shared>, front: Arc<Front>, mut connection: impl Caller, _place: OwnedSemaphorePermit) {
    let waiting = front.counts.waits();
    let To::Service(forward) = &front.to else {
        return by_socks(&shared, &front, connection, waiting).await;
    };
    let (peer, service) = (&forward.peer, &forward.service);
    connection.guard();
    match open(&shared, &connection, peer, service).await {
        Some(Ok(stream)) => carry(&front, connection, stream, waiting).await,
        Some(Err(error)) => {
            connection.cut();
            front.failed(Some((peer, service)), &error);
        }
        None => connection.cut(),
    }
}

/// A connection that says where it leads.
async fn by_socks(shared: &Arc<Shared>, front: &Front, mut connection: impl Caller, waiting: Stage) {
    let asked = tokio::select! {
        asked = socks::asked(&mut connection) => asked,
        () = stopping(shared) => return,
    };
    let asked = match asked {
        Ok(asked) => asked,
        Err(error) => return front.failed(None, &error),
    };
    let (peer, service) = match &asked.destination {
        Ok(destination) => destination,
        Err(refusal) => {
            let error = refusal.error();
            front.failed(None, &error);
            return asked.refuse(connection, &error).await;
        }
    };
    let opened = async {
        let mut stream = shared.relations.open(shared, peer, service).await?;
        let first = socks::verdict(&mut stream).await?;
        Ok((stream, first))
    };
    let opened = tokio::select! {
        opened = opened => opened,
        () = connection.given_up() => return,
        () = stopping(shared) => return connection.cut(),
    };
    let (stream, first) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            front.failed(Some((peer, service)), &error);
            return asked.refuse(connection, &error).await;
        }
    };
    if asked.accept(&mut connection).await.is_ok() && connection.write_all(&first).await.is_ok() {
        front.counts.traffic.received.fetch_add(first.len() as u64, Ordering::Relaxed);
        carry(front, connection, stream, waiting).await;
    }
}

/// A stream for a connection. `None`: nobody waits for it any more.
async fn open(
    shared: &Arc<Shared>,
    connection: &impl Caller,
    peer: &Identifier,
    service: &ServiceName,
) -> Option<Result<Stream>> {
    tokio::select! {
        opened = shared.relations.open(shared, peer, service) => Some(opened),
        () = connection.given_up() => None,
        () = stopping(shared) => None,
    }
}

/// Joins the two until they have ended.
async fn carry(front: &Front, connection: impl Caller, stream: Stream, waiting: Stage) {
    drop(waiting);
    let _open = front.counts.opens();
    let (peer, service) = (stream.peer().identifier.clone(), stream.service().clone());
    match splice(stream, connection, &front.counts.traffic, pending()).await {
        Ok(()) | Err(Broken::Cut(_)) => {}
        Err(Broken::Stream(error)) => front.failed(Some((&peer, &service)), &error),
        Err(Broken::Local(error)) => {
            tracing::debug!(target: "claviger::forward", listen = %front.local, %peer, %service, "a local connection broke: {error}");
        }
    }
}
