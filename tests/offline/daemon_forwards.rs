//! Local sockets of the daemon that lead to peers' services, in whole processes over plain TCP.

use crate::cli::{Listener, PROGRAM, run, text};
use crate::daemon_services::{SOON, start};
use crate::support::{Machine, pin_file};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A wallet whose daemon is tested, and a cosigner.
struct Two {
    wallet: Machine,
    cosigner: Machine,
}

impl Two {
    fn new() -> Self {
        let (mut wallet, mut cosigner) = (Machine::software("wallet"), Machine::software("cosigner"));
        wallet.introduce(&mut cosigner);
        Self { wallet, cosigner }
    }

    /// The cosigner's daemon.
    fn serve(&mut self, services: &str) -> Listener {
        let more = format!("{}\n{services}", pin_file(&self.cosigner));
        start(&mut self.cosigner, &more)
    }

    /// The wallet's configuration; its store.
    fn configure(&mut self, forwards: &str) -> String {
        let more = format!("{}\n{forwards}", pin_file(&self.wallet));
        text(&self.wallet.configure(&more)).to_owned()
    }

    /// The wallet's daemon, once it listens.
    fn forward(&mut self, forwards: &str) -> Listener {
        let daemon = Listener::start(&["--store", &self.configure(forwards), "run"]);
        daemon.says("listens and leads to");
        daemon
    }
}

fn forward(listen: &str, to: &str) -> String {
    format!("[[forward]]\nlisten = \"{listen}\"\nto = \"cosigner/{to}\"\n")
}

fn service(name: &str, target: &str) -> String {
    format!("[service.{name}]\ntarget = \"{target}\"\nallow = [\"wallet\"]\n")
}

/// A port that nobody has at the moment.
fn free() -> u16 {
    crate::support::free_port()
}

/// A backend: each connection is given to `serve`, in a thread of its own.
fn backend(serve: impl Fn(TcpStream) + Clone + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let (serve, connection) = (serve.clone(), connection.unwrap());
            std::thread::spawn(move || serve(connection));
        }
    });
    format!("tcp:{address}")
}

/// Gives back what it is told, and its end.
fn echo() -> String {
    backend(|connection| {
        // A caller that was cut is none of its business.
        let _ = std::io::copy(&mut &connection, &mut &connection);
    })
}

fn tcp(port: u16) -> TcpStream {
    // The daemon says that it listens once for all of its sockets.
    let began = Instant::now();
    let connection = loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(connection) => break connection,
            Err(_) => assert!(began.elapsed() < SOON, "nobody listens on {port}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    connection.set_read_timeout(Some(SOON)).unwrap();
    connection
}

/// Says something, and then that this was all; the echo has both.
fn echoes(connection: &TcpStream, said: &[u8]) {
    let heard = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut writing = connection;
            writing.write_all(said).unwrap();
            connection.shutdown(Shutdown::Write).unwrap();
        });
        let mut heard = Vec::new();
        let mut reading = connection;
        reading.read_to_end(&mut heard).unwrap();
        heard
    });
    assert!(heard == said, "{} of {} bytes came back", heard.len(), said.len());
}

/// It was reset, and did not end. What came before.
fn is_cut(mut connection: TcpStream) -> Vec<u8> {
    let mut heard = Vec::new();
    let cut = connection.read_to_end(&mut heard).expect_err("it is cut");
    assert_eq!(cut.kind(), ErrorKind::ConnectionReset);
    heard
}

