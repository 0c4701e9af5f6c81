//! The arti and tor transports, against each other and against tor daemons that are killed, restarted, or lock us out.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use claviger::ErrorKind;
use claviger::config::{self, ControlAddress};
use claviger::identity::{ClientAuthKeys, OnionKeys};
use claviger::secret::OnionSecretKey;
use claviger::transport::{Service, ServiceState, Target, Transport, everyone};
use claviger_testkit::tornet::{Auth, TorDaemon};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

use crate::net::{
    LONG, arti, control, daemon, echo, exchange, network, opened, reachable, run, start, target, tor, until,
};

const PORT: u16 = 4747;

/// The service of `keys`, as often as it is needed.
fn service(keys: &OnionKeys) -> Service {
    Service {
        onion: OnionSecretKey::new(*keys.secret.expose()),
        address: keys.address,
        port: PORT,
        audience: everyone(),
    }
}

async fn refused(transport: &dyn Transport, keys: &OnionKeys) -> (ErrorKind, String) {
    let error = transport.listen(service(keys)).await.err().expect("refused");
    println!("{error} {}", error.hint());
    (error.kind(), error.to_string())
}

#[test]
fn arti_and_tor_reach_each_other_and_themselves() {
    let network = network();
    let (host, client) = (start(&network), start(&network));
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let hosts = [arti(&network, &dir.path().join("host")).await, tor(daemon(&host)).await];
        let clients = [arti(&network, &dir.path().join("client")).await, tor(daemon(&client)).await];
        // An address each: a key that moves from arti to a daemon in the middle of a time period counts its descriptors from elsewhere, and
        // directories keep the one with the higher count.
        for host in &hosts {
            let keys = OnionKeys::generate().unwrap();
            let target = target(keys.address, PORT);
            let begin = Instant::now();
            let listener = host.listen(service(&keys)).await.unwrap();
            reachable(&*listener).await;
            println!("{}: reachable after {:.2?}", host.name(), begin.elapsed());
            let echo = tokio::spawn(echo(listener));
            for client in &clients {
                let first = exchange(&**client, &target).await;
                let second = exchange(&**client, &target).await;
                println!("{} to {}: dialled in {first:.2?}, again in {second:.2?}", client.name(), host.name());
            }
            echo.abort();
            let _ = echo.await;
        }
    });
}

#[test]
fn a_service_comes_back_when_tor_is_killed_and_restarted() {
    let network = network();
    let (mut host, client) = (start(&network), start(&network));
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let keys = OnionKeys::generate().unwrap();
        let target = target(keys.address, PORT);
        let clients = [arti(&network, &dir.path().join("client")).await, tor(daemon(&client)).await];
        let listener = tor(daemon(&host)).await.listen(service(&keys)).await.unwrap();
        let mut status = listener.status();
        reachable(&*listener).await;
        let _echo = tokio::spawn(echo(listener));
        for client in &clients {
            exchange(&**client, &target).await;
        }

        host.kill();
        let interrupted = |state: &ServiceState| matches!(state, ServiceState::Interrupted(_));
        let begin = Instant::now();
        println!("{:?}", *status.wait_for(interrupted).await.unwrap());
        assert!(begin.elapsed() < Duration::from_secs(2));
        tokio::task::block_in_place(|| host.restart()).unwrap();
        let begin = Instant::now();
        let back = status.wait_for(|state| *state == ServiceState::Reachable);
        tokio::time::timeout(LONG, back).await.expect("back in time").unwrap();
        println!("reachable again {:.2?} after tor was", begin.elapsed());
        for client in &clients {
            println!("{} dialled again in {:.2?}", client.name(), exchange(&**client, &target).await);
        }
    });
}

