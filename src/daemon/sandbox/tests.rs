//! What is given up is gone: each test runs itself again in a process of its own, which can then be closed for good.

use super::*;
use crate::config::Config;
use rustix::io::Errno;
use std::fs::{File, OpenOptions, read_dir};
use std::io::{ErrorKind as Io, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::process::Command;

/// Runs `inside` in a process of its own, and its argument in the one that waits for it.
fn alone(name: &str, inside: impl FnOnce(PathBuf)) {
    const INSIDE: &str = "CLAVIGER_TEST_SANDBOX";
    if let Some(dir) = std::env::var_os(INSIDE) {
        return inside(dir.into());
    }
    let dir = tempfile::tempdir().unwrap();
    let mut again = Command::new(std::env::current_exe().unwrap());
    let again = again.args(["--exact", &format!("daemon::sandbox::tests::{name}"), "--nocapture"]);
    let output = again.env(INSIDE, dir.path()).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

fn config(text: &str) -> Config {
    Config::parse(text, Path::new("/etc/claviger/claviger.toml")).unwrap()
}

fn state(confinement: &Confinement, what: What) -> State {
    confinement.applied().iter().find(|applied| applied.what == what).unwrap().state
}

#[test]
fn what_is_given_up_is_gone() {
    alone("what_is_given_up_is_gone", |dir| {
        let (store, elsewhere) = (dir.join("store"), dir.join("elsewhere"));
        std::fs::create_dir(&store).unwrap();
        std::fs::create_dir(&elsewhere).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let text = format!(
            "[transport]\nkind = \"tcp\"\n[transport.tcp]\nlisten = \"{free}\"\n[[forward]]\nlisten = \"unix:{}\"\nto = \"a/b\"",
            dir.join("sockets/s").display()
        );
        std::fs::create_dir(dir.join("sockets")).unwrap();
        let confinement = enter(&config(&text), Place { store: store.clone(), ..Place::default() }).unwrap();
        assert_eq!(state(&confinement, What::Seccomp), State::Applied);
        assert_eq!(state(&confinement, What::NewPrivileges), State::Applied);
        let denied = |result: std::io::Result<()>| assert_eq!(result.unwrap_err().kind(), Io::PermissionDenied);

        // The store and the sockets are there.
        File::create(store.join("new")).unwrap().write_all(b"more").unwrap();
        std::fs::rename(store.join("new"), store.join("newer")).unwrap();
        std::fs::remove_file(store.join("newer")).unwrap();
        drop(UnixListener::bind(dir.join("sockets/s")).unwrap());
        std::fs::remove_file(dir.join("sockets/s")).unwrap();
        // Threads, and what they inherit.
        std::thread::spawn(move || denied(File::create(elsewhere.join("new")).map(drop))).join().unwrap();
        if state(&confinement, What::Landlock) != State::Not {
            File::open("/etc/passwd").unwrap();
            denied(OpenOptions::new().append(true).open("/etc/passwd").map(drop));
            denied(File::open("/etc/shadow").map(drop));
            denied(read_dir("/home").map(drop));
            denied(UnixListener::bind(dir.join("elsewhere/s")).map(drop));
            denied(File::create(dir.join("sockets/file")).map(drop));
        }
        if state(&confinement, What::Landlock) == State::Applied {
            TcpListener::bind(free).unwrap();
            denied(TcpListener::bind("127.0.0.1:0").map(drop));
            denied(TcpStream::connect(listener.local_addr().unwrap()).map(drop));
        }
        // Neither a process nor a program.
        assert!(Command::new("/bin/true").status().is_err());
        let missing = Some(Errno::NOSYS.raw_os_error());
        assert_eq!(rustix::mount::unmount("/proc", rustix::mount::UnmountFlags::empty()), Err(Errno::NOSYS));
        assert_eq!(rustix::process::chroot("/"), Err(Errno::NOSYS));
        assert_eq!(rustix::fs::symlink("a", store.join("b")), Err(Errno::NOSYS));
        let packet = rustix::net::socket(rustix::net::AddressFamily::PACKET, rustix::net::SocketType::RAW, None);
        assert_eq!(packet.map(drop).map_err(|error| Some(error.raw_os_error())), Err(missing));
        // What another configuration would need.
        confinement.admits(&config(&text)).unwrap();
        let more = [
            ("[[forward]]\nlisten = \"tcp:127.0.0.1:1\"\nto = \"a/b\"", "listen on TCP port 1"),
            ("[service.a]\ntarget = \"tcp:127.0.0.1:2\"", "connect to TCP port 2"),
            ("[service.a]\ncommand = [\"/bin/cat\"]", "the command of the service `a`"),
            ("[[forward]]\nlisten = \"unix:/tmp/s\"\nto = \"a/b\"", "a socket in /tmp"),
            ("[sandbox]\nread = [\"/root\"]", "to read /root"),
            ("[sandbox]\nwrite = [\"/etc\"]", "to write /etc"),
        ];
        for (more, what) in more {
            let refused = confinement.admits(&config(&format!("{text}\n{more}"))).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::RestartNeeded);
            assert!(refused.to_string().ends_with(&format!("{what}.")), "{refused}");
        }
        assert!(confinement.allows(&dir.join("sockets/t")) && !confinement.allows(&dir.join("elsewhere")));
    });
}

/// Landlock sees connect(2) of TCP; what connects in another way, or by another protocol that does the same, is not there.
#[test]
fn nothing_connects_past_landlock() {
    use rustix::net::{AddressFamily, SendAncillaryBuffer, SendFlags, SocketType, sendmsg_addr, sendto, socket};
    alone("nothing_connects_past_landlock", |dir| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let text = "[transport]\nkind = \"tcp\"";
        let confinement = enter(&config(text), Place { store: dir, ..Place::default() }).unwrap();
        assert_eq!(state(&confinement, What::Seccomp), State::Applied);
        let tcp = || socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        let fast = SendFlags::from_bits_retain(libc::MSG_FASTOPEN as u32);
        assert_eq!(sendto(tcp(), b"x", fast, &address), Err(Errno::NOSYS));
        let parts = [std::io::IoSlice::new(b"x")];
        let sent = sendmsg_addr(tcp(), &address, &parts, &mut SendAncillaryBuffer::default(), fast);
        assert_eq!(sent, Err(Errno::NOSYS));
        let other = |kind, protocol| socket(AddressFamily::INET, kind, protocol).map(drop);
        assert_eq!(other(SocketType::STREAM, Some(rustix::net::ipproto::MPTCP)), Err(Errno::NOSYS));
        assert_eq!(other(SocketType::STREAM, Some(rustix::net::ipproto::SCTP)), Err(Errno::NOSYS));
        assert_eq!(other(SocketType::SEQPACKET, None), Err(Errno::NOSYS));
        assert_eq!(other(SocketType::DGRAM, Some(rustix::net::ipproto::ICMP)), Err(Errno::NOSYS));
        for protocol in [None, Some(rustix::net::ipproto::UDP)] {
            assert_eq!(other(SocketType::DGRAM, protocol), Err(Errno::NOSYS), "nothing here uses UDP");
        }
        let more = config(&format!("{text}\n[[forward]]\nlisten = \"udp:127.0.0.1:1\"\nto = \"a/b\""));
        let refused = confinement.admits(&more).unwrap_err();
        assert!(refused.to_string().ends_with("UDP sockets."), "{refused}");
        other(SocketType::STREAM, Some(rustix::net::ipproto::TCP)).unwrap();
        // Limits of this process, and of no other.
        let limits =
            |process| rustix::process::prlimit(process, Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
        limits(None).unwrap();
        assert_eq!(limits(rustix::process::getppid()).unwrap_err(), Errno::NOSYS);
    });
}

#[test]
fn udp_is_there_where_it_is_used() {
    alone("udp_is_there_where_it_is_used", |dir| {
        let text = "[transport]\nkind = \"tcp\"\n[[forward]]\nlisten = \"udp:127.0.0.1:1\"\nto = \"a/b\"";
        let confinement = enter(&config(text), Place { store: dir, ..Place::default() }).unwrap();
        assert_eq!(state(&confinement, What::Seccomp), State::Applied);
        std::net::UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"x", "127.0.0.1:9").unwrap();
        confinement.admits(&config(text)).unwrap();
    });
}

