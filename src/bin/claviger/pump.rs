//! Carries a stream's bytes to and from something local.

use claviger::error::{Error, ErrorKind, Result};
use claviger::session::{Stream, error_of};
use rustix::process::{Pid, Signal, kill_process_group};
use std::io;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy, split};
use tokio::process::{ChildStdin, Command};

/// How long what a peer still sends is read and dropped after a command has ended, so that what the command said arrives.
const LINGER: Duration = Duration::from_secs(2);

/// Gives the peer its own bytes back.
pub(crate) async fn echo(stream: Stream) -> Result<()> {
    let (mut read, mut write) = split(stream);
    copy(&mut read, &mut write).await.map_err(error_of)?;
    write.shutdown().await.map_err(error_of)
}

/// Joins the stream to this process's stdin and stdout, until both directions have ended. The end of one is not the end of the other; but
/// once the peer has said everything and is gone, stdin is not waited for.
pub(crate) async fn stdio(stream: Stream) -> Result<()> {
    join(stream, tokio::io::stdin(), tokio::io::stdout()).await
}

/// Ends a command's whole process group, unless it was taken out: what a shell has started must not take half a request for a whole one.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // It may have ended by itself.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Runs a command for the stream, which ends with the command. A stream that is cut ends the command, before the command could take what it
/// has read for everything.
pub(crate) async fn exec(stream: Stream, command: &str) -> Result<()> {
    let peer = stream.peer();
    let mut child = Command::new("sh")
        .args(["-c", command])
        .env("CLAVIGER_PEER", peer.identifier.as_str())
        .env("CLAVIGER_PEER_ROLE", peer.role.as_str())
        .env("CLAVIGER_SERVICE", stream.service().as_str())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| {
            let hint = "Check the command and the limit on processes.";
            Error::new(ErrorKind::Io, "The command of --exec could not be started.", hint).because(error)
        })?;
    let mut stdin = child.stdin.take();
    let Some(mut stdout) = child.stdout.take() else {
        return Err(Error::new(ErrorKind::Internal, "The command of --exec has no pipes.", "Please report this."));
    };
    // Dropped before the command's stdin is, whatever ends this.
    let mut group = Group(child.id().and_then(|id| Pid::from_raw(id as i32)));
    let (mut read, mut write) = split(stream);
    let (mut fed, mut answered, mut status) = (false, false, None);
    {
        let feeding = feed(&mut read, &mut stdin);
        let answering = copy(&mut stdout, &mut write);
        let ending = child.wait();
        tokio::pin!(feeding, answering, ending);
        while !answered || status.is_none() {
            tokio::select! {
                result = &mut feeding, if !fed => { result?; fed = true; }
                result = &mut answering, if !answered => { result.map_err(error_of)?; answered = true; }
                result = &mut ending, if status.is_none() => {
                    status = Some(result.map_err(|error| local("The command of --exec", "waited for", error))?);
                }
            }
        }
    }
    group.0 = None;
    write.shutdown().await.map_err(error_of)?;
    let ended = async {
        while read.read(&mut [0; 4096]).await.map_err(error_of)? > 0 {}
        Ok::<_, Error>(())
    };
    // The command decides when it is over; a peer that goes on sending is not waited for.
    if !fed {
        let _ = tokio::time::timeout(LINGER, ended).await;
    }
    match status {
        Some(status) if !status.success() => Err(Error::new(
            ErrorKind::Io,
            format!("The command of --exec ended with {status}."),
            "Its own output says why; the peer's stream was ended properly.",
        )),
        _ => Ok(()),
    }
}

/// Stream to command. The command's stdin is closed at the peer's own end and nowhere else. A command that stops reading is not an error;
/// the rest is read and dropped.
async fn feed(read: &mut (impl AsyncRead + Unpin), stdin: &mut Option<ChildStdin>) -> Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let n = read.read(&mut buffer).await.map_err(error_of)?;
        if n == 0 {
            *stdin = None;
            return Ok(());
        }
        if let Some(open) = stdin
            && (open.write_all(&buffer[..n]).await.is_err() || open.flush().await.is_err())
        {
            *stdin = None;
        }
    }
}

/// Both directions at once.
async fn join(stream: Stream, mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> Result<()> {
    let lost = stream.lost();
    let (mut read, mut write) = split(stream);
    let sending = async {
        copy_to_stream(&mut from, &mut write).await?;
        // Only what ended well is ended: a stdin that failed leaves the stream cut, so that nobody takes half for all.
        write.shutdown().await.map_err(error_of)
    };
    let receiving = receive(&mut read, &mut to);
    tokio::pin!(sending, receiving);
    tokio::select! {
        sent = &mut sending => match sent {
            // A peer that has heard enough may be gone while we still send; what it said before that counts.
            Err(error) if error.kind() == ErrorKind::Io => Err(error),
            _ => receiving.await,
        },
        received = &mut receiving => {
            received?;
            tokio::select! {
                sent = sending => sent,
                // It has heard enough. A session that ends before stdin does has not taken all of it.
                error = lost => if error.kind() == ErrorKind::StreamReset { Ok(()) } else { Err(error) },
            }
        }
    }
}

async fn copy_to_stream(from: &mut (impl AsyncRead + Unpin), write: &mut (impl AsyncWrite + Unpin)) -> Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let n = from.read(&mut buffer).await.map_err(|error| local("stdin", "read", error))?;
        if n == 0 {
            return Ok(());
        }
        write.write_all(&buffer[..n]).await.map_err(error_of)?;
        write.flush().await.map_err(error_of)?;
    }
}

async fn receive(read: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin)) -> Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let n = read.read(&mut buffer).await.map_err(error_of)?;
        if n == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..n]).await.map_err(|error| local("stdout", "written", error))?;
        to.flush().await.map_err(|error| local("stdout", "written", error))?;
    }
}

fn local(what: &str, done: &str, error: io::Error) -> Error {
    let hint = "Check what this program is connected to.";
    Error::new(ErrorKind::Io, format!("{what} could not be {done}."), hint).because(error)
}
