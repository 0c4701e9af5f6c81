//! Live handshakes and records with other people's Noise, our static key on a token.

use crate::support::{Pins, generate, run};
use claviger::identity::{Curve, Kem, StaticPublic, Suite};
use claviger::noise::{self, Established, Opener, Protocol, Sealer, Setup, Step};
use claviger::secret::{NoisePsk, PresharedKey};
use claviger::token::{Reason, Settings, TokenHandle};
use claviger::wire::Pattern;
use claviger_testkit::pynoise::{Library, PAYLOADS, PyPeer, PySpec, Role};
use claviger_testkit::token::{PIN, SO_PIN, SoftHsm, isolated};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PROLOGUE: &[u8] = b"claviger interop";

async fn read_frame(pipe: &mut TcpStream) -> Vec<u8> {
    let len = pipe.read_u16().await.unwrap();
    let mut body = vec![0; usize::from(len)];
    pipe.read_exact(&mut body).await.unwrap();
    body
}

async fn handshake(mut step: Step, token: &TokenHandle, pipe: &mut TcpStream) -> Established {
    loop {
        step = match step {
            Step::Agree(agree) => {
                let secret = token.agree(agree.public(), &Reason::OPENING).await.unwrap();
                agree.resume(secret).unwrap()
            }
            Step::Send(send) => {
                pipe.write_all(&claviger::wire::frame(send.message()).unwrap()).await.unwrap();
                send.sent().unwrap()
            }
            Step::Receive(receive) => {
                let message = read_frame(pipe).await;
                assert_eq!(message.len(), receive.expected_len());
                receive.received(&message).unwrap()
            }
            Step::Finished(established) => return *established,
        };
    }
}

/// The peer's payloads are bytes `i * 7 mod 256`; each end echoes the other's.
async fn records(established: &Established, initiator: bool, pipe: &mut TcpStream) {
    let suite = established.protocol.suite;
    let mut sealer = Sealer::new(suite, &established.send).unwrap();
    let mut opener = Opener::new(suite, &established.receive).unwrap();
    for len in PAYLOADS {
        let payload: Vec<u8> = (0..len).map(|i| (i * 7) as u8).collect();
        let mut sealed = Vec::new();
        sealer.seal(&payload, &mut sealed).unwrap();
        if initiator {
            pipe.write_all(&sealed).await.unwrap();
        }
        let mut heard = Vec::new();
        while heard.len() < payload.len() {
            let mut record = read_frame(pipe).await;
            heard.extend_from_slice(opener.open(&mut record).unwrap());
        }
        assert_eq!(heard, payload);
        if !initiator {
            pipe.write_all(&sealed).await.unwrap();
        }
    }
}

/// What the two hold beside their static keys.
const PRESHARED: [u8; 32] = [0x77; 32];

async fn meet(library: Library, protocol: Protocol, initiator: bool, token: &TokenHandle) {
    let pattern = protocol.pattern;
    let private = [0x42; 32];
    let key = aws_lc_rs::agreement::PrivateKey::from_private_key(&aws_lc_rs::agreement::X25519, &private).unwrap();
    let remote = StaticPublic::new(Curve::X25519, key.compute_public_key().unwrap().as_ref()).unwrap();
    let local = token.public().clone();
    let is_resumption = pattern == Pattern::Nn;
    let knows_us = (pattern != Pattern::Xk || !initiator) && !is_resumption;
    let peer = PyPeer::spawn(&PySpec {
        library,
        role: if initiator { Role::Responder } else { Role::Initiator },
        protocol_name: &protocol.name(),
        kind: protocol.kind().byte(),
        secret: (protocol.psk || is_resumption).then_some(&PRESHARED),
        prologue: PROLOGUE,
        static_private: &private,
        remote_public: knows_us.then(|| local.as_bytes().try_into().unwrap()),
        connect: None,
    })
    .unwrap();
    let mut pipe = TcpStream::connect(peer.addr()).await.unwrap();
    let before = token.operations();
    let (preshared, psk) = (PresharedKey::new(PRESHARED), NoisePsk::new(PRESHARED));
    let setup = match pattern {
        Pattern::Nn => Setup::resumption(protocol, &remote, PROLOGUE, &psk),
        _ if protocol.psk => Setup::new(protocol, &local, &remote, PROLOGUE).with_preshared_key(&preshared),
        _ => Setup::new(protocol, &local, &remote, PROLOGUE),
    };
    let first = if initiator { noise::initiator(setup) } else { noise::responder(setup) }.unwrap();
    let established = handshake(first, token, &mut pipe).await;
    let operations = match pattern {
        Pattern::Nn => 0,
        Pattern::Kk => 2,
        Pattern::Kk1 | Pattern::Xk => 1,
    };
    assert_eq!(token.operations() - before, operations, "{}", protocol.name());
    records(&established, initiator, &mut pipe).await;
    let hash = tokio::task::spawn_blocking(move || peer.finish()).await.unwrap().unwrap();
    assert_eq!(hash, established.handshake_hash, "{}", protocol.name());
}

const KEM: Option<Kem> = Some(Kem::MlKem768);

fn with(library: Library, patterns: &[Pattern]) {
    let hsm = SoftHsm::new();
    let locator = hsm.init_token("interop", SO_PIN, PIN).uri("key");
    let public = generate(&locator, Curve::X25519);
    run(async {
        let token = TokenHandle::open(&locator, &public, Settings::new("interop", Pins::of(&locator))).unwrap();
        for pattern in patterns {
            for suite in Suite::ALL {
                for (kem, psk) in [(None, false), (KEM, false), (None, true), (KEM, true)] {
                    // A resumption is NNpsk0 and nothing more.
                    if *pattern == Pattern::Nn && (kem.is_some() || psk) {
                        continue;
                    }
                    let protocol = Protocol { pattern: *pattern, kem, psk, curve: Curve::X25519, suite };
                    for initiator in [true, false] {
                        meet(library, protocol, initiator, &token).await;
                    }
                }
            }
        }
    });
}

#[test]
fn noiseprotocol() {
    isolated(|| with(Library::NoiseProtocol, &[Pattern::Kk, Pattern::Xk, Pattern::Nn]));
}

#[test]
fn dissononce() {
    isolated(|| with(Library::Dissononce, &Pattern::ALL));
}
