//! Carries a stream's bytes to and from a connection.

use crate::error::Error;
use crate::session::{Reset, Stream, error_of};
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::net::{TcpStream, UnixStream};

/// Something local that has two directions.
pub(super) trait Local: AsyncRead + AsyncWrite + Unpin + Send {
    /// Has its other end see a break, and no end, when this is dropped.
    fn cut(&mut self);
}

impl Local for TcpStream {
    fn cut(&mut self) {
        // It may be closed already.
        let _ = self.set_zero_linger();
    }
}

impl Local for UnixStream {
    fn cut(&mut self) {}
}

#[derive(Debug, Default)]
pub(super) struct Traffic {
    pub(super) received: AtomicU64,
    pub(super) sent: AtomicU64,
}

#[derive(Debug)]
pub(super) enum Broken {
    Stream(Error),
    Local(Error),
    Cut(Reset),
}

pub(super) async fn splice(
    mut stream: Stream,
    mut local: impl Local,
    traffic: &Traffic,
    cut: impl Future<Output = Reset>,
) -> Result<(), Broken> {
    let carried = tokio::select! {
        carried = copy_bidirectional(&mut local, &mut stream) => carried,
        reason = cut => {
            local.cut();
            stream.reset(reason);
            return Err(Broken::Cut(reason));
        }
    };
    match carried {
        Ok((sent, received)) => {
            traffic.sent.fetch_add(sent, Ordering::Relaxed);
            traffic.received.fetch_add(received, Ordering::Relaxed);
            Ok(())
        }
        Err(error) => {
            local.cut();
            let is_typed = error.get_ref().is_some_and(|error| error.is::<Error>());
            let error = error_of(error);
            Err(if is_typed { Broken::Stream(error) } else { Broken::Local(error) })
        }
    }
}
