//! Whole handshakes in memory: every protocol, with what is mixed in; every byte of every message changed.

use super::handshake::{Setup, Step, initiator, responder};
use super::vectors::{TestToken, drive};
use super::*;
use crate::secret::{NoisePsk, PresharedKey};

/// Every protocol of a full handshake.
fn protocols() -> Vec<Protocol> {
    let mut all = Vec::new();
    for pattern in Pattern::ALL {
        for curve in [Curve::X25519, Curve::P256] {
            for suite in Suite::ALL {
                for kem in [None, Some(Kem::MlKem768)] {
                    all.extend([false, true].map(|psk| Protocol { pattern, kem, psk, curve, suite }));
                }
            }
        }
    }
    all
}

/// Two machines, and what they have of each other.
struct Pair {
    protocol: Protocol,
    tokens: [TestToken; 2],
    preshared: [Option<PresharedKey>; 2],
}

impl Pair {
    fn new(protocol: Protocol) -> Self {
        let tokens = [[1; 32], [2; 32]].map(|private| TestToken::new(protocol.curve, &private));
        Self { protocol, tokens, preshared: [(); 2].map(|()| protocol.psk.then(|| PresharedKey::new([7; 32]))) }
    }

    fn start(&self, end: usize) -> Result<Step, NoiseError> {
        let [own, other] = [end, 1 - end].map(|at| &self.tokens[at].public);
        let setup = Setup::new(self.protocol, own, other, b"prologue");
        let setup = match &self.preshared[end] {
            Some(key) => setup.with_preshared_key(key),
            None => setup,
        };
        if end == 0 { initiator(setup) } else { responder(setup) }
    }

    /// Runs a handshake in which `change` may do something to each message, numbered from 0. At each end: what came of it. None: the other end failed before.
    fn meet(
        &mut self,
        mut change: impl FnMut(usize, &mut Vec<u8>),
    ) -> [Option<Result<Box<Established>, NoiseError>>; 2] {
        let mut steps = [0, 1].map(|end| Some(self.start(end).unwrap()));
        let mut done = [None, None];
        for message in 0.. {
            let (from, to) = (message % 2, 1 - message % 2);
            let sending = match drive(steps[from].take().unwrap(), &mut self.tokens[from]) {
                Ok(Step::Send(send)) => send,
                Ok(Step::Finished(established)) => {
                    done[from] = Some(Ok(established));
                    break;
                }
                Ok(other) => panic!("{other:?}"),
                Err(error) => {
                    done[from] = Some(Err(error));
                    break;
                }
            };
            let mut bytes = sending.message().to_vec();
            change(message, &mut bytes);
            let Step::Receive(receive) = steps[to].take().unwrap() else { panic!("not receiving") };
            let lengths = [bytes.len(), self.protocol.kind().message_len(self.protocol.curve, message as u8 + 1)];
            assert_eq!(lengths, [receive.expected_len(); 2], "{}", self.protocol.name());
            match receive.received(&bytes).and_then(|step| drive(step, &mut self.tokens[to])) {
                Ok(Step::Finished(established)) => done[to] = Some(Ok(established)),
                Ok(step) => steps[to] = Some(step),
                Err(error) => done[to] = Some(Err(error)),
            }
            let sent = sending.sent().unwrap();
            if let Step::Finished(established) = sent {
                done[from] = Some(Ok(established));
            } else {
                steps[from] = Some(sent);
            }
            if done[to].is_some() {
                break;
            }
        }
        done
    }
}

fn same(one: &Established, other: &Established) -> bool {
    one.handshake_hash == other.handshake_hash
        && one.send.expose() == other.receive.expose()
        && one.receive.expose() == other.send.expose()
}

#[test]
fn every_protocol() {
    for protocol in protocols() {
        let name = protocol.name();
        let mut pair = Pair::new(protocol);
        let [Some(Ok(one)), Some(Ok(other))] = pair.meet(|_, _| {}) else { panic!("{name}") };
        assert!(same(&one, &other), "{name}");
        let operations = if protocol.pattern == Pattern::Kk { 2 } else { 1 };
        assert_eq!(pair.tokens.map(|token| token.operations), [operations; 2], "{name}: with all that is mixed in");
        assert_eq!((one.remote.as_bytes().len(), one.protocol), (protocol.curve.public_len(), protocol));
    }
}

#[test]
fn names() {
    let name =
        |pattern, kem, psk| Protocol { pattern, kem, psk, curve: Curve::P256, suite: Suite::AesGcmSha256 }.name();
    assert_eq!(name(Pattern::Kk, None, false), "Noise_KK_P256_AESGCM_SHA256");
    assert_eq!(name(Pattern::Kk, Some(Kem::MlKem768), false), "Noise_KKpsk2_P256_AESGCM_SHA256");
    assert_eq!(name(Pattern::Kk1, None, true), "Noise_KK1psk2_P256_AESGCM_SHA256");
    assert_eq!(name(Pattern::Xk, Some(Kem::MlKem768), true), "Noise_XKpsk3_P256_AESGCM_SHA256");
    assert_eq!(
        Protocol::resumption(Curve::X25519, Suite::ChaChaPolyBlake2s).name(),
        "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s"
    );
}

