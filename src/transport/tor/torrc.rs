//! Services that tor publishes by itself, for those who administer it themselves: the socket that `HiddenServicePort` leads to, and the files that tor reads.
//!
//! The forms are those of tor(1), `HiddenServiceDir` and `ClientOnionAuthDir`, of rend-spec-v3, appendix G, and of tor's `crypto_write_tagged_contents_to_file`.

use crate::config::{self, Local};
use crate::error::{Error, ErrorKind, Result};
use crate::identity::{ClientAuthPublic, Identifier, OnionAddress};
use crate::secret::{ClientAuthSecret, OnionSecretKey, SecretBytes};
use crate::transport::{Listener, Pipe, ServiceState, tcp};
use data_encoding::BASE32_NOPAD;
use futures::future::BoxFuture;
use std::fmt::Write as _;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::time::sleep;

/// Pause after an accept that failed for want of file descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What is connected by a tor that was told by torrc to publish the service. Whether it does is not known here: it is taken for reachable.
pub(super) struct TorrcService {
    socket: Socket,
    state: watch::Sender<ServiceState>,
}

enum Socket {
    Tcp(TcpListener),
    /// And where, to be removed with it.
    Unix(UnixListener, PathBuf),
}

impl TorrcService {
    /// # Errors
    /// `PortInUse` when another program listens there, `AddressRefused`, `Io`.
    pub(super) async fn listen(local: &Local) -> Result<Self> {
        let socket = match local {
            Local::Tcp(address) => Socket::Tcp(tcp::bind(*address).await?),
            Local::Unix(path) => Socket::Unix(unix(path).await?, path.clone()),
            _ => return Err(nowhere()),
        };
        tracing::info!(%local, "service: tor publishes it by torrc");
        Ok(Self { socket, state: watch::Sender::new(ServiceState::Reachable) })
    }
}

impl Listener for TorrcService {
    fn accept(&mut self) -> BoxFuture<'_, Result<Pipe>> {
        Box::pin(async {
            match &self.socket {
                Socket::Tcp(listener) => Ok(Pipe::of_tor(tcp::accept(listener).await)),
                Socket::Unix(listener, _) => loop {
                    match listener.accept().await {
                        Ok((stream, _)) => return Ok(Pipe::from(stream)),
                        Err(error) => {
                            tracing::warn!("can not accept a connection for now: {error}");
                            sleep(ACCEPT_PAUSE).await;
                        }
                    }
                },
            }
        })
    }

    fn status(&self) -> watch::Receiver<ServiceState> {
        self.state.subscribe()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Self::Unix(_, path) = self {
            // What cannot be removed is taken over by the next start.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// tor runs as another user, so the socket is open to all that reach its directory: whoever connects is a stranger until the handshake.
async fn unix(path: &Path) -> Result<UnixListener> {
    let failed = |error: io::Error| {
        let what = format!("Can not listen at {}.", path.display());
        let hint = "Check that its directory is there, that you may write to it, and that tor's user may enter it.";
        Error::new(ErrorKind::Io, what, hint).because(error)
    };
    if std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket()) {
        if UnixStream::connect(path).await.is_ok() {
            return Err(Error::new(
                ErrorKind::PortInUse,
                format!("{} is in use by another program.", path.display()),
                "End the other claviger of this machine, or choose another socket for `listen` in [transport.tor].",
            ));
        }
        std::fs::remove_file(path).map_err(failed)?;
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666)).map_err(failed)?;
    Ok(listener)
}

pub(super) fn nowhere() -> Error {
    Error::new(
        ErrorKind::ConfigInvalid,
        "It is not said where tor leads its callers to.",
        "Set `listen = \"unix:PATH\"` in [transport.tor], and the same in HiddenServicePort in torrc.",
    )
}

