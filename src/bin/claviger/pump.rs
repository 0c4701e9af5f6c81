//! Carries a session's bytes to and from something local.

use claviger::error::{Error, ErrorKind, Result};
use claviger::session::{Reader, Session, close, error_of};
use rustix::process::{Pid, Signal, kill_process_group};
use std::io;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy};
use tokio::process::{ChildStdin, Command};

/// How long what a peer still sends is read and dropped after a command has ended, so that what the command said arrives.
const LINGER: Duration = Duration::from_secs(2);

/// Gives the peer its own bytes back.
pub(crate) async fn echo(session: Session) -> Result<()> {
    let (mut read, mut write) = session.into_split();
    copy(&mut read, &mut write).await.map_err(error_of)?;
    close(&mut read, &mut write).await
}

/// Joins the session to this process's stdin and stdout, until both directions have ended. The end of one is not the end of the other; but
/// once the peer has said everything and is gone, stdin is not waited for.
pub(crate) async fn stdio(session: Session) -> Result<()> {
    join(session, tokio::io::stdin(), tokio::io::stdout()).await
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

/// Runs a command for the session; it ends with the command. A session that is cut ends the command, before the command could take what it
/// has read for everything.
pub(crate) async fn exec(session: Session, command: &str) -> Result<()> {
    let (name, role) = (session.peer().identifier.to_string(), session.peer().role.to_string());
    let mut child = Command::new("sh")
        .args(["-c", command])
        .env("CLAVIGER_PEER", name)
        .env("CLAVIGER_PEER_ROLE", role)
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
    let (mut read, mut write) = session.into_split();
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
    if fed || matches!(tokio::time::timeout(LINGER, ended).await, Ok(Ok(()))) {
        close(&mut read, &mut write).await?;
    }
    match status {
        Some(status) if !status.success() => Err(Error::new(
            ErrorKind::Io,
            format!("The command of --exec ended with {status}."),
            "Its own output says why; the peer's session was ended properly.",
        )),
        _ => Ok(()),
    }
}

/// Session to command. The command's stdin is closed at the peer's own end and nowhere else. A command that stops reading is not an error;
/// the rest is read and dropped.
async fn feed(read: &mut Reader, stdin: &mut Option<ChildStdin>) -> Result<()> {
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
async fn join(session: Session, mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> Result<()> {
    let (mut read, mut write) = session.into_split();
    {
        let sending = async {
            copy_to_session(&mut from, &mut write).await?;
            // Only what ended well is ended: a stdin that failed leaves the session cut, so that nobody takes half for all.
            write.shutdown().await.map_err(error_of)
        };
        tokio::pin!(sending);
        let sent = {
            let receiving = receive(&mut read, &mut to);
            tokio::pin!(receiving);
            tokio::select! {
                sent = &mut sending => {
                    if let Err(error) = sent {
                        if error.kind() == ErrorKind::Io {
                            return Err(error);
                        }
                        // A peer that has heard enough may be gone while we still send; what it said before that counts.
                        return receiving.await;
                    }
                    receiving.await?;
                    true
                }
                received = &mut receiving => { received?; false }
            }
        };
        if !sent {
            tokio::select! {
                sent = sending => sent?,
                () = read.peer_gone() => return Ok(()),
            }
        }
    }
    close(&mut read, &mut write).await
}

async fn copy_to_session(from: &mut (impl AsyncRead + Unpin), write: &mut (impl AsyncWrite + Unpin)) -> Result<()> {
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
