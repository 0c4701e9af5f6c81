//! Datagrams that become streams: a flow, and so a stream, for each address that they come from.

use super::front::{Front, To};
use super::stopping;
use crate::daemon::datagram::{Datagrams, MAX_DATAGRAM, carry};
use crate::daemon::listeners::{Datagrams as Socket, Listener};
use crate::daemon::shared::Shared;
use crate::daemon::splice::{Broken, Buffer};
use crate::session::Reset;
use rustix::net::{RecvFlags, SendFlags, SocketAddrAny, recvfrom, sendto};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::bytes::Bytes;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Datagrams of a flow that may wait for its stream, and their bytes.
const QUEUE: usize = 64;
const QUEUE_BYTES: usize = 256 * 1024;

/// After a stream could not be opened the flow's datagrams are dropped for so long, before it is tried again: each try may cost the token.
const REST: Duration = Duration::from_secs(2);

/// Milliseconds to wait before a datagram is given up that a full queue does not take.
const PAUSES: [u64; 6] = [1, 2, 4, 8, 16, 32];

/// A source's address; `None` for a unix socket without one, which can not be answered.
type Source = Option<SocketAddrAny>;

/// What the socket's task knows of a flow.
struct Flow {
    queue: mpsc::Sender<Bytes>,
    /// Bytes in the queue.
    waiting: Arc<AtomicUsize>,
    last: Arc<std::sync::Mutex<Instant>>,
    _cut: DropGuard,
}

/// A flow's local end.
struct End {
    socket: Arc<Socket>,
    source: Source,
    queue: Mutex<mpsc::Receiver<Bytes>>,
    waiting: Arc<AtomicUsize>,
    last: Arc<std::sync::Mutex<Instant>>,
}