/// What a `HiddenServiceDir` holds.
pub struct ServiceFiles {
    /// Relative path and content; all are for tor's user alone.
    pub files: Vec<(PathBuf, SecretBytes)>,
    /// Whether `authorized_clients` says who finds it.
    restricted: bool,
    port: u16,
}

/// The directory of client-authorization keys within a `HiddenServiceDir`. What else ends with `.auth` there lets somebody in, too.
pub const AUTHORIZED: &str = "authorized_clients";

impl ServiceFiles {
    /// Of a service; found by `clients`, or `None` by everyone.
    pub fn new(
        (address, onion): (&OnionAddress, &OnionSecretKey),
        port: u16,
        clients: Option<&[(String, ClientAuthPublic)]>,
    ) -> Self {
        let tagged = |tag: &str, key: &[u8]| {
            // A tag of 32 bytes: text between equals signs, then zeros.
            let mut file = SecretBytes::new(Vec::with_capacity(32 + key.len()));
            file.extend_from_slice(format!("== {tag}: type0 ==").as_bytes());
            file.resize(32, 0);
            file.extend_from_slice(key);
            file
        };
        let text = |text: String| SecretBytes::new(text.into_bytes());
        let mut files = vec![
            ("hs_ed25519_secret_key".into(), tagged("ed25519v1-secret", onion.expose())),
            ("hs_ed25519_public_key".into(), tagged("ed25519v1-public", address.public_key())),
            ("hostname".into(), text(format!("{address}\n"))),
        ];
        for (name, key) in clients.unwrap_or_default() {
            files.push((Path::new(AUTHORIZED).join(format!("{name}.auth")), text(format!("{key}\n"))));
        }
        Self { files, restricted: clients.is_some(), port }
    }

    /// Whether everyone but those of `authorized_clients` is kept away.
    pub fn is_restricted(&self) -> bool {
        self.restricted
    }

    /// The lines of torrc for the files in `dir`, with callers led to `listen`.
    pub fn torrc(&self, dir: &Path, listen: &Local, onion: &config::Onion) -> String {
        let target = match listen {
            Local::Unix(path) => format!("unix:\"{}\"", quoted(path)),
            Local::Tcp(address) => address.to_string(),
            other => other.to_string(),
        };
        let mut text = format!("HiddenServiceDir \"{}\"\nHiddenServicePort {} {target}\n", quoted(dir), self.port);
        let config::Onion {
            introduction_points,
            introduction_limit,
            proof_of_work,
            streams_per_circuit,
            vanguards,
            ..
        } = onion;
        let _ = write!(text, "HiddenServiceMaxStreams {streams_per_circuit}\nHiddenServiceMaxStreamsCloseCircuit 1\n");
        if let Some(count) = introduction_points {
            let _ = writeln!(text, "HiddenServiceNumIntroductionPoints {count}");
        }
        if let Some(limit) = introduction_limit {
            let _ = write!(
                text,
                "HiddenServiceEnableIntroDoSDefense 1\nHiddenServiceEnableIntroDoSRatePerSec {}\nHiddenServiceEnableIntroDoSBurstPerSec {}\n",
                limit.rate, limit.burst
            );
        }
        if *proof_of_work {
            text += "HiddenServicePoWDefensesEnabled 1\n";
        }
        if vanguards.is_some() {
            text += "VanguardsLiteEnabled 1\n";
        }
        text
    }
}

fn quoted(path: &Path) -> String {
    path.display().to_string().replace('\\', "\\\\").replace('"', "\\\"")
}

/// A file of a `ClientOnionAuthDir`: by it tor finds the service of one address.
pub struct ClientAuthFile {
    /// `NAME.auth_private`.
    pub name: String,
    /// One line.
    pub content: SecretBytes,
}