/// A command has needs of its own.
#[test]
fn what_a_command_needs_is_kept() {
    alone("what_a_command_needs_is_kept", |dir| {
        let text = "[service.a]\ncommand = [\"/bin/true\"]";
        let confinement = enter(&config(text), Place { store: dir.clone(), ..Place::default() }).unwrap();
        for what in [What::Landlock, What::Seccomp] {
            assert_eq!(state(&confinement, what), State::Not);
        }
        assert!(Command::new("/bin/true").status().unwrap().success());
        confinement.admits(&config("[service.b]\ncommand = [\"/bin/cat\"]")).unwrap();
        let required = config(&format!("{text}\n[sandbox]\nrequire = true"));
        let error = enter(&required, Place { store: dir, ..Place::default() }).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::SandboxFailed);
        assert!(error.to_string().contains("the command of the service `a` is another program"), "{error}");
    });
}

/// What is not asked for is not done.
#[test]
fn nothing_at_all() {
    alone("nothing_at_all", |dir| {
        let text = "[sandbox]\nlandlock = false\nseccomp = false\nlock-memory = false";
        let confinement = enter(&config(text), Place { store: dir, ..Place::default() }).unwrap();
        let [applied] = confinement.applied() else { panic!("{:?}", confinement.applied()) };
        assert_eq!((applied.what, applied.state), (What::NewPrivileges, State::Applied));
        assert!(Command::new("/bin/true").status().unwrap().success());
    });
}

