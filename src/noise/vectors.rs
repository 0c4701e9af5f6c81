//! The published Noise vectors through the delegated path: the static keys answer as a token would, one operation at a time.

mod own;

use super::handshake::{Fixed, Setup, Step};
use super::*;
use crate::identity::StaticPublic;
use crate::secret::{CipherKey, EphemeralSecret, NoisePsk, SharedSecret};
use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, agree};
use serde_json::Value;

/// A static key in memory, in place of a token.
pub(super) struct TestToken {
    key: PrivateKey,
    pub(super) public: StaticPublic,
    pub(super) operations: u32,
}

impl TestToken {
    pub(super) fn new(curve: Curve, private: &[u8]) -> Self {
        let key = PrivateKey::from_private_key(curve.algorithm(), private).unwrap();
        let public = StaticPublic::new(curve, key.compute_public_key().unwrap().as_ref()).unwrap();
        Self { key, public, operations: 0 }
    }

    fn agree(&mut self, point: &StaticPublic) -> SharedSecret {
        self.operations += 1;
        let point = UnparsedPublicKey::new(point.curve().algorithm(), point.as_bytes());
        agree(&self.key, point, (), |secret| SharedSecret::from_slice(secret).ok_or(())).unwrap()
    }
}

/// Answers steps until the other end is needed.
pub(super) fn drive(mut step: Step, token: &mut TestToken) -> Result<Step, NoiseError> {
    while let Step::Agree(agree) = step {
        let secret = token.agree(agree.public());
        step = agree.resume(secret)?;
    }
    Ok(step)
}

fn hex(value: &Value) -> Vec<u8> {
    data_encoding::HEXLOWER.decode(value.as_str().unwrap_or_default().as_bytes()).unwrap()
}

