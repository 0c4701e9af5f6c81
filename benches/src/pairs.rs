//! Forwarding pairs: a program at each end that carries TCP connections to the other.

use crate::Result;
use crate::child::{Program, Worker};
use crate::link::{self, Kind};
use crate::tls::{Cipher, Identity, Signature};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

/// Who forwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwarder {
    /// Our small one, over a stream of this kind.
    Own(Kind),
    /// stunnel, TLS 1.3 with certificates at both ends and this one suite. Its own choice is AES.
    Stunnel(Cipher),
    /// spiped, with one key at both ends.
    Spiped,
    /// `ssh -L`, with sshd's and ssh's own choice of cipher.
    Ssh,
}

impl Forwarder {
    /// As it is printed.
    pub fn name(self) -> String {
        match self {
            Self::Own(Kind::Tcp) => "plain pair".into(),
            Self::Own(kind) => format!("{} pair", kind.name()),
            Self::Stunnel(_) => "stunnel".into(),
            Self::Spiped => "spiped".into(),
            Self::Ssh => "ssh -L".into(),
        }
    }
}

/// A running pair: what connects to `entry` is connected to where it leads.
pub struct Pair {
    /// Where to connect.
    pub entry: SocketAddr,
    // The end that dials goes first.
    _dialling: Running,
    _listening: Running,
}

enum Running {
    #[allow(dead_code, reason = "held, to be ended with the pair")]
    Own(Worker),
    #[allow(dead_code, reason = "held, to be ended with the pair")]
    Other(Program),
}

impl Pair {
    /// Starts both ends. `dir` is what [`link::make`] filled; the others write their own keys there.
    ///
    /// # Errors
    /// When one of them does not start.
    pub fn start(forwarder: Forwarder, dir: &Path, to: SocketAddr) -> Result<Self> {
        let (entry, middle) = (link::free_port()?, link::free_port()?);
        let path = dir.to_str().ok_or("a directory that is not text")?;
        let (at, between, to) = (entry.to_string(), middle.to_string(), to.to_string());
        let (listening, dialling) = match forwarder {
            Forwarder::Own(kind) => {
                let exit = Worker::start(&["exit", kind.argument(), path, &between, &to])?;
                (Running::Own(exit), Running::Own(Worker::start(&["entry", kind.argument(), path, &at, &between])?))
            }
            Forwarder::Stunnel(cipher) => {
                let [exit, way_in] = stunnel(dir, cipher, [&at, &between, &to])?;
                (
                    Running::Other(Program::start("stunnel4", &[&exit], middle)?),
                    Running::Other(Program::start("stunnel4", &[&way_in], entry)?),
                )
            }
            Forwarder::Spiped => {
                let key = dir.join("spiped.key");
                let mut secret = [0; 32];
                aws_lc_rs::rand::fill(&mut secret)?;
                std::fs::write(&key, secret)?;
                let key = key.to_str().ok_or("a directory that is not text")?;
                // -F: in the foreground; -D: the target may come later; -f and -g would weaken it and are not used.
                let end = |way, from: &str, to: &str, at| {
                    Program::start("spiped", &[way, "-F", "-D", "-s", from, "-t", to, "-k", key], at)
                };
                (Running::Other(end("-d", &between, &to, middle)?), Running::Other(end("-e", &at, &between, entry)?))
            }
            Forwarder::Ssh => {
                let (server, client) = ssh(dir, entry, middle, &to)?;
                let server: Vec<&str> = server.iter().map(String::as_str).collect();
                let client: Vec<&str> = client.iter().map(String::as_str).collect();
                (
                    Running::Other(Program::start("/usr/sbin/sshd", &server, middle)?),
                    Running::Other(Program::start("ssh", &client, entry)?),
                )
            }
        };
        Ok(Self { entry, _dialling: dialling, _listening: listening })
    }
}

fn write_private(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text)?;
    Ok(std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?)
}

