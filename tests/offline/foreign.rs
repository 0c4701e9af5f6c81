//! The program against a second implementation of the wire format, in Python, on another Noise library (`tests/kit/python/claviger_session.py`).

use crate::cli::{Listener, run, text};
use crate::support::{self, Machine, pin_file};
use claviger::config;
use claviger::identity::{ClientAuthKeys, Curve, IdentityCard, OnionKeys, StaticPublic, Suite, TokenKind};
use claviger::secret::PresharedKey;
use claviger::store::Peer;
use claviger::wire::Pattern;
use claviger_testkit::pynoise::PyPeer;
use data_encoding::HEXLOWER;
use serde_json::{Value, json};
use std::path::PathBuf;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// The static private key of the machine in Python.
const PRIVATE: [u8; 32] = [0x42; 32];

/// A machine of ours and one in Python that know each other.
struct Pair {
    ours: Machine,
    theirs: IdentityCard,
    suite: Suite,
    /// ML-KEM-768 is on both cards.
    kem: bool,
    psk: Option<[u8; 32]>,
}

impl Pair {
    fn new(suite: Suite) -> Self {
        Self::with(suite, false, None)
    }

    fn with(suite: Suite, kem: bool, psk: Option<[u8; 32]>) -> Self {
        let made = if kem { Machine::hybrid } else { Machine::new };
        let ours = made("cosigner", None, Curve::X25519, &suite.to_string());
        let key = aws_lc_rs::agreement::PrivateKey::from_private_key(&aws_lc_rs::agreement::X25519, &PRIVATE).unwrap();
        let theirs = IdentityCard {
            identifier: "wallet".parse().unwrap(),
            role: "signer".parse().unwrap(),
            token: TokenKind::Software,
            static_public: StaticPublic::new(Curve::X25519, key.compute_public_key().unwrap().as_ref()).unwrap(),
            onion_address: OnionKeys::generate().unwrap().address,
            client_auth: ClientAuthKeys::generate().unwrap().public,
            ..ours.card.clone()
        };
        let mut store = ours.store();
        store.add_peer(&Peer::from_card(&theirs), "test").unwrap();
        if let Some(key) = psk {
            store.set_preshared_key(&theirs.identifier, &PresharedKey::new(key), "test").unwrap();
        }
        drop(store);
        Self { ours, theirs, suite, kem, psk }
    }

    fn store(&mut self) -> PathBuf {
        let pin = pin_file(&self.ours);
        self.ours.configure(&pin)
    }

    /// What the machine in Python is told. It dials when `dials`, else it listens.
    fn told(&self, pattern: Pattern, scenario: &str, service: &str, dials: bool) -> Value {
        let end = |card: &IdentityCard| {
            json!([card.identifier.as_str(), card.role.as_str(), HEXLOWER.encode(card.static_public.as_bytes())])
        };
        let (ours, theirs) = (&self.ours.card, &self.theirs);
        let (initiator, responder) = if dials { (theirs, ours) } else { (ours, theirs) };
        json!({
            "initiator": end(initiator),
            "responder": end(responder),
            "onion": HEXLOWER.encode(responder.onion_address.public_key()),
            "port": 4747,
            "suite": self.suite.to_string(),
            "private": HEXLOWER.encode(&PRIVATE),
            "kind": pattern.number() | if self.kem { 0x10 } else { 0 } | if self.psk.is_some() { 0x20 } else { 0 },
            "psk": self.psk.map(|key| HEXLOWER.encode(&key)),
            "connect": dials.then(|| self.ours.address().port()),
            "scenario": scenario,
            "service": service,
            "resume": false,
        })
    }
}

/// It dials the program, and in the end both ends know that everything arrived.
#[test]
fn it_dials() {
    for suite in Suite::ALL {
        let mut pair = Pair::new(suite);
        let store = pair.store();
        let listener = Listener::start(&["--store", text(&store), "listen", "--echo"]);
        listener.says("cosigner is reachable.");
        for pattern in [Pattern::Kk, Pattern::Xk] {
            for scenario in ["echo", "resets", "unended"] {
                let mut peer = PyPeer::machine(&pair.told(pattern, scenario, "echo", true)).unwrap();
                for line in ["handshake ", "echoed 12 streams", "closed 0", "done"] {
                    peer.says(line).unwrap();
                }
                listener.says("wallet has left.");
            }
        }
        assert_eq!(listener.stop(), Some(0));
    }
}