#[test]
fn tcp_and_unix_lead_to_a_peers_service() {
    let mut two = Two::new();
    let (port, path) = (free(), two.wallet.dir.path().join("socket"));
    // What a daemon that was killed has left.
    drop(UnixListener::bind(&path).unwrap());
    let forwards =
        forward(&format!("tcp:127.0.0.1:{port}"), "echo") + &forward(&format!("unix:{}", text(&path)), "early");
    let daemon = two.forward(&forwards);
    // The peer is away at first: whoever comes waits.
    let mut early = tcp(port);
    early.write_all(b"early").unwrap();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);

    // One that speaks first, and is done first.
    let spoken = backend(|mut connection| {
        connection.write_all(b"hello").unwrap();
        connection.shutdown(Shutdown::Write).unwrap();
        let mut heard = Vec::new();
        connection.read_to_end(&mut heard).unwrap();
        assert_eq!(heard, b"and goodbye");
    });
    let served = two.serve(&(service("echo", &echo()) + &service("early", &spoken)));
    early.shutdown(Shutdown::Write).unwrap();
    let mut heard = Vec::new();
    early.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, b"early");

    let long: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
    echoes(&tcp(port), &long);
    let mut connection = UnixStream::connect(&path).unwrap();
    connection.set_read_timeout(Some(SOON)).unwrap();
    let mut heard = Vec::new();
    connection.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, b"hello");
    connection.write_all(b"and goodbye").unwrap();
    drop(connection);

    assert_eq!(daemon.stop(), Some(0));
    assert!(!path.exists(), "its socket is taken away");
    drop(served);
}

/// Whoever is refused, or loses the other end, is not told that this was all.
#[test]
fn what_breaks_is_cut() {
    let mut two = Two::new();
    let ports: [u16; 3] = std::array::from_fn(|_| free());
    let halves = backend(|mut connection| {
        connection.write_all(b"half of it").unwrap();
        let _ = connection.read(&mut [0]);
    });
    let mut served = Some(two.serve(&(service("half", &halves) + "[service.other]\ntarget = \"tcp:127.0.0.1:1\"\n")));
    let to = ["half", "other", "nothing"];
    let forwards: String =
        ports.iter().zip(to).map(|(port, to)| forward(&format!("tcp:127.0.0.1:{port}"), to)).collect();
    let daemon = two.forward(&forwards);

    for port in [ports[1], ports[2]] {
        assert_eq!(is_cut(tcp(port)), b"");
        let told = daemon.says("a connection was cut");
        assert!(told.contains("service-refused") && told.contains("does not serve that to this machine"), "{told}");
    }
    // However many are, a line says so five times a minute, and then how many there were.
    for _ in 0..50 {
        is_cut(tcp(ports[1]));
    }
    let mut reading = tcp(ports[0]);
    let mut half = [0; 10];
    reading.read_exact(&mut half).unwrap();
    drop(served.take());
    assert_eq!(is_cut(reading), b"");
    let told = daemon.says("session-interrupted");
    let page =
        String::from_utf8(run(&["--store", text(&two.wallet.dir.path().join("store")), "status"], b"").stdout).unwrap();
    let page = page.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(page.contains("; 51 cut") && page.contains("does not serve that to this machine"), "{page}");
    let lines: Vec<String> = daemon.so_far().collect();
    assert!(lines.iter().filter(|line| line.contains("service-refused")).count() < 5, "{told}\n{lines:?}");
}

/// As many streams as there may be; who comes then is served as soon as one has ended.
#[test]
fn connections_wait_for_a_place() {
    let mut two = Two::new();
    let port = free();
    let served = two.serve(&service("echo", &echo()));
    let daemon = two.forward(&(forward(&format!("tcp:127.0.0.1:{port}"), "echo") + "streams = 2\n"));
    let mut both = [tcp(port), tcp(port)];
    for connection in &mut both {
        connection.write_all(b"x").unwrap();
        connection.read_exact(&mut [0]).unwrap();
    }
    let mut third = tcp(port);
    third.write_all(b"third").unwrap();
    third.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    assert_eq!(third.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    third.set_read_timeout(Some(SOON)).unwrap();
    let [first, _second] = both;
    drop(first);
    let mut heard = [0; 5];
    third.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"third");
    drop((daemon, served));
}

/// A place is not kept for somebody who has given up.
#[test]
fn who_gives_up_is_not_waited_for() {
    let mut two = Two::new();
    let port = free();
    // The cosigner's port is kept for it by a socket from which nobody accepts.
    let store = two.configure(&forward(&format!("tcp:127.0.0.1:{port}"), "echo"));
    let daemon = Listener::start(&["--store", &store, "run"]);
    daemon.says("listens and leads to");
    let waiting = |wanted: u64| {
        let began = Instant::now();
        loop {
            let output = run(&["--store", &store, "status", "--json"], b"");
            let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            if status["forwards"][0]["waiting"] == wanted {
                return status;
            }
            assert!(began.elapsed() < SOON, "{status}");
        }
    };
    let connection = tcp(port);
    waiting(1);
    rustix::net::sockopt::set_socket_linger(&connection, Some(Duration::ZERO)).unwrap();
    drop(connection);
    let status = waiting(0);
    assert_eq!(status["forwards"][0]["failures"], serde_json::json!({}));
}

