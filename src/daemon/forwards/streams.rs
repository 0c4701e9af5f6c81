//! Connections that become streams.

use super::carry::{Broken, Local, splice};
use super::front::{Front, Stage, To};
use crate::daemon::Phase;
use crate::daemon::listeners::{Listener, Socket};
use crate::daemon::shared::Shared;
use crate::error::Error;
use crate::identity::{Identifier, ServiceName};
use crate::session::Stream;
use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::Interest;
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
            Socket::Udp(_) | Socket::Unixgram(_) => {}
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

/// Waits until the daemon ends.
async fn stopping(shared: &Shared) {
    let mut phase = shared.phase();
    let _ = phase.wait_for(|phase| *phase == Phase::Stopping).await;
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
            Ok(connection) => drop(connections.spawn(one(Arc::clone(shared), front, connection, place))),
            // It was gone before it was accepted.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                front.can_not_accept(&error);
                sleep(PAUSE).await;
            }
        }
    }
}

async fn one(shared: Arc<Shared>, front: Arc<Front>, mut connection: impl Caller, _place: OwnedSemaphorePermit) {
    let waiting = front.counts.waits();
    let To::Service(forward) = &front.to else { return };
    let (peer, service) = (&forward.peer, &forward.service);
    match open(&shared, &connection, peer, service).await {
        Some(Ok(stream)) => carry(&shared, &front, connection, stream, waiting).await,
        Some(Err(error)) => {
            connection.cut();
            front.failed(peer, service, &error);
        }
        None => connection.cut(),
    }
}

/// A stream for a connection. `None`: nobody waits for it any more.
async fn open(
    shared: &Arc<Shared>,
    connection: &impl Caller,
    peer: &Identifier,
    service: &ServiceName,
) -> Option<Result<Stream, Error>> {
    tokio::select! {
        opened = shared.relations.open(shared, peer, service) => Some(opened),
        () = connection.given_up() => None,
        () = stopping(shared) => None,
    }
}

async fn carry(shared: &Shared, front: &Front, connection: impl Caller, stream: Stream, waiting: Stage) {
    drop(waiting);
    let _open = front.counts.opens();
    let (peer, service) = (stream.peer().identifier.clone(), stream.service().clone());
    let _ = shared;
    match splice(stream, connection, &front.counts.traffic, pending()).await {
        Ok(()) | Err(Broken::Cut(_)) => {}
        Err(Broken::Stream(error)) => front.failed(&peer, &service, &error),
        Err(Broken::Local(error)) => {
            tracing::debug!(target: "claviger::forward", listen = %front.local, %peer, %service, "a local connection broke: {error}");
        }
    }
}