/// A peer that says one thing and does another is not spoken to any more.
#[test]
fn a_stream_that_ends_before_its_end() {
    let mut pair = Pair::new(Suite::ChaChaPolyBlake2s);
    let store = pair.store();
    let listener = Listener::start(&["--store", text(&store), "listen", "--echo"]);
    listener.says("cosigner is reachable.");
    let mut peer = PyPeer::machine(&pair.told(Pattern::Kk, "miscounted", "echo", true)).unwrap();
    for line in ["handshake ", "cut the pipe was cut", "done"] {
        peer.says(line).unwrap();
    }
    listener.says("session-protocol");
}

/// More records than one key is good for.
#[test]
fn its_key_is_replaced() {
    let mut pair = Pair::new(Suite::ChaChaPolyBlake2s);
    let store = pair.store();
    let listener = Listener::start(&["--store", text(&store), "listen", "--echo"]);
    listener.says("cosigner is reachable.");
    let mut peer = PyPeer::machine(&pair.told(Pattern::Xk, "rekey", "echo", true)).unwrap();
    for line in ["handshake ", "sent True", "echoed 12 streams", "closed 0", "done"] {
        peer.says(line).unwrap();
    }
}

/// Resumed after a cut, and beside the session that still runs, which is then closed for it; the token is asked once in all.
#[test]
fn it_resumes() {
    let mut pair = Pair::new(Suite::ChaChaPolyBlake2s);
    let store = pair.store();
    for pattern in [Pattern::Kk, Pattern::Xk] {
        let listener = Listener::start(&["--store", text(&store), "listen", "--echo"]);
        listener.says("cosigner is reachable.");
        let mut told = pair.told(pattern, "echo", "echo", true);
        told["resume"] = true.into();
        let mut peer = PyPeer::machine(&told).unwrap();
        let (echoed, resumed) = ("echoed 12 streams", "resumed");
        for line in ["handshake ", echoed, echoed, resumed, echoed, resumed, "before ", "closed 0", "done"] {
            peer.says(line).unwrap();
        }
    }
}