/// Receives datagrams until it is told not to, and then lets go of their flows: a socket that is closed can not be answered by.
pub(super) async fn serve(
    shared: Arc<Shared>,
    listener: Listener,
    mut fronts: watch::Receiver<Arc<Front>>,
    listening: CancellationToken,
) {
    let (socket, _file) = listener.into_datagrams();
    let Some(socket) = socket.map(Arc::new) else { return };
    let mut front = Arc::clone(&fronts.borrow_and_update());
    let mut flows: BTreeMap<Source, Flow> = BTreeMap::new();
    let mut tasks: JoinSet<Source> = JoinSet::new();
    let mut stop = std::pin::pin!(async {
        tokio::select! {
            () = listening.cancelled() => {}
            () = stopping(&shared) => {}
        }
    });
    loop {
        let received = tokio::select! {
            received = receive(&socket) => received,
            // The entry may be a younger flow's by now: then that one's queue is open.
            Some(ended) = tasks.join_next() => {
                if let Ok(source) = ended
                    && flows.get(&source).is_some_and(|flow| flow.queue.is_closed())
                {
                    flows.remove(&source);
                }
                continue;
            }
            changed = fronts.changed() => {
                if changed.is_err() {
                    break;
                }
                // Flows have no end of their own that could be waited for: those that come now go where the configuration says.
                flows.clear();
                front = Arc::clone(&fronts.borrow_and_update());
                continue;
            }
            () = &mut stop => break,
        };
        let (datagram, source) = match received {
            Ok(received) => received,
            Err(error) => {
                front.stalls(&error);
                sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        let Some(datagram) = datagram else {
            front.drops();
            continue;
        };
        if !flows.contains_key(&source) {
            if flows.len() >= front.most() {
                let oldest = flows.iter().min_by_key(|(_, flow)| *lock(&flow.last)).map(|(source, _)| source.clone());
                oldest.and_then(|oldest| flows.remove(&oldest));
            }
            flows.insert(source.clone(), begin(&shared, &front, &socket, source.clone(), &mut tasks));
        }
        if !flows.get(&source).is_some_and(|flow| flow.take(datagram)) {
            front.drops();
        }
    }
    flows.clear();
    while tasks.join_next().await.is_some() {}
}

fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The next datagram, `None` for one that is too long, and where it came from. Cancel-safe.
async fn receive(socket: &Socket) -> io::Result<(Option<Bytes>, Source)> {
    socket
        .receive(|socket| {
            let mut buffer = Buffer::take();
            // With TRUNC the length is the datagram's own, also when the buffer has no room for it.
            let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
            let (_, len, source) = recvfrom(socket, &mut buffer[..], flags)?;
            let datagram = buffer.get(..len).filter(|datagram| datagram.len() <= MAX_DATAGRAM);
            Ok((datagram.map(Bytes::copy_from_slice), source))
        })
        .await
}

fn begin(
    shared: &Arc<Shared>,
    front: &Arc<Front>,
    socket: &Arc<Socket>,
    source: Source,
    tasks: &mut JoinSet<Source>,
) -> Flow {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let (waiting, last) = (Arc::default(), Arc::new(std::sync::Mutex::new(Instant::now())));
    let cut = CancellationToken::new();
    let end = End {
        socket: Arc::clone(socket),
        source,
        queue: Mutex::new(receiver),
        waiting: Arc::clone(&waiting),
        last: Arc::clone(&last),
    };
    tasks.spawn(one(Arc::clone(shared), Arc::clone(front), end, cut.clone()));
    Flow { queue: sender, waiting, last, _cut: cut.drop_guard() }
}

async fn one(shared: Arc<Shared>, front: Arc<Front>, end: End, cut: CancellationToken) -> Source {
    if let To::Service(forward) = &front.to {
        let (peer, service) = (&forward.peer, &forward.service);
        let waiting = front.counts.waits();
        let opened = tokio::select! {
            opened = shared.relations.open(&shared, peer, service) => Some(opened),
            () = cut.cancelled() => None,
        };
        drop(waiting);
        let failed = match opened {
            Some(Ok(stream)) => {
                let _open = front.counts.opens();
                let cut = async {
                    cut.cancelled().await;
                    Reset::Dropped
                };
                match carry(stream, &end, forward.datagram_idle, &front.counts.traffic, cut).await {
                    Ok(()) | Err(Broken::Cut(_)) => None,
                    Err(Broken::Stream(error) | Broken::Local(error)) => Some(error),
                }
            }
            Some(Err(error)) => Some(error),
            None => None,
        };
        if let Some(error) = failed {
            front.failed(Some((peer, service)), &error);
            tokio::select! {
                () = sleep(REST) => {}
                () = cut.cancelled() => {}
            }
        }
    }
    end.source
}

impl Flow {
    /// `false`: there is no room for it.
    fn take(&self, datagram: Bytes) -> bool {
        *lock(&self.last) = Instant::now();
        let len = datagram.len();
        if self.waiting.load(Ordering::Relaxed) + len > QUEUE_BYTES {
            return false;
        }
        self.waiting.fetch_add(len, Ordering::Relaxed);
        let taken = self.queue.try_send(datagram).is_ok();
        if !taken {
            self.waiting.fetch_sub(len, Ordering::Relaxed);
        }
        taken
    }
}

impl Datagrams for End {
    async fn receive(&self) -> io::Result<Option<Bytes>> {
        let datagram = self.queue.lock().await.recv().await;
        // The socket's task has let go of the flow: it is cut.
        let Some(datagram) = datagram else { return std::future::pending().await };
        self.waiting.fetch_sub(datagram.len(), Ordering::Relaxed);
        Ok(Some(datagram))
    }

    /// Without the socket's readiness, which says nothing of whether this receiver's queue is full, and all flows share.
    async fn send(&self, datagram: &[u8]) -> io::Result<()> {
        let Some(source) = &self.source else { return Err(io::ErrorKind::NotConnected.into()) };
        *lock(&self.last) = Instant::now();
        let mut pauses = PAUSES.iter();
        loop {
            match sendto(&*self.socket, datagram, SendFlags::DONTWAIT | SendFlags::NOSIGNAL, source) {
                Ok(_) => return Ok(()),
                Err(error) if error == rustix::io::Errno::AGAIN => match pauses.next() {
                    Some(pause) => sleep(Duration::from_millis(*pause)).await,
                    None => return Err(error.into()),
                },
                Err(error) => return Err(error.into()),
            }
        }
    }
}
