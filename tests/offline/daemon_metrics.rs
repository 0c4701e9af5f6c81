//! The daemon's numbers, as they are scraped.

use crate::cli::{Listener, run, text};
use crate::daemon_log::configured;
use crate::support::Machine;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const SERVES: &str = "[token]\npin-file = \"../pin\"\n[daemon]\nshutdown = 2\n[metrics]\nlisten = \"unix:metrics.sock\"\n\
                      [service.cat]\ncommand = [\"/bin/cat\"]\nallow = [\"wallet\"]\n[service.ssh]\ntarget = \"tcp:127.0.0.1:9\"\n";

/// Every series that it reads, as its reference parser does: name, labels in braces, value.
const PARSER: &str = "
import sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families as families
for family in families(sys.stdin.read()):
    assert family.documentation and family.type != 'unknown', family
    for sample in family.samples:
        labels = ','.join(f'{k}={v}' for k, v in sorted(sample.labels.items()))
        print(f'{sample.name}{{{labels}}} {float(sample.value)}')
";

fn scraped(socket: &Path, path: &str) -> (String, String) {
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--include", "--max-time", "10", "--unix-socket", text(socket)])
        .arg(format!("http://claviger{path}"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answer = String::from_utf8(output.stdout).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

fn series(socket: &Path) -> Vec<String> {
    let (head, body) = scraped(socket, "/metrics");
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("application/openmetrics-text"), "{head}");
    let mut parser = Command::new("/usr/bin/python3");
    let mut parser = parser
        .args(["-c", PARSER])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    parser.stdin.take().unwrap().write_all(body.as_bytes()).unwrap();
    let output = parser.wait_with_output().unwrap();
    assert!(output.status.success(), "{}\n{body}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// Until it is so.
fn becomes(socket: &Path, wanted: &str) -> Vec<String> {
    let began = Instant::now();
    loop {
        let series = if socket.exists() { series(socket) } else { Vec::new() };
        if series.iter().any(|line| line == wanted) {
            return series;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "{wanted} is not in {series:#?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn numbers_are_scraped() {
    let (mut wallet, mut cosigner) = (Machine::software("wallet"), Machine::software("cosigner"));
    wallet.introduce(&mut cosigner);
    let (at_wallet, at_cosigner) = (configured(&mut wallet, SERVES), configured(&mut cosigner, SERVES));
    let socket = at_cosigner.join("metrics.sock");
    let daemon = Listener::start(&["--store", text(&at_cosigner), "run"]);
    let series = becomes(&socket, "claviger_phase{phase=running} 1.0");
    for wanted in [
        "claviger_token_state{state=ready} 1.0",
        "claviger_token_state{state=absent} 0.0",
        "claviger_well{} 1.0",
        "claviger_strangers_total{} 0.0",
        "claviger_sessions{peer=wallet} 0.0",
        "claviger_service_streams{service=cat} 0.0",
        "claviger_onion_reachable{} 1.0",
        "claviger_store_trouble{} 0.0",
    ] {
        assert!(series.iter().any(|line| line == wanted), "{wanted} is not in {series:#?}");
    }
    let mode = socket.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    for name in ["claviger_process_open_fds", "claviger_process_threads", "claviger_process_resident_memory_bytes"] {
        assert!(series.iter().any(|line| line.starts_with(name)), "{name} is not in {series:#?}");
    }

    let wallet = text(&at_wallet);
    let echoed = run(&["--store", wallet, "connect", "cosigner/cat"], b"hello");
    assert_eq!(echoed.stdout, b"hello", "{}", String::from_utf8_lossy(&echoed.stderr));
    assert_eq!(run(&["--store", wallet, "connect", "cosigner/ssh"], b"hello").status.code(), Some(11));
    let established = "direction=incoming,outcome=established,pattern=KK,reason=,resumed=false";
    let series = becomes(&socket, &format!("claviger_handshakes_total{{{established}}} 2.0"));
    for wanted in [
        "claviger_handshake_seconds_count{direction=incoming,resumed=false} 2.0",
        "claviger_token_wait_seconds_count{} 2.0",
        "claviger_service_streams_opened_total{service=cat} 1.0",
        "claviger_service_received_bytes_total{service=cat} 5.0",
        "claviger_service_sent_bytes_total{service=cat} 5.0",
        "claviger_service_streams_refused_total{reason=not-allowed,service=ssh} 1.0",
    ] {
        assert!(series.iter().any(|line| line == wanted), "{wanted} is not in {series:#?}");
    }
    assert!(!series.iter().any(|line| line.contains(".onion")), "{series:#?}");

    assert!(scraped(&socket, "/").0.starts_with("HTTP/1.1 404"));
    // A header that never ends is not read to its end.
    let mut endless = UnixStream::connect(&socket).unwrap();
    endless.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let _ = endless.write_all(format!("GET /metrics HTTP/1.1\r\nx: {}", "x".repeat(20_000)).as_bytes());
    let mut answer = Vec::new();
    let _ = endless.read_to_end(&mut answer);
    assert!(answer.starts_with(b"HTTP/1.1 431"), "{}", String::from_utf8_lossy(&answer));
    // Whoever says nothing takes up places, and gives them back.
    let _silent: Vec<_> = (0..15).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    assert!(scraped(&socket, "/metrics").0.starts_with("HTTP/1.1 200"));
    assert_eq!(daemon.stop(), Some(0));
    assert!(!socket.exists());
}

/// Each panel asks for something that there is.
#[test]
fn the_dashboard_fits() {
    let dashboard: serde_json::Value = serde_json::from_str(include_str!("../../docs/grafana.json")).unwrap();
    let page = include_str!("../../src/daemon/metrics/page.rs");
    let (mut panels, mut asked) = (0, 0);
    for panel in dashboard["panels"].as_array().unwrap() {
        panels += 1;
        for target in panel["targets"].as_array().unwrap() {
            let expression = target["expr"].as_str().unwrap();
            let names = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let names: Vec<_> = names.filter_map(|name| name.strip_prefix("claviger_")).collect();
            assert!(!names.is_empty(), "{expression}");
            for name in names {
                let bare = ["_total", "_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
                let named = |name: &str| page.contains(&format!("\"{name}\""));
                assert!(named(name) || bare.is_some_and(named), "{name} in {expression}");
                asked += 1;
            }
        }
    }
    assert!(panels > 8 && asked >= panels);
}