/// Encapsulation key, ciphertext, ephemerals, tags: no byte of any message can be another. Where an end is done before its last message arrives, the other
/// one's records tell: their keys differ or are not there.
#[test]
fn no_byte_can_be_changed() {
    for protocol in protocols() {
        // The arithmetic is the same for both suites.
        if protocol.suite != Suite::ChaChaPolyBlake2s || protocol.curve != Curve::X25519 {
            continue;
        }
        for number in 1..=protocol.pattern.messages() {
            let len = protocol.kind().message_len(protocol.curve, number);
            // Every byte near the seams, and every 37th within the large fields.
            for at in (0..len).filter(|at| *at < 64 || len - at < 64 || at % 37 == 0 || at.abs_diff(1088) < 4) {
                let done = Pair::new(protocol).meet(|message, bytes| {
                    if message + 1 == usize::from(number) {
                        bytes[at] ^= 1;
                    }
                });
                let both = matches!(&done, [Some(Ok(_)), Some(Ok(_))]);
                assert!(!both, "{}: byte {at} of message {number}", protocol.name());
            }
        }
    }
}

#[test]
fn another_preshared_key_or_none() {
    for protocol in protocols().into_iter().filter(|protocol| protocol.psk) {
        let mut pair = Pair::new(protocol);
        pair.preshared[1] = Some(PresharedKey::new([8; 32]));
        let done = pair.meet(|_, _| {});
        let failed = done.iter().flatten().find_map(|done| done.as_ref().err());
        assert_eq!(failed, Some(&NoiseError::Decrypt), "{}", protocol.name());
        // One that the protocol does not have, and none where it does.
        pair.preshared[0] = None;
        assert!(matches!(pair.start(0), Err(NoiseError::Internal(_))));
        (pair.preshared[0], pair.protocol.psk) = (Some(PresharedKey::new([7; 32])), false);
        assert!(matches!(pair.start(0), Err(NoiseError::Internal(_))));
    }
}

/// An end that mixes the KEM in and one that does not have other message lengths and other names.
#[test]
fn lengths_are_exact() {
    for protocol in protocols() {
        for (with, without) in [(protocol, Protocol { kem: None, ..protocol })] {
            if with.kem.is_none() {
                continue;
            }
            let (mut sender, listener) = (Pair::new(without), Pair::new(with));
            let first = drive(sender.start(0).unwrap(), &mut sender.tokens[0]).unwrap();
            let (Step::Send(send), Step::Receive(receive)) = (first, listener.start(1).unwrap()) else { panic!() };
            assert_eq!(receive.received(send.message()).err(), Some(NoiseError::Length));
        }
        let Step::Receive(receive) = Pair::new(protocol).start(1).unwrap() else { panic!() };
        let len = receive.expected_len();
        for wrong in [0, 1, len - 1, len + 1, 4096, 70_000] {
            let Step::Receive(receive) = Pair::new(protocol).start(1).unwrap() else { panic!() };
            assert_eq!(receive.received(&vec![9; wrong]).err(), Some(NoiseError::Length), "{wrong} bytes");
        }
    }
}

/// KK1's first message is made by anybody: what is wrong with its encapsulation key is found before the token is asked.
#[test]
fn a_bad_encapsulation_key_costs_no_operation() {
    let protocol = Protocol {
        pattern: Pattern::Kk1,
        kem: Some(Kem::MlKem768),
        psk: false,
        curve: Curve::X25519,
        suite: Suite::ChaChaPolyBlake2s,
    };
    let pair = Pair::new(protocol);
    // snow's own initiator, with a payload that is no encapsulation key.
    let params = protocol.name().parse().unwrap();
    let mut caller = snow::Builder::new(params)
        .prologue(b"prologue")
        .and_then(|builder| builder.local_private_key(&[1; 32]))
        .and_then(|builder| builder.remote_public_key(pair.tokens[1].public.as_bytes()))
        .and_then(|builder| builder.build_initiator())
        .unwrap();
    let mut message = [0; 2048];
    let len = caller.write_message(&[0xff; 1184], &mut message).unwrap();
    let Step::Receive(receive) = pair.start(1).unwrap() else { panic!() };
    assert_eq!(receive.received(&message[..len]).err(), Some(NoiseError::EncapsulationKey));
}

#[test]
fn resumption() {
    for curve in [Curve::X25519, Curve::P256] {
        for suite in Suite::ALL {
            let protocol = Protocol::resumption(curve, suite);
            let ends = Pair::new(protocol).tokens.map(|token| token.public);
            let run = |psks: [u8; 2], prologues: [&[u8]; 2]| {
                let psks = psks.map(|byte| NoisePsk::new([byte; 32]));
                let first = initiator(Setup::resumption(protocol, &ends[1], prologues[0], &psks[0])).unwrap();
                let second = responder(Setup::resumption(protocol, &ends[0], prologues[1], &psks[1])).unwrap();
                let (Step::Send(send), Step::Receive(receive)) = (first, second) else { panic!("not NN") };
                assert_eq!(send.message().len(), curve.public_len() + 16);
                assert_eq!(receive.expected_len(), curve.public_len() + 16);
                let Step::Send(answer) = receive.received(send.message())? else { panic!("not NN") };
                let Step::Receive(receive) = send.sent().unwrap() else { panic!("not NN") };
                let Step::Finished(one) = receive.received(answer.message())? else { panic!("not NN") };
                let Step::Finished(other) = answer.sent().unwrap() else { panic!("not NN") };
                assert!(same(&one, &other) && one.operations + other.operations == 0);
                assert_eq!([&one.remote, &other.remote], [&ends[1], &ends[0]]);
                Ok(())
            };
            assert_eq!(run([3, 3], [b"a", b"a"]), Ok(()));
            assert_eq!(run([3, 4], [b"a", b"a"]), Err(NoiseError::Decrypt));
            assert_eq!(run([3, 3], [b"a", b"b"]), Err(NoiseError::Decrypt));
        }
    }
}