/// Each transport reaches for what it needs, and a program of another's is one.
#[test]
fn what_transports_need() {
    let dir = tempfile::tempdir().unwrap();
    let of = |text: &str| {
        let config = Config::parse(text, &dir.path().join("claviger.toml")).unwrap();
        Needs::of(&config, &Place { store: dir.path().join("store"), ..Place::default() })
    };
    let ports = |ports: &[u16]| ports.iter().copied().collect();
    let tor = of("[transport]\nkind = \"tor\"");
    assert_eq!((tor.bind, tor.connect), (ports(&[0]), Some(ports(&[9050, 9051]))));
    assert!(tor.read.contains(Path::new("/run")), "tor's directory is made anew when tor is");
    let torrc = "[transport]\nkind = \"tor\"\n[transport.tor]\ncontrol = \"none\"\nservice = \"torrc\"\nlisten = \"unix:s/hidden\"";
    let torrc = of(torrc);
    assert_eq!((torrc.bind, torrc.connect), (ports(&[]), Some(ports(&[9050]))));
    assert!(torrc.sockets.contains(&dir.path().join("s")));
    let arti = of("[transport.arti]\nstate = \"arti\"");
    assert_eq!((arti.bind, arti.connect), (ports(&[]), None));
    assert!(arti.write.contains(&dir.path().join("arti")) && dir.path().join("arti").is_dir());
    std::fs::write(
        dir.path().join("arti.toml"),
        "[[bridges.transports]]\nprotocols = [\"obfs4\"]\npath = \"/usr/bin/obfs4proxy\"",
    )
    .unwrap();
    let bridged = of("[transport.arti]\nconfig = \"arti.toml\"");
    assert_eq!(bridged.programs, ["the pluggable transport /usr/bin/obfs4proxy"]);
    let tcp = of(
        "[transport]\nkind = \"tcp\"\n[transport.tcp]\npeers = { a = \"127.0.0.1:5\" }\n[sandbox]\nconnect = [6]\n[service.b]\ntarget = \"tcp:127.0.0.1:7\"",
    );
    assert_eq!((tcp.bind, tcp.connect), (ports(&[4747]), Some(ports(&[5, 6, 7, 4747]))));
}