fn replay(file: &str) -> usize {
    let file: Value = serde_json::from_str(file).unwrap();
    let vectors = file["vectors"].as_array().unwrap();
    for vector in vectors {
        let name = vector["protocol_name"].as_str().unwrap();
        let parts: Vec<&str> = name.split('_').collect();
        let (base, modifier) = parts[1].split_once("psk").map_or((parts[1], None), |(base, place)| (base, Some(place)));
        let mut patterns = Pattern::ALL.into_iter().chain([Pattern::Nn]);
        let pattern = patterns.find(|pattern| pattern.noise_name() == base).unwrap();
        let curve = if parts[2] == "P256" { Curve::P256 } else { Curve::X25519 };
        let suite = if parts[3] == "AESGCM" { Suite::AesGcmSha256 } else { Suite::ChaChaPolyBlake2s };
        let is_nn = pattern == Pattern::Nn;
        let protocol = Protocol { pattern, kem: None, psk: modifier.is_some() && !is_nn, curve, suite };
        assert!(modifier.is_none_or(|place| place == protocol.psk_place().to_string()), "{name}");
        let mut tokens = ["init_static", "resp_static"].map(|side| {
            // NN has none; who is there is known otherwise.
            TestToken::new(curve, &vector.get(side).map_or_else(|| vec![1; 32], hex))
        });
        let publics = [tokens[0].public.clone(), tokens[1].public.clone()];
        if !is_nn {
            assert_eq!(publics[1].as_bytes(), hex(&vector["init_remote_static"]), "{name}");
        }
        let messages = vector["messages"].as_array().unwrap();
        let count = usize::from(pattern.messages());
        let start = |initiator: bool| {
            let (own, side) = if initiator { (0, "init") } else { (1, "resp") };
            let payloads =
                messages[..count].iter().skip(own).step_by(2).map(|message| hex(&message["payload"])).collect();
            let prologue = hex(&vector[format!("{side}_prologue")]);
            let ephemeral = EphemeralSecret::from_slice(&hex(&vector[format!("{side}_ephemeral")])).unwrap();
            let psk = modifier.and_then(|_| NoisePsk::from_slice(&hex(&vector[format!("{side}_psks")][0])));
            let setup = match &psk {
                Some(psk) if is_nn => Setup::resumption(protocol, &publics[1 - own], &prologue, psk),
                _ => Setup::new(protocol, &publics[own], &publics[1 - own], &prologue).with_psk(psk.as_ref()),
            };
            let fixed = Fixed { ephemeral: Some(ephemeral), payloads: Some(payloads), ..Fixed::default() };
            setup.with_fixed(fixed).start(name, initiator).unwrap()
        };
        let mut steps = [Some(start(true)), Some(start(false))];
        for (at, message) in messages[..count].iter().enumerate() {
            let (from, to) = (at % 2, 1 - at % 2);
            let Ok(Step::Send(send)) = drive(steps[from].take().unwrap(), &mut tokens[from]) else {
                panic!("{name}: no message")
            };
            assert_eq!(send.message(), hex(&message["ciphertext"]), "{name}, message {at}");
            let Step::Receive(receive) = steps[to].take().unwrap() else { panic!("{name}: not receiving") };
            let next = receive.received(send.message()).unwrap();
            steps[to] = Some(drive(next, &mut tokens[to]).unwrap());
            steps[from] = Some(send.sent().unwrap());
        }
        let [Some(Step::Finished(first)), Some(Step::Finished(second))] = steps else { panic!("{name}: not finished") };
        assert_eq!(first.handshake_hash, second.handshake_hash, "{name}");
        if let Some(hash) = vector["handshake_hash"].as_str() {
            assert_eq!(data_encoding::HEXLOWER.encode(&first.handshake_hash), hash[..64], "{name}");
        }
        let operations = match pattern {
            Pattern::Nn => 0,
            Pattern::Kk => 2,
            Pattern::Kk1 | Pattern::Xk => 1,
        };
        assert_eq!([tokens[0].operations, tokens[1].operations], [operations; 2], "{name}: token operations");
        assert_eq!([first.operations, second.operations], [operations; 2], "{name}: token operations counted");
        let payloads: Vec<Vec<u8>> =
            messages[..count].iter().step_by(2).map(|message| hex(&message["payload"])).collect();
        assert_eq!(second.payloads, payloads, "{name}: payloads");
        if parts[3] != "XChaChaPoly" {
            records(
                name,
                suite,
                [(&first.send, &first.receive), (&second.send, &second.receive)],
                &messages[count..],
                count,
            );
        }
    }
    vectors.len()
}

/// The vectors' transport messages through the session's ciphers.
fn records(name: &str, suite: Suite, keys: [(&CipherKey, &CipherKey); 2], messages: &[Value], count: usize) {
    let mut sealers = keys.map(|(send, _)| Sealer::new(suite, send).unwrap());
    let mut openers = keys.map(|(_, receive)| Opener::new(suite, receive).unwrap());
    for (at, message) in messages.iter().enumerate() {
        let from = (count + at) % 2;
        let mut record = Vec::new();
        sealers[from].seal(&hex(&message["payload"]), &mut record).unwrap();
        assert_eq!(record[2..], hex(&message["ciphertext"]), "{name}, record {at}");
        assert_eq!(openers[1 - from].open(&mut record[2..]).unwrap(), hex(&message["payload"]), "{name}, record {at}");
    }
}

#[test]
fn cacophony() {
    assert_eq!(replay(include_str!("../../tests/vectors/cacophony.json")), 24);
}

/// KKpsk2, XKpsk3 and NNpsk0. There are none of KK1psk2.
#[test]
fn cacophony_psk() {
    assert_eq!(replay(include_str!("../../tests/vectors/psk.json")), 24);
}

#[test]
fn snow() {
    assert_eq!(replay(include_str!("../../tests/vectors/snow.json")), 24);
}

#[test]
fn snow_extended_p256() {
    assert_eq!(replay(include_str!("../../tests/vectors/snow-extended.json")), 12);
}
