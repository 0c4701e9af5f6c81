//! Carries a session's bytes to and from something local.

use claviger::error::{Error, ErrorKind, Result};
use claviger::session::{Reader, Session, error_of};
use std::io;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy};
use tokio::process::Command;

/// How long what a peer still sends is read and dropped after a command has ended: a pipe that is closed with unread bytes in it may lose
/// the last bytes that went the other way.
const LINGER: Duration = Duration::from_secs(2);

/// Gives the peer its own bytes back.
pub(crate) async fn echo(session: Session) -> Result<()> {
    let (mut read, mut write) = session.into_split();
    copy(&mut read, &mut write).await.map_err(error_of)?;
    write.shutdown().await.map_err(error_of)
}

/// Joins the session to this process's stdin and stdout, until both directions have ended. The end of one is not the end of the other; but
/// once the peer has said everything and is gone, stdin is not waited for.
pub(crate) async fn stdio(session: Session) -> Result<()> {
    join(session, tokio::io::stdin(), tokio::io::stdout()).await
}

/// Runs a command for the session; it ends with the command.
pub(crate) async fn exec(session: Session, command: &str) -> Result<()> {
    let (name, role) = (session.peer().identifier.to_string(), session.peer().role.to_string());
    let mut child = Command::new("sh")
        .args(["-c", command])
        .env("CLAVIGER_PEER", name)
        .env("CLAVIGER_PEER_ROLE", role)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| {
            Error::new(
                ErrorKind::Io,
                "The command of --exec could not be started.",
                "Check the command and the limit on processes.",
            )
            .because(error)
        })?;
    let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(Error::new(ErrorKind::Internal, "The command of --exec has no pipes.", "Please report this."));
    };
    let (mut read, mut write) = session.into_split();
    let feeding = feed(&mut read, stdin);
    let answering = async {
        let mut stdout = stdout;
        copy(&mut stdout, &mut write).await.map_err(error_of)?;
        write.shutdown().await.map_err(error_of)
    };
    // The command decides when it is over; what it has not read by then is not wanted.
    tokio::pin!(feeding);
    tokio::pin!(answering);
    let mut fed = false;
    loop {
        tokio::select! {
            result = &mut feeding, if !fed => { result?; fed = true; }
            result = &mut answering => break result?,
        }
    }
    let status = child.wait().await.map_err(|error| {
        Error::new(ErrorKind::Io, "The command of --exec could not be waited for.", "Please report this.")
            .because(error)
    })?;
    if !fed {
        // Dropping a pipe with unread bytes in it could cut what we have just sent.
        let _ = tokio::time::timeout(LINGER, drain(feeding)).await;
    }
    if status.success() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Io,
        format!("The command of --exec ended with {status}."),
        "Its own output says why; the peer's session was ended properly.",
    ))
}

async fn drain(feeding: impl Future<Output = Result<()>>) {
    let _ = feeding.await;
}

/// Session to command. A command that stops reading is not an error; the rest is read and dropped.
async fn feed(read: &mut Reader, mut stdin: impl AsyncWrite + Unpin) -> Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    let mut open = true;
    loop {
        let n = read.read(&mut buffer).await.map_err(error_of)?;
        if n == 0 {
            return Ok(());
        }
        if open {
            open = stdin.write_all(&buffer[..n]).await.is_ok() && stdin.flush().await.is_ok();
        }
    }
}

/// Both directions at once.
async fn join(session: Session, mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> Result<()> {
    let (mut read, mut write) = session.into_split();
    let sending = async {
        let copied = copy_to_session(&mut from, &mut write).await;
        write.shutdown().await.map_err(error_of)?;
        copied
    };
    let receiving = receive(&mut read, &mut to);
    tokio::pin!(sending);
    {
        tokio::pin!(receiving);
        tokio::select! {
            // A peer that has heard enough may be gone while we still send; what it said before that counts.
            sent = &mut sending => return receiving.await.map_err(|error| sent.err().unwrap_or(error)),
            result = &mut receiving => result?,
        }
    }
    tokio::select! {
        result = sending => result,
        () = read.peer_gone() => Ok(()),
    }
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
    Error::new(
        ErrorKind::Io,
        format!("{what} could not be {done}: {error}."),
        "Check what this program is connected to.",
    )
}
