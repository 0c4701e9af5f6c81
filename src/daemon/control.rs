//! The control socket: how people and programs of this machine ask the daemon.
//!
//! A request is a line of JSON, `{"version":1,"command":"status"}`, and so is each answer. The daemon's own user and root may ask for everything; the
//! `operators` of the configuration for what only tells. Who asks is what the kernel says of the other end, not what it says itself.

mod protocol;
mod socket;

use protocol::MAX_REQUEST;
pub use protocol::{Answer, Content, Request, VERSION};
pub(super) use socket::Guard;
pub use socket::control_path;

use super::shared::Shared;
use super::status::Status;
use super::systemd::Hearts;
use crate::error::{Error, ErrorKind, Result};
use crate::transport::Limited;
use futures::StreamExt as _;
use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::codec::{FramedRead, LinesCodec, LinesCodecError};
use tokio_util::task::AbortOnDropHandle;

/// Connections of the daemon's own user and root at once; as many again of operators.
const CONNECTIONS: usize = 16;

/// How long whoever is connected may take for a request, and to take an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two looks at whether something has changed, and the longest time without a line for who watches.
const LOOK: Duration = Duration::from_millis(250);
const AT_LEAST: Duration = Duration::from_secs(5);

/// What somebody may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rights {
    Everything,
    /// What changes nothing.
    Looking,
    Nothing,
}

impl Rights {
    fn of(user: u32, operators: &[u32]) -> Self {
        match user {
            0 => Self::Everything,
            user if user == rustix::process::geteuid().as_raw() => Self::Everything,
            user if user != u32::MAX && operators.contains(&user) => Self::Looking,
            _ => Self::Nothing,
        }
    }

    /// By the configuration of now.
    fn now(shared: &Shared, user: u32) -> Self {
        Self::of(user, &shared.config().daemon.operators)
    }

    fn allow(self, request: &Request) -> bool {
        match self {
            Self::Everything => true,
            Self::Looking => request.only_looks(),
            Self::Nothing => false,
        }
    }
}

/// Opens it, and answers until the guard is dropped.
///
/// # Errors
/// [`ErrorKind::DaemonRunning`] when another daemon has it; [`ErrorKind::ConfigInvalid`] and [`ErrorKind::Io`] when it can not be made.
pub(super) fn start(shared: &Arc<Shared>) -> Result<Guard> {
    let config = shared.config();
    let path = control_path(&config, &shared.store_dir);
    let (listener, guard) = socket::bind(&path, !config.daemon.operators.is_empty())?;
    let task = tokio::spawn(serve(Arc::downgrade(shared), listener));
    Ok(guard.serving(AbortOnDropHandle::new(task)))
}

async fn serve(shared: Weak<Shared>, listener: UnixListener) {
    let [full, looking] = [(); 2].map(|()| Arc::new(Semaphore::new(CONNECTIONS)));
    let (mut connections, mut ticks) = (JoinSet::new(), Hearts::ticks());
    let told = Limited::new(1, Duration::from_secs(60));
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    if let Some(untold) = told.tell() {
                        tracing::warn!(target: "claviger::daemon", untold, "a connection to the control socket could not be accepted: {error}");
                    }
                    sleep(Duration::from_secs(1)).await;
                    continue;
                }
            },
            Some(_) = connections.join_next() => continue,
            _ = ticks.tick() => {
                let Some(shared) = shared.upgrade() else { return };
                shared.hearts.control.beat();
                continue;
            }
        };
        let Some(shared) = shared.upgrade() else { return };
        // Nobody has the number -1.
        let user = stream.peer_cred().map_or(u32::MAX, |peer| peer.uid());
        let room = match Rights::now(&shared, user) {
            Rights::Everything => &full,
            Rights::Looking => &looking,
            Rights::Nothing => {
                refuse(stream, &not_allowed());
                continue;
            }
        };
        let Ok(place) = Arc::clone(room).try_acquire_owned() else {
            refuse(stream, &too_many());
            continue;
        };
        connections.spawn(async move {
            let _place = place;
            // Whoever is gone is told nothing.
            let _ = attend(shared, stream, user).await;
        });
    }
}

