//! Other people's servers behind services, used by their own clients: the examples of docs/services.md as they stand there.

use crate::cli::{Listener, text};
use crate::daemon_services::start;
use crate::servers::{Server, free, program};
use crate::support::{Machine, pin_file};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

const PAGE: &str = include_str!("../../docs/services.md");

/// Blocks of the page that begin with a comment of that machine and speak of the service, with other paths and ports.
fn example(machine: &str, service: &str, paths: &[(&str, String)]) -> String {
    let blocks = PAGE.split("```toml\n").skip(1).filter_map(|block| Some(block.split_once("```")?.0));
    let wanted = [format!("[service.{service}]"), format!("\"cosigner/{service}\"")];
    let mut found = blocks
        .filter(|block| block.starts_with(&format!("# {machine}\n")) && wanted.iter().any(|text| block.contains(text)));
    let block = found.next().unwrap_or_else(|| panic!("no example of {service} on {machine}")).to_owned();
    assert!(found.next().is_none());
    paths.iter().fold(block, |block, (path, here)| {
        assert!(!here.contains(path), "{path} is replaced once");
        block.replace(path, here)
    })
}

/// A cosigner that serves and a wallet that uses it, both whole daemons, and a tower without one.
struct Pair {
    tower: Machine,
    _machines: [Machine; 2],
    _daemons: [Listener; 2],
}

impl Pair {
    fn new(service: &str, paths: &[(&str, String)]) -> Self {
        let [mut wallet, mut tower, mut cosigner] = ["wallet", "tower", "cosigner"].map(Machine::software);
        for machine in [&mut wallet, &mut tower] {
            machine.introduce(&mut cosigner);
        }
        let served = format!("{}\n{}", pin_file(&cosigner), example("cosigner", service, paths));
        let answering = start(&mut cosigner, &served);
        let used = format!("{}\n{}", pin_file(&wallet), example("wallet", service, paths));
        let store = wallet.configure(&used);
        let calling = Listener::start(&["--store", text(&store), "run"]);
        calling.says("listens and leads to");
        Self { tower, _machines: [wallet, cosigner], _daemons: [answering, calling] }
    }
}

