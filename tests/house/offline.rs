//! The ceremony has no network code: not in its dependencies, not in its sources, not in the program that is built.

use crate::{cargo, modules, output, source};
use std::path::Path;
use std::process::Command;

/// Crates that are there for a network or an async runtime. A `*` at the end stands for anything.
const NETWORK_CRATES: &[&str] = &[
    "arti*",
    "async-*",
    "curl*",
    "futures*",
    "h2",
    "h3*",
    "hickory-*",
    "hyper*",
    "mio",
    "native-tls",
    "openssl*",
    "polling",
    "quinn*",
    "reqwest",
    "rustls*",
    "smol",
    "socket2",
    "tokio*",
    "tor-*",
    "ureq",
    "websocket*",
    "webpki*",
];

/// What only shares a name with them: certificate paths and their types, for attestations. Bytes in, verdict out.
const WITHOUT_NETWORK: &[&str] = &["rustls-pki-types", "rustls-webpki"];

/// Types of the standard library and others that are, or lead to, a socket.
const SOCKETS: &[&str] = &[
    "TcpListener",
    "TcpStream",
    "ToSocketAddrs",
    "UdpSocket",
    "UnixDatagram",
    "UnixListener",
    "UnixStream",
    "lookup_host",
];

/// What of `std::net` is plain data.
const ADDRESSES: &[&str] =
    &["IpAddr", "Ipv4Addr", "Ipv6Addr", "SocketAddr", "SocketAddrV4", "SocketAddrV6", "AddrParseError"];

/// Functions of the C library without which no program on Linux reaches a network. `sendmsg` and `recvmsg` are not among them: the standard library's
/// `process`, by which a rehearsal runs the program again, hands descriptors over a socket pair with them, and without `socket` or `accept` there is no
/// other socket to use them on.
const SYMBOLS: &[&str] = &[
    "socket",
    "connect",
    "bind",
    "listen",
    "accept",
    "accept4",
    "getaddrinfo",
    "gethostbyname",
    "gethostbyname_r",
    "res_query",
    "sendto",
    "sendmmsg",
    "recvfrom",
    "recvmmsg",
];

fn is_network_crate(name: &str) -> bool {
    !WITHOUT_NETWORK.contains(&name)
        && NETWORK_CRATES.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == *pattern,
        })
}

/// Every crate linked into the ceremony, with its features: `("rustix", "fs,std,termios")`.
fn linked() -> Vec<(String, String)> {
    let tree = cargo(&[
        "tree",
        "-p",
        "claviger-ceremony",
        "-e",
        "normal",
        "--prefix",
        "none",
        "--no-dedupe",
        "--format",
        "{p}|{f}",
    ]);
    let mut linked: Vec<_> = tree
        .lines()
        .filter_map(|line| line.split_once('|'))
        .map(|(package, features)| (package.split(' ').next().unwrap_or_default().to_owned(), features.to_owned()))
        .collect();
    linked.sort();
    linked.dedup();
    linked
}

#[test]
fn no_crate_in_the_ceremony_is_for_a_network() {
    let linked = linked();
    for expected in ["claviger", "claviger-hsm", "snow", "rusqlite"] {
        assert!(linked.iter().any(|(name, _)| name == expected), "{expected} is not in the tree: {linked:?}");
    }
    let found: Vec<_> = linked.iter().filter(|(name, _)| is_network_crate(name)).collect();
    assert!(found.is_empty(), "{found:?}");
    // rustix makes its system calls itself, so no symbol would show a socket of its.
    let mut rustix = linked.iter().filter(|(name, _)| name == "rustix").flat_map(|(_, features)| features.split(','));
    assert!(!rustix.any(|feature| feature == "net"), "rustix has its `net` feature");
    let mut library =
        linked.iter().filter(|(name, _)| name == "claviger").flat_map(|(_, features)| features.split(','));
    let network = library.find(|feature| matches!(*feature, "default" | "net" | "arti" | "cli"));
    assert_eq!(network, None, "the library is built with its network");
    assert!(
        ["tokio", "tokio-socks", "tor-proto", "arti-client", "rustls", "hyper-util"].into_iter().all(is_network_crate)
    );
}