/// Writes the two configurations, and gives their paths: the end that listens for TLS first.
fn stunnel(dir: &Path, cipher: Cipher, [at, between, to]: [&str; 3]) -> Result<[String; 2]> {
    let name = cipher.name();
    for end in ["exit", "entry"] {
        let identity = Identity::new(Signature::P256)?;
        let certificate = pem("CERTIFICATE", &identity.certificate);
        let both = pem("PRIVATE KEY", &identity.key) + &certificate;
        write_private(&dir.join(format!("stunnel-{end}-{name}.pem")), &both)?;
        std::fs::write(dir.join(format!("stunnel-{end}-{name}.crt")), certificate)?;
    }
    let dir = dir.display();
    let suite = match cipher {
        Cipher::ChaCha => "TLS_CHACHA20_POLY1305_SHA256",
        Cipher::Aes => "TLS_AES_256_GCM_SHA384",
    };
    let mut paths = [String::new(), String::new()];
    let ends = [("exit", "entry", "no", between, to), ("entry", "exit", "yes", at, between)];
    for (path, (own, other, client, accept, connect)) in paths.iter_mut().zip(ends) {
        *path = format!("{dir}/stunnel-{own}-{name}.conf");
        let text = format!(
            "foreground = yes\npid =\nsyslog = no\ndebug = 3\nsocket = l:TCP_NODELAY=1\nsocket = r:TCP_NODELAY=1\n\
             [forward]\nclient = {client}\naccept = {accept}\nconnect = {connect}\ncert = {dir}/stunnel-{own}-{name}.pem\n\
             CAfile = {dir}/stunnel-{other}-{name}.crt\nverifyPeer = yes\nsslVersion = TLSv1.3\n\
             ciphersuites = {suite}\n"
        );
        write_private(Path::new(path), &text)?;
    }
    Ok(paths)
}

/// RFC 7468.
fn pem(label: &str, der: &[u8]) -> String {
    let text = data_encoding::BASE64.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// Makes keys and configuration of sshd and ssh, and gives both commands' arguments.
fn ssh(dir: &Path, entry: SocketAddr, middle: SocketAddr, to: &str) -> Result<(Vec<String>, Vec<String>)> {
    for key in ["ssh-host", "ssh-user"] {
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(dir.join(key))
            .status()
            .map_err(|error| format!("ssh-keygen can not be started: {error}; `scripts/bench --setup` installs it"))?;
        if !made.success() {
            return Err("ssh-keygen failed".into());
        }
    }
    std::fs::copy(dir.join("ssh-user.pub"), dir.join("ssh-authorized"))?;
    let (dir, port) = (dir.display(), middle.port());
    let config = format!("{dir}/sshd.conf");
    let text = format!(
        "Port {port}\nListenAddress 127.0.0.1\nHostKey {dir}/ssh-host\nAuthorizedKeysFile {dir}/ssh-authorized\n\
         PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nAllowTcpForwarding yes\n\
         PermitRootLogin prohibit-password\n"
    );
    write_private(Path::new(&config), &text)?;
    // Debian's sshd wants its directory for privilege separation, which its service would make.
    if rustix::process::geteuid().is_root() {
        std::fs::create_dir_all("/run/sshd")?;
    }
    let user = std::env::var("USER").unwrap_or_else(|_| "root".into());
    let client = [
        "-N",
        "-F",
        "none",
        "-p",
        &port.to_string(),
        "-i",
        &format!("{dir}/ssh-user"),
        "-o",
        "IdentitiesOnly=yes",
        "-o",
        "BatchMode=yes",
        "-o",
        "ExitOnForwardFailure=yes",
        "-o",
        "StrictHostKeyChecking=no",
        "-o",
        "UserKnownHostsFile=/dev/null",
        "-L",
        &format!("{entry}:{to}"),
        &format!("{user}@127.0.0.1"),
    ]
    .map(String::from);
    Ok((["-D", "-e", "-f", &config].map(String::from).to_vec(), client.to_vec()))
}