#[test]
fn a_service_comes_back_when_tor_hangs() {
    let network = network();
    let host = start(&network);
    let pid = Pid::from_raw(host.pid().unwrap().try_into().unwrap()).unwrap();
    run(async {
        let keys = OnionKeys::generate().unwrap();
        let listener = tor(daemon(&host)).await.listen(service(&keys)).await.unwrap();
        reachable(&*listener).await;
        kill_process(pid, Signal::STOP).unwrap();
        let begin = Instant::now();
        println!("{:?}", until(&*listener, |state| matches!(state, ServiceState::Interrupted(_))).await);
        println!("found after {:.2?}", begin.elapsed());
        kill_process(pid, Signal::CONT).unwrap();
        let begin = Instant::now();
        reachable(&*listener).await;
        println!("reachable again {:.2?} after tor was", begin.elapsed());
    });
}

#[test]
fn arti_publishes_again_in_the_same_process_and_in_the_next() {
    let network = network();
    let client = start(&network);
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let keys = OnionKeys::generate().unwrap();
        let target = target(keys.address, PORT);
        let client = tor(daemon(&client)).await;
        for _ in 0..2 {
            let host = arti(&network, dir.path()).await;
            for _ in 0..2 {
                let listener = host.listen(service(&keys)).await.unwrap();
                assert_eq!(refused(&*host, &keys).await.0, ErrorKind::TransportUnavailable, "two listeners");
                reachable(&*listener).await;
                let echo = tokio::spawn(echo(listener));
                println!("dialled in {:.2?}", exchange(&*client, &target).await);
                echo.abort();
                let _ = echo.await;
            }
        }
        let mode = std::fs::metadata(dir.path().join("arti")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        // Nothing that arti left on disk holds the key.
        let secret = keys.secret.expose();
        for file in files(dir.path()) {
            let bytes = std::fs::read(&file).unwrap();
            assert!(!bytes.windows(32).any(|window| window == &secret[..32]), "{}", file.display());
            assert!(!file.components().any(|part| part.as_os_str() == "keystore"), "{}", file.display());
        }
    });
}

fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn arti_dials_beside_a_process_that_listens_from_the_same_directory() {
    let network = network();
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let keys = OnionKeys::generate().unwrap();
        let host = arti(&network, dir.path()).await;
        let listener = host.listen(service(&keys)).await.unwrap();
        let beside = arti(&network, dir.path()).await;
        assert_eq!(refused(&*beside, &keys).await.0, ErrorKind::TransportUnavailable);
        reachable(&*listener).await;
        let _echo = tokio::spawn(echo(listener));
        println!("dialled in {:.2?}", exchange(&*beside, &target(keys.address, PORT)).await);
    });
}

#[test]
fn a_service_for_others_is_told_from_one_that_is_not_there() {
    let network = network();
    let (host, client) = (start(&network), start(&network));
    let other = ClientAuthKeys::generate().unwrap().public.to_string();
    let other = other.strip_prefix("descriptor:x25519:").unwrap();
    let command =
        format!("ADD_ONION NEW:ED25519-V3 Flags=DiscardPK,Detach,V3Auth ClientAuthV3={other} Port={PORT},127.0.0.1:1");
    let onion = format!("{}.onion", control(&host, &command)[0].strip_prefix("250-ServiceID=").unwrap());
    let target = target(onion.parse().unwrap(), PORT);
    let dir = tempfile::tempdir().unwrap();
    run(async {
        for client in [arti(&network, dir.path()).await, tor(daemon(&client)).await] {
            let error = client.dial(&target, Instant::now() + LONG).await.err().unwrap();
            assert_eq!(error.kind(), ErrorKind::OnionAuth, "{}: {error:?}", client.name());
        }
    });
}