fn sockets(text: &str) -> Vec<String> {
    let is_socket = |path: &[String]| {
        let parts: Vec<&str> = path.iter().map(String::as_str).collect();
        let net = ["std", "core"].iter().any(|root| parts.starts_with(&[root, "net"]))
            && !parts.get(2).is_some_and(|name| ADDRESSES.contains(name));
        let unix = parts.starts_with(&["std", "os", "unix", "net"]) || parts.starts_with(&["rustix", "net"]);
        net || unix || parts.iter().any(|part| SOCKETS.contains(part) || matches!(*part, "async" | "await" | "tokio"))
    };
    let named = source::paths(text, &[]).into_iter().filter(|named| is_socket(&named.path));
    named.map(|named| format!("line {}: `{}`", named.line, named.path.join("::"))).collect()
}

#[test]
fn no_source_of_the_ceremony_names_a_socket() {
    let gates = ["#[cfg(test)]", "#[cfg(feature = \"net\")]", "#[cfg(feature = \"arti\")]"];
    let mut read = Vec::new();
    for folder in ["src", "hsm/src", "ceremony/src"] {
        for (file, text) in modules::sources_without(folder, &gates) {
            // The programs of `src/bin` need the feature `cli`, and with it `net`.
            if folder == "src" && file.starts_with("bin") {
                continue;
            }
            let name = Path::new(folder).join(file);
            assert!(sockets(&text).is_empty(), "{}: {:?}", name.display(), sockets(&text));
            read.push(name);
        }
    }
    for (file, is_read) in [("src/noise/knock.rs", true), ("src/session.rs", false), ("src/session/buffers.rs", false)]
    {
        assert_eq!(read.contains(&file.into()), is_read, "{file}");
    }
    for planted in
        ["use std::net::TcpStream;", "use std::net::*;", "fn f() { std::os::unix::net::UnixStream::pair(); }"]
    {
        assert_eq!(sockets(planted).len(), 1, "{planted}");
    }
    assert!(sockets("use std::net::{Ipv4Addr, SocketAddr};").is_empty(), "an address is data");
}

/// The functions that a program takes from shared libraries, without their versions.
fn undefined(program: &Path) -> Vec<String> {
    let mut nm = Command::new("nm");
    let listed = output(
        nm.args(["--dynamic", "--undefined-only", "--format=just-symbols"]).arg(program),
        "`nm` is in the package binutils; scripts/setup installs it.",
    );
    listed.lines().map(|symbol| symbol.trim().split('@').next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn the_built_ceremony_calls_no_socket_function() {
    cargo(&["build", "-p", "claviger-ceremony", "--target-dir", target().to_str().unwrap()]);
    let undefined = undefined(&target().join("debug/claviger-ceremony"));
    assert!(undefined.iter().any(|symbol| symbol == "write"), "not a list of symbols: {undefined:?}");
    let found: Vec<_> = undefined.iter().filter(|symbol| SYMBOLS.contains(&symbol.as_str())).collect();
    assert!(found.is_empty(), "{found:?}");
}

/// The target folder that this test was built in, so that little is built twice.
fn target() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap()
}

#[test]
fn a_program_with_a_socket_would_be_found() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (source, program) = (directory.path().join("dial.rs"), directory.path().join("dial"));
    std::fs::write(&source, "fn main() { drop(std::net::TcpStream::connect(\"127.0.0.1:1\")); }").unwrap();
    let mut rustc = Command::new("rustc");
    output(rustc.arg(&source).arg("-o").arg(&program), "`rustc` comes with cargo.");
    let undefined = undefined(&program);
    assert!(["socket", "connect"].iter().all(|symbol| undefined.iter().any(|name| name == symbol)), "{undefined:?}");
}