fn done(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

fn said(command: &mut Command) -> String {
    String::from_utf8(done(command).stdout).unwrap()
}

/// The same in every run, and nothing that a compressor on the way could make small.
fn bytes(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

#[test]
fn nginx_and_curl() {
    let dir = tempfile::tempdir().unwrap();
    let home = text(dir.path()).to_owned();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let block = PAGE.split("```nginx\n").nth(1).unwrap().split_once("```").unwrap().0;
    let server = block.replace("/run/nginx", &home).replace("/srv/www", &home);
    let mut config = format!("daemon off; pid {home}/pid; error_log stderr; events {{}}\nhttp {{ access_log off;\n");
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        writeln!(config, "{kind}_temp_path {home}/{kind};").unwrap();
    }
    config += &format!("{server}}}\n");
    let page = bytes(10_000_000);
    std::fs::write(dir.path().join("report.pdf"), &page).unwrap();
    let mut nginx = Server::start("nginx", dir.path(), &config, &["-e", "stderr", "-c"]);
    nginx.listens(&dir.path().join("claviger.sock"));
    let _pair = Pair::new("web", &[("/run/nginx", home.clone()), ("/run/claviger", home.clone())]);
    let socket = dir.path().join("web.sock");
    let curl = |arguments: &[&str]| {
        let mut command = program("curl");
        command.args(["-sS", "--fail", "--max-time", "60", "--unix-socket", text(&socket)]).args(arguments);
        done(&mut command).stdout
    };
    assert!(curl(&["http://cosigner/report.pdf"]) == page, "another page");
    let head = String::from_utf8(curl(&["-I", "http://cosigner/report.pdf"])).unwrap();
    assert!(head.contains("X-Caller: fd63:6c61:7669:e8d4:4050:873d:ba86:5aa7\r\n"), "{head}");
    // One that is refused before it has said everything hears why, though nobody reads on.
    let upload = format!("@{home}/report.pdf");
    let mut command = program("curl");
    command.args(["-sS", "--max-time", "60", "--unix-socket", text(&socket), "-o", "/dev/null", "-w", "%{http_code}"]);
    assert_eq!(said(command.args(["-H", "Expect:", "--data-binary", &upload, "http://cosigner/report.pdf"])), "413");
    // Many at once, and each all of it.
    let addresses: Vec<String> = (0..20).map(|at| format!("http://cosigner/report.pdf?{at}")).collect();
    let mut arguments = vec!["-Z", "-r", "0-99999"];
    arguments.extend(addresses.iter().map(String::as_str));
    assert_eq!(curl(&arguments).len(), 20 * 100_000);
}

/// The directory of PostgreSQL's own programs, of whichever release is there.
fn postgres_programs() -> PathBuf {
    let releases = std::fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is not installed: run scripts/setup");
    releases.map(|release| release.unwrap().path().join("bin")).find(|bin| bin.join("initdb").exists()).unwrap()
}

#[test]
fn postgresql_and_psql() {
    let dir = tempfile::tempdir().unwrap();
    let (data, home) = (dir.path().join("data"), text(dir.path()).to_owned());
    std::fs::create_dir(&data).unwrap();
    // It refuses to run as root.
    let is_root = rustix::process::getuid().is_root();
    if is_root {
        done(program("chown").args(["-R", "postgres:", &home]));
    }
    let postgres = |name: &str| {
        let path = postgres_programs().join(name);
        if !is_root {
            return Command::new(path);
        }
        let mut command = program("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(path);
        command
    };
    done(
        postgres("initdb")
            .args(["--no-sync", "-A", "trust", "-U", "reporting", "-E", "UTF8", "--locale=C", "-D"])
            .arg(&data),
    );
    let mut command = postgres("postgres");
    command.args(["-D", text(&data), "-k", &home, "-c", "listen_addresses=", "-c", "fsync=off"]);
    let mut server = Server::run("postgres", dir.path(), command);
    server.listens(&dir.path().join(".s.PGSQL.5432"));
    let near = tempfile::tempdir().unwrap();
    let paths = [("/run/postgresql", home), ("/run/claviger", text(near.path()).to_owned())];
    let _pair = Pair::new("postgres", &paths);
    let psql = |sql: &str| {
        let mut command = program("psql");
        said(command.args(["-XAtq", "-h", text(near.path()), "-U", "reporting", "-d", "postgres", "-c", sql]))
    };
    psql("create table ledger as select n, md5(n::text) as line from generate_series(1, 50000) as n");
    assert_eq!(psql("select count(*), max(n) from ledger"), "50000|50000\n");
    // Both directions, a few megabytes: out, and in again.
    let copy = psql("copy ledger to stdout");
    assert_eq!(copy.lines().count(), 50_000);
    psql("create table again (like ledger)");
    let mut child = program("psql")
        .args(["-Xq", "-h", text(near.path()), "-U", "reporting", "-d", "postgres", "-c", "copy again from stdin"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), copy.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(psql("select count(*) from (select * from ledger except select * from again) as missing"), "0\n");
}

#[test]
fn redis_and_its_client() {
    let (dir, near) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let home = text(dir.path()).to_owned();
    let config = format!("port 0\nunixsocket {home}/redis-server.sock\nsave \"\"\ndir {home}\n");
    let mut redis = Server::start("redis-server", dir.path(), &config, &[]);
    redis.listens(&dir.path().join("redis-server.sock"));
    let _pair = Pair::new("redis", &[("/run/redis", home), ("/run/claviger", text(near.path()).to_owned())]);
    let socket = near.path().join("redis.sock");
    let ask = |arguments: &[&str]| said(program("redis-cli").args(["-s", text(&socket)]).args(arguments));
    assert_eq!(ask(&["set", "height", "840000"]), "OK\n");
    assert_eq!(ask(&["incr", "height"]), "840001\n");
    // A thousand commands, one after the other on one connection and then all at once.
    let bench = program("redis-benchmark")
        .args(["-s", text(&socket), "-t", "set,get", "-n", "1000", "-c", "20", "-P", "5", "-d", "1000", "--csv"])
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&bench.stdout).into_owned();
    assert!(bench.status.success() && shown.contains("\"GET\""), "{bench:?}");
    // The server goes, and the client is told.
    drop(redis);
    let output = program("redis-cli").args(["-s", text(&socket), "get", "height"]).output().unwrap();
    assert!(!String::from_utf8_lossy(&output.stdout).contains("840001"), "{output:?}");
}

#[test]
fn openssh_scp_and_rsync() {
    let dir = tempfile::tempdir().unwrap();
    let (home, address, local) = (text(dir.path()).to_owned(), free(), free());
    for key in ["host", "user"] {
        done(program("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", &format!("{home}/{key}")]));
    }
    std::fs::copy(dir.path().join("user.pub"), dir.path().join("authorized")).unwrap();
    if rustix::process::getuid().is_root() {
        std::fs::create_dir_all("/run/sshd").unwrap();
    }
    let config = format!(
        "ListenAddress {address}\nHostKey {home}/host\nAuthorizedKeysFile {home}/authorized\nStrictModes no\nUsePAM no\nPidFile none\n\
         PermitRootLogin prohibit-password\nSubsystem sftp internal-sftp\n"
    );
    let mut sshd = Server::start("sshd", dir.path(), &config, &["-D", "-e", "-f"]);
    sshd.listens_at(address);
    let mut pair =
        Pair::new("ssh", &[("127.0.0.1:2222", local.to_string()), ("127.0.0.1:22\"", format!("{address}\""))]);
    let host = std::fs::read_to_string(dir.path().join("host.pub")).unwrap();
    std::fs::write(dir.path().join("known"), format!("cosigner {host}")).unwrap();
    // The page's ProxyCommand, with this build and the tower's store.
    let pin = pin_file(&pair.tower);
    let store = pair.tower.configure(&pin);
    let proxy = PAGE.split("ProxyCommand claviger ").nth(1).unwrap().lines().next().unwrap();
    let config = format!(
        "Host *\n IdentityFile {home}/user\n IdentitiesOnly yes\n UserKnownHostsFile {home}/known\n BatchMode yes\n HostKeyAlias cosigner\n\
         Host cosigner\n ProxyCommand {} --store {} {proxy}\nHost near\n HostName 127.0.0.1\n Port {}\n",
        env!("CARGO_BIN_EXE_claviger"),
        text(&store),
        local.port()
    );
    let file = dir.path().join("config");
    std::fs::write(&file, config).unwrap();
    let file = text(&file);
    let content = bytes(5_000_000);
    std::fs::create_dir(dir.path().join("journal")).unwrap();
    std::fs::write(dir.path().join("journal/backup.tar"), &content).unwrap();
    for host in ["near", "cosigner"] {
        assert_eq!(said(program("ssh").args(["-F", file, host, "echo hello; exec >&-; exit 0"])), "hello\n");
        let status = program("ssh").args(["-F", file, host, "exit 7"]).stdin(Stdio::null()).status().unwrap();
        assert_eq!(status.code(), Some(7));
        let copy = dir.path().join(format!("{host}.copy"));
        done(
            program("scp")
                .args(["-q", "-F", file, &format!("{home}/journal/backup.tar")])
                .arg(format!("{host}:{}", text(&copy))),
        );
        assert!(std::fs::read(&copy).unwrap() == content);
        let back = dir.path().join(format!("{host}.back"));
        done(program("scp").args(["-q", "-F", file]).arg(format!("{host}:{}", text(&copy))).arg(&back));
        assert!(std::fs::read(&back).unwrap() == content);
        let mirror = dir.path().join(format!("{host}.mirror"));
        done(
            program("rsync")
                .args(["-a", "-e", &format!("ssh -F {file}"), &format!("{home}/journal/")])
                .arg(format!("{host}:{}/", text(&mirror))),
        );
        assert!(std::fs::read(mirror.join("backup.tar")).unwrap() == content);
    }
    drop(pair);
}

#[test]
fn a_name_server_and_dig() {
    let dir = tempfile::tempdir().unwrap();
    let (address, local): (SocketAddr, SocketAddr) = (free(), free());
    let long = format!("txt-record=long.test,{}\n", "x".repeat(250));
    let config = format!(
        "port={}\nlisten-address=127.0.0.1\nbind-interfaces\nno-resolv\nno-hosts\npid-file\nedns-packet-max=4096\naddress=/cosigner.test/192.0.2.7\n",
        address.port(),
    );
    let config = config + &(0..10).map(|at| long.replacen("xxx", &format!("{at:03}"), 1)).collect::<String>();
    let mut dnsmasq = Server::start("dnsmasq", dir.path(), &config, &["-k", "-C"]);
    dnsmasq.listens_at(address);
    let _pair = Pair::new("dns", &[("127.0.0.1:5353", local.to_string()), ("127.0.0.1:53\"", format!("{address}\""))]);
    let port = local.port().to_string();
    let dig = |arguments: &[&str]| {
        let mut command = program("dig");
        command.args(["@127.0.0.1", "-p", &port, "+notcp", "+short", "+time=2", "+tries=10"]).args(arguments);
        command
    };
    assert_eq!(said(&mut dig(&["cosigner.test"])), "192.0.2.7\n");
    // Longer than any packet of the network below.
    let long = said(&mut dig(&["+bufsize=4096", "long.test", "TXT"]));
    assert_eq!(long.matches('x').count(), 10 * 247, "{long}");
    let asking: Vec<_> =
        (0..20).map(|at| dig(&[&format!("{at}.cosigner.test")]).stdout(Stdio::piped()).spawn().unwrap()).collect();
    for child in asking {
        assert_eq!(child.wait_with_output().unwrap().stdout, b"192.0.2.7\n");
    }
}