#[test]
fn what_is_not_there_is_unreachable() {
    let network = network();
    let (host, client) = (start(&network), start(&network));
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let clients = [arti(&network, dir.path()).await, tor(daemon(&client)).await];
        let keys = OnionKeys::generate().unwrap();
        let listener = tor(daemon(&host)).await.listen(service(&keys)).await.unwrap();
        reachable(&*listener).await;
        let _echo = tokio::spawn(echo(listener));
        for client in &clients {
            exchange(&**client, &target(keys.address, PORT)).await;
            let nobody = OnionKeys::generate().unwrap().address;
            for target in [target(nobody, PORT), target(keys.address, 80)] {
                let begin = Instant::now();
                let limit = Duration::from_secs(10);
                let error = client.dial(&target, begin + limit).await.err().unwrap();
                println!("{} after {:.2?}: {error} {}", client.name(), begin.elapsed(), error.hint());
                assert_eq!(error.kind(), ErrorKind::Unreachable, "{error:?}");
                assert!(begin.elapsed() < limit + Duration::from_secs(1));
                assert!(!error.to_string().contains(&target.onion.unwrap().label()));
            }
            let mut nowhere = target(nobody, PORT);
            (nowhere.onion, nowhere.tcp) = (None, Some("127.0.0.1:1".parse().unwrap()));
            let error = client.dial(&nowhere, Instant::now() + LONG).await.err().unwrap();
            assert_eq!(error.kind(), ErrorKind::AddressRefused);
        }
    });
}

#[test]
fn a_control_port_that_locks_us_out_says_why() {
    let network = network();
    let with = |auth| network.start_tor(&TorDaemon { socks: false, auth, ..TorDaemon::default() }).unwrap();
    let (by_cookie, open) = (with(Auth::Cookie), with(Auth::Null));
    let by_password = with(Auth::Password("open \"sesame\" \\".into()));
    let dir = tempfile::tempdir().unwrap();
    let password = |name: &str, text: &str, mode| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        Some(path)
    };
    run(async {
        let keys = OnionKeys::generate().unwrap();
        let at = |config: config::Tor| tor(config);
        let expect = async |config: config::Tor, text: &str| {
            let (kind, what) = refused(&*at(config).await, &keys).await;
            assert_eq!(kind, ErrorKind::ControlRefused);
            assert!(what.contains(text), "{what}");
        };
        let wrong = password("wrong", "open sesame", 0o600);
        expect(config::Tor { password_file: wrong, ..daemon(&by_password) }, "refused the password").await;
        let shared = password("shared", "open \"sesame\" \\", 0o644);
        expect(config::Tor { password_file: shared, ..daemon(&by_password) }, "by other users").await;
        expect(daemon(&by_password), "does not authenticate by cookie").await;
        expect(daemon(&open), "does not authenticate by cookie").await;
        let right = password("right", "open \"sesame\" \\\n", 0o600);
        expect(config::Tor { password_file: right.clone(), ..daemon(&by_cookie) }, "takes no password").await;
        let stale = password("cookie", "0123456789abcdef0123456789abcdef", 0o600);
        expect(config::Tor { cookie_file: stale.unwrap(), ..daemon(&by_cookie) }, "does not know the cookie").await;
        let absent = dir.path().join("absent");
        expect(config::Tor { cookie_file: absent, ..daemon(&by_cookie) }, "can not be read").await;

        for config in [config::Tor { password_file: right, ..daemon(&by_password) }, daemon(&by_cookie)] {
            let host = at(config).await;
            let first = host.listen(service(&keys)).await.unwrap();
            let (kind, what) = refused(&*host, &keys).await;
            assert_eq!(kind, ErrorKind::ControlRefused);
            assert!(what.contains("for another program"), "{what}");
            drop(first);
            host.listen(service(&keys)).await.unwrap();
            let other = OnionKeys::generate().unwrap();
            let mixed = Service { address: other.address, ..service(&keys) };
            assert_eq!(host.listen(mixed).await.err().unwrap().kind(), ErrorKind::IdentityInvalid);
        }
    });
}