#[test]
fn a_thousand_connections() {
    let mut two = Two::new();
    let port = free();
    let served = two.serve(&service("echo", &echo()));
    // Fewer than the service lets one peer have: the others wait here, and are not cut there.
    let daemon = two.forward(&(forward(&format!("tcp:127.0.0.1:{port}"), "echo") + "streams = 32\n"));
    let began = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..100_u32 {
            scope.spawn(move || {
                for turn in 0..10_u32 {
                    let said: Vec<u8> = (0..5000 + thread * 7).map(|at| (at + turn) as u8).collect();
                    echoes(&tcp(port), &said);
                }
            });
        }
    });
    println!("1000 connections, 100 at a time: {:?}", began.elapsed());
    assert_eq!(daemon.stop(), Some(0));
    drop(served);
}

/// Forwards come, go and lead elsewhere while streams go on; a configuration of which one can not be opened changes nothing.
#[test]
fn reload() {
    let mut two = Two::new();
    let named = |name: &'static str| {
        backend(move |mut connection| {
            connection.write_all(name.as_bytes()).unwrap();
            let _ = connection.read(&mut [0]);
        })
    };
    let served = two.serve(&(service("one", &named("one")) + &service("two", &named("two"))));
    let ports: [u16; 3] = std::array::from_fn(|_| free());
    let listen = |port: u16| format!("tcp:127.0.0.1:{port}");
    // Landlock gives up the ports that the first configuration has not.
    let file = |forwards: String| forwards + "[sandbox]\nlandlock = false\n";
    let daemon = two.forward(&file(forward(&listen(ports[0]), "one") + &forward(&listen(ports[1]), "one")));
    let says = |connection: &mut TcpStream, name: &str| {
        let mut heard = vec![0; name.len()];
        connection.read_exact(&mut heard).unwrap();
        assert_eq!(heard, name.as_bytes());
    };
    let mut kept: Vec<TcpStream> = ports[..2].iter().map(|port| tcp(*port)).collect();
    kept.iter_mut().for_each(|connection| says(connection, "one"));

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let bad = forward(&listen(ports[2]), "two") + &forward(&listen(taken.local_addr().unwrap().port()), "two");
    let store = two.configure(&file(bad));
    let output = run(&["--store", &store, "reload"], b"");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && told.contains("is in use by another program"), "{told}");
    assert!(TcpStream::connect(("127.0.0.1", ports[2])).is_err(), "it was closed again");
    says(&mut tcp(ports[1]), "one");

    two.configure(&file(forward(&listen(ports[0]), "two") + &forward(&listen(ports[2]), "one")));
    let output = run(&["--store", &store, "reload"], b"");
    let told = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}");
    for line in
        [format!("{} listens no more.", listen(ports[1])), format!("{} leads to cosigner/two.", listen(ports[0]))]
    {
        assert!(told.contains(&line), "{told}");
    }
    says(&mut tcp(ports[0]), "two");
    says(&mut tcp(ports[2]), "one");
    let began = Instant::now();
    while TcpStream::connect(("127.0.0.1", ports[1])).is_ok() {
        assert!(began.elapsed() < SOON, "it still listens");
    }
    // Those that were there before are, and end when they end.
    for mut connection in kept {
        connection.write_all(b"x").unwrap();
        let mut rest = Vec::new();
        connection.read_to_end(&mut rest).unwrap();
        assert!(rest.is_empty());
    }
    let output = run(&["--store", &store, "status", "--json"], b"");
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let forwards = status["forwards"].as_array().unwrap();
    assert_eq!(forwards.len(), 2, "{status}");
    assert_eq!([&forwards[0]["service"], &forwards[0]["opened"]], [&serde_json::json!("two"), &serde_json::json!(1)]);
    drop((daemon, served));
}