impl ClientAuthFile {
    /// Of a peer's service, which this machine finds by `secret`.
    pub fn new(peer: &Identifier, onion: &OnionAddress, secret: &ClientAuthSecret) -> Self {
        // Reserved whole: a buffer that grows would leave a copy of the secret behind.
        let mut text = String::with_capacity(160);
        text.push_str(&onion.label());
        text.push_str(":descriptor:x25519:");
        BASE32_NOPAD.encode_append(secret.expose(), &mut text);
        text.push('\n');
        Self { name: format!("{peer}.auth_private"), content: SecretBytes::new(text.into_bytes()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{ClientAuthKeys, OnionKeys};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[test]
    fn files_have_the_forms_that_tor_writes() {
        let (onion, auth) = (OnionKeys::generate().unwrap(), ClientAuthKeys::generate().unwrap());
        let clients = [("wallet".to_owned(), auth.public)];
        let service = ServiceFiles::new((&onion.address, &onion.secret), 4747, Some(&clients));
        let file = |name: &str| &service.files.iter().find(|(path, _)| path == Path::new(name)).unwrap().1;
        let secret = file("hs_ed25519_secret_key");
        assert_eq!((&secret[..32], secret.len()), (&b"== ed25519v1-secret: type0 ==\0\0\0"[..], 96));
        let public = file("hs_ed25519_public_key");
        assert_eq!((&public[..32], public.len()), (&b"== ed25519v1-public: type0 ==\0\0\0"[..], 64));
        assert_eq!(file("hostname").as_slice(), format!("{}\n", onion.address).as_bytes());
        assert_eq!(file("authorized_clients/wallet.auth").as_slice(), format!("{}\n", auth.public).as_bytes());
        let options = config::Onion {
            introduction_points: Some(5),
            introduction_limit: Some(config::IntroductionLimit { rate: 10, burst: 50 }),
            proof_of_work: true,
            ..config::Onion::default()
        };
        let torrc = service.torrc(Path::new("/var/lib/tor/a \"b\""), &Local::Unix("/run/c".into()), &options);
        assert_eq!(
            torrc,
            "HiddenServiceDir \"/var/lib/tor/a \\\"b\\\"\"\nHiddenServicePort 4747 unix:\"/run/c\"\nHiddenServiceMaxStreams 256\n\
             HiddenServiceMaxStreamsCloseCircuit 1\nHiddenServiceNumIntroductionPoints 5\nHiddenServiceEnableIntroDoSDefense 1\n\
             HiddenServiceEnableIntroDoSRatePerSec 10\nHiddenServiceEnableIntroDoSBurstPerSec 50\nHiddenServicePoWDefensesEnabled 1\n"
        );
        let file = ClientAuthFile::new(&"cosigner".parse().unwrap(), &onion.address, &auth.secret);
        assert_eq!(file.name, "cosigner.auth_private");
        let line = String::from_utf8(file.content.to_vec()).unwrap();
        let (label, key) = line.trim_end().split_once(":descriptor:x25519:").unwrap();
        assert_eq!(label, onion.address.label());
        assert_eq!(BASE32_NOPAD.decode(key.as_bytes()).unwrap(), auth.secret.expose());
    }

    #[tokio::test]
    async fn a_socket_is_taken_over_from_the_dead_and_not_from_the_living() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("onion.sock");
        let local = Local::Unix(path.clone());
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let mut service = TorrcService::listen(&local).await.unwrap();
        assert_eq!(TorrcService::listen(&local).await.err().unwrap().kind(), ErrorKind::PortInUse);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o666);
        // The other one has looked whether somebody is there.
        drop(service.accept().await.unwrap());
        let mut stream = UnixStream::connect(&path).await.unwrap();
        stream.write_all(b"x").await.unwrap();
        let mut accepted = service.accept().await.unwrap();
        assert_eq!(accepted.read_u8().await.unwrap(), b'x');
        drop(service);
        assert!(!path.exists());
        std::fs::write(&path, "a file of somebody's").unwrap();
        assert_eq!(TorrcService::listen(&local).await.err().unwrap().kind(), ErrorKind::Io);
        assert!(path.exists());
    }
}