/// One line for who is not listened to; it is not waited for.
fn refuse(stream: UnixStream, error: &Error) {
    // tokio's own does not know yet that it can be written to.
    if let Ok(mut stream) = stream.into_std() {
        let _ = io::Write::write(&mut stream, &Answer::from(Content::from(error)).line());
    }
}

async fn attend(shared: Arc<Shared>, stream: UnixStream, user: u32) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut lines = FramedRead::new(read, LinesCodec::new_with_max_length(MAX_REQUEST));
    while let Ok(Some(line)) = timeout(PATIENCE, lines.next()).await {
        let request = match line {
            Ok(line) => Request::parse(&line),
            Err(LinesCodecError::MaxLineLengthExceeded) => {
                return say(&mut write, Content::from(&too_long())).await;
            }
            Err(LinesCodecError::Io(error)) => return Err(error),
        };
        let request = match request {
            Ok(request) if Rights::now(&shared, user).allow(&request) => request,
            Ok(_) => {
                say(&mut write, Content::from(&not_allowed())).await?;
                continue;
            }
            Err(error) => {
                say(&mut write, Content::from(&error)).await?;
                continue;
            }
        };
        match request {
            Request::Status {} => say(&mut write, Content::Status(Box::new(Status::of(&shared)))).await?,
            Request::Watch {} => {
                tokio::select! {
                    told = watch(&shared, user, &mut write) => return told,
                    // Whatever comes, or that it has gone.
                    _ = lines.next() => return Ok(()),
                }
            }
            Request::Reload {} => {
                let outcome = shared.reload_from_source().await;
                let content =
                    outcome.map_or_else(|error| Content::from(&error), |changes| Content::Reloaded { changes });
                say(&mut write, content).await?;
            }
            Request::Stop {} => {
                say(&mut write, Content::Stopping {}).await?;
                tracing::info!(target: "claviger::daemon", "told to end through the control socket");
                shared.stop();
            }
        }
    }
    Ok(())
}

/// A line now, and one whenever something has changed, as long as who asks may.
async fn watch(shared: &Shared, user: u32, write: &mut OwnedWriteHalf) -> io::Result<()> {
    let mut said: Option<(Status, Instant)> = None;
    loop {
        if Rights::now(shared, user) == Rights::Nothing {
            return say(write, Content::from(&not_allowed())).await;
        }
        let status = Status::of(shared);
        if said.as_ref().is_none_or(|(last, at)| at.elapsed() >= AT_LEAST || !last.is_same(&status)) {
            say(write, Content::Status(Box::new(status.clone()))).await?;
            said = Some((status, Instant::now()));
        }
        sleep(LOOK).await;
    }
}

async fn say(write: &mut OwnedWriteHalf, content: Content) -> io::Result<()> {
    let line = Answer::from(content).line();
    timeout(PATIENCE, write.write_all(&line)).await.map_err(|_| io::ErrorKind::TimedOut)?
}

fn not_allowed() -> Error {
    Error::new(
        ErrorKind::DaemonRefused,
        "The daemon does not do this for this user.",
        "Ask as the daemon's user or root; who is in `operators` under [daemon] may ask for the status.",
    )
}

fn too_many() -> Error {
    Error::new(
        ErrorKind::DaemonRefused,
        format!("{CONNECTIONS} programs are connected to the control socket already."),
        "End a `claviger status --watch` that is not needed.",
    )
}

fn too_long() -> Error {
    Error::new(
        ErrorKind::DaemonRefused,
        format!("The request is longer than {MAX_REQUEST} bytes."),
        "Ask with `claviger status`, or as docs/operations.md says.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_ask_for_what() {
        let own = rustix::process::geteuid().as_raw();
        let other = if own == 4242 { 4243 } else { 4242 };
        assert_eq!(Rights::of(own, &[]), Rights::Everything);
        assert_eq!(Rights::of(0, &[]), Rights::Everything);
        assert_eq!(Rights::of(other, &[]), Rights::Nothing);
        assert_eq!(Rights::of(other, &[other]), Rights::Looking);
        for request in [Request::Status {}, Request::Watch {}] {
            assert!(Rights::Looking.allow(&request) && !Rights::Nothing.allow(&request));
        }
        for request in [Request::Reload {}, Request::Stop {}] {
            assert!(Rights::Everything.allow(&request) && !Rights::Looking.allow(&request));
        }
    }
}