/// Out of file descriptors it waits, says so, and goes on when there are some again.
#[test]
fn no_file_descriptors_left() {
    let mut two = Two::new();
    let port = free();
    let served = two.serve(&service("echo", &echo()));
    let store = two.configure(&forward(&format!("tcp:127.0.0.1:{port}"), "echo"));
    let script = format!("ulimit -n 100; exec {PROGRAM} --store {store} run");
    let daemon = Listener::of(Command::new("sh").args(["-c", &script]));
    echoes(&tcp(port), b"there are enough");
    let many: Vec<TcpStream> = (0..150).map(|_| tcp(port)).collect();
    let told = daemon.says("nothing can be accepted here for now");
    assert!(told.contains("LimitNOFILE"), "{told}");
    drop(many);
    echoes(&tcp(port), b"there are enough again");
    drop((daemon, served));
}

/// Datagrams from several sources at once find back to theirs; a flow that was idle begins anew.
#[test]
fn datagrams() {
    let mut two = Two::new();
    let answering = UdpSocket::bind("127.0.0.1:0").unwrap();
    let target = format!("udp:{}", answering.local_addr().unwrap());
    std::thread::spawn(move || {
        let mut buffer = [0; 65_536];
        while let Ok((len, from)) = answering.recv_from(&mut buffer) {
            answering.send_to(&buffer[..len], from).unwrap();
        }
    });
    let served = two.serve(&service("echo", &target));
    let (port, path) = (free(), two.wallet.dir.path().join("socket"));
    let forwards = forward(&format!("udp:127.0.0.1:{port}"), "echo")
        + "datagram-idle = 1\n"
        + &forward(&format!("unixgram:{}", text(&path)), "echo");
    let daemon = two.forward(&forwards);
    daemon.says("unixgram:");

    let sources: Vec<UdpSocket> = (0..20).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    for _ in 0..2 {
        for (at, source) in sources.iter().enumerate() {
            source.connect(("127.0.0.1", port)).unwrap();
            source.set_read_timeout(Some(SOON)).unwrap();
            source.send(format!("from {at}").as_bytes()).unwrap();
        }
        for (at, source) in sources.iter().enumerate() {
            let mut buffer = [0; 100];
            let len = source.recv(&mut buffer).unwrap();
            assert_eq!(buffer[..len], *format!("from {at}").as_bytes());
        }
        std::thread::sleep(Duration::from_millis(1500));
    }
    // The longest, and one that is empty.
    for len in [65_507, 0] {
        sources[0].send(&vec![7; len]).unwrap();
        assert_eq!(sources[0].recv(&mut [0; 65_536]).unwrap(), len);
    }

    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let ours = two.wallet.dir.path().join("ours");
    let source = UnixDatagram::bind(&ours).unwrap();
    source.set_read_timeout(Some(SOON)).unwrap();
    source.send_to(b"by a file's name", &path).unwrap();
    let mut buffer = [0; 100];
    let len = source.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..len], b"by a file's name");
    assert_eq!(daemon.stop(), Some(0));
    assert!(!path.exists(), "its socket is taken away");
    drop(served);
}