/// ML-KEM-768, a pre-shared key, and both, in both directions; what is missing from a handshake is missed before it begins.
#[test]
fn with_more_mixed_in() {
    for (kem, psk) in [(true, None), (false, Some([7; 32])), (true, Some([8; 32]))] {
        let mut pair = Pair::with(Suite::ChaChaPolyBlake2s, kem, psk);
        let store = pair.store();
        let listener = Listener::start(&["--store", text(&store), "--json", "listen", "--echo"]);
        listener.says("Reachable");
        for pattern in [Pattern::Kk, Pattern::Xk] {
            let mut told = pair.told(pattern, "resets", "echo", true);
            told["resume"] = true.into();
            let mut peer = PyPeer::machine(&told).unwrap();
            let (echoed, resumed) = ("echoed 12 streams", "resumed");
            for line in ["handshake ", echoed, echoed, resumed, echoed, resumed, "before ", "closed 0", "done"] {
                peer.says(line).unwrap();
            }
            let offered = if kem { "ML-KEM-768" } else { "" };
            let mixed = format!(r#""kem":"{offered}","psk":{}"#, psk.is_some());
            listener.says(&format!(r#""pattern":"{}",{mixed}"#, pattern.noise_name()));
            listener.says(&format!(r#""pattern":"NN",{mixed}"#));
            told["kind"] = pattern.number().into();
            let refused = PyPeer::machine(&told).unwrap().finish().unwrap_err();
            assert!(refused.to_string().contains("in place of a handshake message"), "{refused}");
            listener.says(if kem { "kem-mismatch" } else { "preshared-key-mismatch" });
        }
        drop(listener);
        for pattern in [Pattern::Kk, Pattern::Xk] {
            let mut peer = PyPeer::machine(&pair.told(pattern, "digest", "digest", false)).unwrap();
            pair.ours.config.transport.tcp.peers.insert(pair.theirs.identifier.clone(), peer.addr());
            let store = pair.store();
            let pattern = pattern.noise_name().to_lowercase();
            let output = run(&["--store", text(&store), "connect", "wallet/digest", "--pattern", &pattern], b"hello");
            assert!(output.stdout.starts_with(b"5 2cf24dba"), "{}", String::from_utf8_lossy(&output.stderr));
            for line in ["handshake ", "closed 0", "done"] {
                peer.says(line).unwrap();
            }
        }
    }
}

/// It cuts the pipe of a session, and has it resumed: by this machine, without its token. So it does once with the session that comes of that, which it has not counted.
#[test]
fn it_is_resumed() {
    let mut pair = Pair::with(Suite::ChaChaPolyBlake2s, true, Some([9; 32]));
    for pattern in [config::Pattern::Kk, config::Pattern::Xk] {
        let mut told = pair.told(pattern.into(), "digest", "digest", false);
        told["resume"] = true.into();
        let mut peer = PyPeer::machine(&told).unwrap();
        let name = pair.theirs.identifier.clone();
        pair.ours.config.transport.tcp.peers.insert(name.clone(), peer.addr());
        support::run(async {
            let endpoint = pair.ours.endpoint(pattern).await;
            for (resumed, counted) in [(false, true), (true, false), (true, true)] {
                let before = endpoint.token().operations();
                let session = endpoint.connect_peer(&name, None).await.unwrap();
                assert_eq!(session.peer().resumed, resumed);
                assert_eq!(endpoint.token().operations() == before, resumed);
                if !counted {
                    session.ended().await;
                    continue;
                }
                let mut stream = session.open(&"digest".parse().unwrap()).await.unwrap();
                stream.write_all(b"hello").await.unwrap();
                stream.shutdown().await.unwrap();
                let mut heard = String::new();
                stream.read_to_string(&mut heard).await.unwrap();
                assert!(heard.starts_with("5 2cf24dba"), "{heard}");
                drop(stream);
                if resumed {
                    session.close().await.unwrap();
                } else {
                    session.ended().await;
                }
            }
        });
        for line in ["handshake ", "resumed", "closed 0", "done"] {
            peer.says(line).unwrap();
        }
    }
}

/// The program dials it: what is sent arrives, and the end of every kind is told for what it is.
#[test]
fn it_is_dialled() {
    let mut pair = Pair::new(Suite::ChaChaPolyBlake2s);
    let long: Vec<u8> = (0..700_000u32).map(|i| (i % 251) as u8).collect();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &long);
    let answer = format!("{} {}\n", long.len(), HEXLOWER.encode(digest.as_ref()));
    // Scenario, what the program has heard, its exit code, what it says.
    let cases = [
        ("digest", answer.as_str(), 0, ""),
        ("cut", "half an answer\n", 11, "incomplete: the session with `wallet` was closed by `wallet`"),
        ("refuse", "", 11, "serves nothing of that name"),
        ("forbid", "", 11, "does not serve that to this machine"),
        ("own_reset", "some\n", 11, "its own code 9"),
        ("flipped", "whole\n", 11, "did not authenticate"),
    ];
    for (pattern, (scenario, heard, code, why)) in
        [Pattern::Kk, Pattern::Xk].into_iter().flat_map(|pattern| cases.map(|case| (pattern, case)))
    {
        let mut peer = PyPeer::machine(&pair.told(pattern, scenario, "digest", false)).unwrap();
        pair.ours.config.transport.tcp.peers.insert(pair.theirs.identifier.clone(), peer.addr());
        let store = pair.store();
        let pattern = pattern.noise_name().to_lowercase();
        let output = run(&["--store", text(&store), "connect", "wallet/digest", "--pattern", &pattern], &long);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(String::from_utf8_lossy(&output.stdout), heard, "{scenario}: {said}");
        assert_eq!(output.status.code(), Some(code), "{scenario}: {said}");
        assert!(said.contains(why), "{scenario}: {said}");
        peer.says("handshake ").unwrap();
        if !["cut", "flipped"].contains(&scenario) {
            peer.says("closed ").unwrap();
        }
        peer.says("done").unwrap();
    }
}