#[test]
fn peers_have_circuits_of_their_own() {
    let network = network();
    let (host, client) = (start(&network), start(&network));
    run(async {
        let keys = OnionKeys::generate().unwrap();
        let listener = tor(daemon(&host)).await.listen(service(&keys)).await.unwrap();
        reachable(&*listener).await;
        let _echo = tokio::spawn(echo(listener));
        let transport = tor(daemon(&client)).await;
        for peer in ["wallet", "cosigner", "wallet"] {
            let target = Target { isolation: peer.into(), ..target(keys.address, PORT) };
            exchange(&*transport, &target).await;
        }
        // One rendezvous circuit for each of the two labels, each with a user name of its own, and neither with the label.
        let status = control(&client, "GETINFO circuit-status");
        let joined = status.iter().filter(|line| line.contains("PURPOSE=HS_CLIENT_REND"));
        let users: Vec<&str> =
            joined.filter_map(|line| line.split(' ').find_map(|word| word.strip_prefix("SOCKS_USERNAME="))).collect();
        assert_eq!(users.len(), 2, "{status:#?}");
        assert_ne!(users[0], users[1]);
        assert!(!status.iter().any(|line| line.contains("wallet")));
    });
}

#[test]
fn a_unix_socket_serves_as_control_port() {
    let network = network();
    let (host, client) = (start(&network), start(&network));
    let socket = host.dir().join("control.socket");
    assert_eq!(control(&host, &format!("SETCONF ControlSocket=\"{}\"", socket.display())), ["250 OK"]);
    run(async {
        let keys = OnionKeys::generate().unwrap();
        let config = config::Tor { control: ControlAddress::Unix(socket.clone()), ..daemon(&host) };
        let listener = tor(config).await.listen(service(&keys)).await.unwrap();
        reachable(&*listener).await;
        let _echo = tokio::spawn(echo(listener));
        exchange(&*tor(daemon(&client)).await, &target(keys.address, PORT)).await;
    });
}

#[test]
fn without_tor_the_error_comes_at_once() {
    run(async {
        let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let nothing = |control| config::Tor { socks: free(), control, ..config::Tor::default() };
        let keys = OnionKeys::generate().unwrap();
        for control in [ControlAddress::Tcp(free()), ControlAddress::Unix("/nonexistent/control".into())] {
            let tor = tor(nothing(control)).await;
            let begin = Instant::now();
            let (kind, what) = refused(&*tor, &keys).await;
            assert_eq!(kind, ErrorKind::TransportUnavailable);
            assert!(what.starts_with("tor's control port at "), "{what}");
            let error = tor.dial(&target(keys.address, PORT), begin + LONG).await.err().unwrap();
            assert_eq!(error.kind(), ErrorKind::TransportUnavailable);
            assert!(error.hint().contains("systemctl start tor"), "{}", error.hint());
            assert!(begin.elapsed() < Duration::from_secs(2));
        }
    });
}

#[test]
fn arti_without_a_network_says_so_by_the_deadline() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("arti.toml");
    let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
    let text = format!(
        "[tor_network.authorities]\nv3idents = [\"{0}\"]\nuploads = []\ndownloads = []\nvotes = []\n\
         [[tor_network.fallback_caches]]\nrsa_identity = \"{0}\"\ned_identity = \"{1}\"\norports = [\"{nobody}\"]\n",
        "0".repeat(40),
        "A".repeat(43),
    );
    std::fs::write(&file, text).unwrap();
    run(async {
        let config = config::Transport {
            arti: config::Arti { config: Some(file.clone()), state: None },
            ..config::Transport::default()
        };
        let offline = opened(config, dir.path()).await;
        let keys = OnionKeys::generate().unwrap();
        let listener = offline.listen(service(&keys)).await.unwrap();
        let begin = Instant::now();
        let limit = Duration::from_secs(5);
        let error = offline.dial(&target(keys.address, PORT), begin + limit).await.err().unwrap();
        println!("{error} {}", error.hint());
        assert_eq!(error.kind(), ErrorKind::TransportUnavailable);
        assert!(begin.elapsed() < limit + Duration::from_secs(1));
        until(&*listener, |state| *state == ServiceState::Starting).await;
    });
}