/// The service manager's sockets, by name; the daemon is started by the first that comes.
#[test]
fn sockets_of_the_service_manager() {
    let mut two = Two::new();
    let served = two.serve(&service("echo", &echo()));
    let store = two.configure(&(forward("systemd:first", "echo") + &forward("systemd:second", "echo")));
    let (first, second) = (free(), two.wallet.dir.path().join("second"));
    let mut manager = Command::new("systemd-socket-activate")
        .args(["-l", &format!("127.0.0.1:{first}"), "-l", text(&second), "--fdname=first:second"])
        .args([PROGRAM, "--store", &store, "run"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("scripts/setup installs systemd");
    echoes(&tcp(first), b"by an address");
    let mut connection = connected(&second);
    connection.write_all(b"by a path").unwrap();
    connection.shutdown(Shutdown::Write).unwrap();
    let mut heard = Vec::new();
    connection.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, b"by a path");
    manager.kill().unwrap();
    manager.wait().unwrap();
    assert!(second.exists(), "it is the service manager's");

    // ListenStream=PORT is every address of the machine.
    let mut manager = Command::new("systemd-socket-activate")
        .args(["-l", &format!("0.0.0.0:{first}"), "-l", text(&second), "--fdname=first:second"])
        .args([PROGRAM, "--store", &store, "run"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(tcp(first));
    let (sender, ended) = std::sync::mpsc::channel();
    let stderr = manager.stderr.take().unwrap();
    std::thread::spawn(move || sender.send(std::io::read_to_string(stderr)));
    let told = ended.recv_timeout(Duration::from_secs(20));
    manager.kill().unwrap();
    assert_eq!(
        manager.wait().unwrap().code(),
        Some(claviger::ExitCode::from(claviger::ErrorKind::AddressRefused).code().into()),
        "{told:?}"
    );
    let told = told.expect("it ends").unwrap();
    assert!(told.contains("which is not on loopback") && told.contains("unsafe-listen = true"), "{told}");

    // None of that name.
    let output = run(&["--store", &store, "run"], b"");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("The service manager gave no socket named `first`."), "{told}");
    assert_eq!(output.status.code(), Some(3));
    drop(served);
}

fn connected(path: &Path) -> UnixStream {
    let connection = UnixStream::connect(path).unwrap();
    connection.set_read_timeout(Some(SOON)).unwrap();
    connection
}

/// Debian's curl by names, and everything that is no service of a peer's.
#[test]
fn socks() {
    let mut two = Two::new();
    let page = backend(|mut connection| {
        let mut request = [0; 1000];
        let len = connection.read(&mut request).unwrap();
        assert!(request[..len].starts_with(b"GET /page HTTP/1.1"));
        connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello").unwrap();
    });
    let stranger = Machine::software("tower");
    two.wallet.meet(&stranger);
    let served = two.serve(&(service("web", &page) + "[service.other]\ntarget = \"tcp:127.0.0.1:1\"\n"));
    let port = free();
    let daemon = two.forward(&format!("[socks]\nlisten = \"tcp:127.0.0.1:{port}\"\n"));
    let curl = |proxy: &str, url: &str| {
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--max-time", "20", "--proxy", &format!("{proxy}127.0.0.1:{port}"), url])
            .env_remove("no_proxy")
            .env_remove("NO_PROXY")
            .output()
            .expect("scripts/setup installs curl");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code().unwrap(), String::from_utf8_lossy(&output.stdout).into_owned(), told)
    };
    for proxy in ["socks5h://", "socks5h://somebody:secret@"] {
        for url in ["http://web.cosigner.claviger/page", "http://WEB.cosigner.Claviger:4711/page"] {
            let (code, page, told) = curl(proxy, url);
            assert_eq!((code, page.as_str()), (0, "hello"), "{told}");
        }
    }
    // 97: "Proxy handshake error"; the text has the reply's number.
    for (url, reply) in [
        ("http://example.com/", 2),
        ("http://192.0.2.1/", 2),
        ("http://[::1]/", 2),
        ("http://cosigner.claviger/", 2),
        ("http://web.nobody.claviger/", 4),
        ("http://other.cosigner.claviger/", 5),
        ("http://nothing.cosigner.claviger/", 5),
    ] {
        let (code, page, told) = curl("socks5h://", url);
        assert_eq!((code, page.as_str()), (97, ""), "{url}: {told}");
        assert!(told.contains(&format!("({reply})")), "{url}: {told}");
    }
    let (code, _, told) = curl("socks4a://", "http://web.cosigner.claviger/page");
    assert_eq!(code, 97, "{told}");
    // What it was asked for may be private.
    let lines: Vec<String> = daemon.so_far().collect();
    assert!(lines.iter().any(|line| line.contains("no peer's service")), "{lines:?}");
    assert!(!lines.iter().any(|line| line.contains("example")), "{lines:?}");
    let store = two.wallet.dir.path().join("store");
    let status = run(&["--store", text(&store), "status", "--json"], b"");
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["forwards"][0]["opened"], 4);
    assert!(status["forwards"][0]["failures"]["address-refused"].as_u64() >= Some(5), "{status}");
    // What programs ask for is no trouble of the daemon's.
    assert_eq!(status["well"], true, "{status}");
    drop((daemon, served));
}
