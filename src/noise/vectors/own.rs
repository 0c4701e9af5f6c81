//! Our own vectors, made from `docs/wire-format.md` by `tests/vectors/handshakes.py` and by nothing of this library: what a second implementation starts from.

use super::super::handshake::{Fixed, Setup, Step, initiator, responder};
use super::super::kem::{DecapsulationKey, Encapsulation};
use super::super::resumption::{Link, Origin};
use super::super::*;
use super::{TestToken, drive, hex};
use crate::identity::OnionAddress;
use crate::secret::{EphemeralSecret, KemSecret, PresharedKey};
use crate::wire::{Ends, KnockPacket, RESUMPTION_ID, prologue};
use serde_json::Value;

const SIDES: [&str; 2] = ["initiator", "responder"];

struct File(Value);

impl File {
    fn tokens(&self, curve: Curve) -> [TestToken; 2] {
        SIDES.map(|side| TestToken::new(curve, &hex(&self.0["statics"][side])))
    }

    fn prologue(&self, kind: Kind) -> Vec<u8> {
        let onion_address = OnionAddress::from_public_key(hex(&self.0["onion_public_key"]).try_into().unwrap());
        let ends = Ends {
            initiator: &"wallet".parse().unwrap(),
            initiator_role: &"signer".parse().unwrap(),
            responder: &"cosigner".parse().unwrap(),
            responder_role: &"cosigner".parse().unwrap(),
            onion_address: &onion_address,
            port: 4747,
        };
        prologue(kind, &ends)
    }

    /// What `end` would have made by chance.
    fn fixed(&self, ephemerals: &str, end: usize) -> Fixed {
        let kem = &self.0["kem"];
        let secret = KemSecret::from_slice(&hex(&kem["secret"])).unwrap();
        Fixed {
            ephemeral: EphemeralSecret::from_slice(&hex(&self.0[ephemerals][SIDES[end]])),
            decapsulation_key: Some(DecapsulationKey::fixed(&hex(&kem["decapsulation_key"]))),
            encapsulation: Some(Encapsulation { ciphertext: hex(&kem["ciphertext"]), secret }),
            payloads: None,
        }
    }
}

/// Runs both ends; every body must be the vector's. The first is the whole knock packet.
fn bodies(
    starts: [Step; 2],
    tokens: &mut [TestToken; 2],
    name: &str,
    first: &[u8],
    vector: &Value,
) -> [Established; 2] {
    let mut steps = starts.map(Some);
    let bodies: Vec<Vec<u8>> = vector["bodies"].as_array().unwrap().iter().map(hex).collect();
    for (at, body) in bodies.iter().enumerate() {
        let (from, to) = (at % 2, 1 - at % 2);
        let Ok(Step::Send(send)) = drive(steps[from].take().unwrap(), &mut tokens[from]) else {
            panic!("{name}: no message {at}")
        };
        let expected = if at == 0 { first } else { body };
        assert_eq!(send.message(), expected, "{name}, message {at}");
        let Step::Receive(receive) = steps[to].take().unwrap() else { panic!("{name}: not receiving") };
        steps[to] = Some(drive(receive.received(expected).unwrap(), &mut tokens[to]).unwrap());
        steps[from] = Some(send.sent().unwrap());
    }
    steps.map(|step| match step {
        Some(Step::Finished(established)) => *established,
        other => panic!("{name}: {other:?}"),
    })
}

/// Handshake hash, split keys, and the first link of the chain.
fn finished(ends: &[Established; 2], vector: &Value, name: &str) -> Link {
    for (end, established) in ends.iter().enumerate() {
        assert_eq!(established.handshake_hash[..], hex(&vector["handshake_hash"]), "{name}");
        assert_eq!(established.send.expose()[..], hex(&vector["keys"][end]), "{name}");
        assert_eq!(established.receive.expose()[..], hex(&vector["keys"][1 - end]), "{name}");
    }
    let link = Link::first(&ends[1], false).unwrap();
    let chain = &vector["resumption"];
    assert_eq!(link.id().unwrap()[..], hex(&chain["id"]), "{name}");
    assert_eq!(link.psk().unwrap().expose()[..], hex(&chain["psk"]), "{name}");
    assert_eq!(Link::first(&ends[0], true).unwrap().id().unwrap()[..], hex(&chain["id"]), "{name}");
    link
}

/// Each direction's first records, and the first one after a rekey.
fn records(ends: &[Established; 2], vector: &Value, name: &str) {
    let suite = ends[0].protocol.suite;
    for (end, established) in ends.iter().enumerate() {
        let mut sealer = Sealer::new(suite, &established.send).unwrap();
        let mut opener = Opener::new(suite, &ends[1 - end].receive).unwrap();
        let mut nonce = 0;
        for record in vector["records"].as_array().unwrap().iter().filter(|record| record["sender"] == SIDES[end]) {
            let (text, frame) = (hex(&record["text"]), hex(&record["frame"]));
            // Empty records count like others.
            while nonce < record["nonce"].as_u64().unwrap() {
                let mut between = Vec::new();
                sealer.seal(b"", &mut between).unwrap();
                opener.open(&mut between[2..]).unwrap();
                nonce += 1;
            }
            let mut sealed = Vec::new();
            sealer.seal(&text, &mut sealed).unwrap();
            assert_eq!(sealed, frame, "{name}, record {nonce} of the {}", SIDES[end]);
            assert_eq!(opener.open(&mut sealed[2..]).unwrap(), text);
            nonce += 1;
        }
    }
}

fn resume(file: &File, link: &Link, origin: Origin, full: Protocol, vector: &Value) {
    let protocol = Protocol::resumption(full.curve, full.suite);
    let name = protocol.name();
    assert_eq!(name, vector["protocol"].as_str().unwrap());
    let prologue = origin.prologue(file.prologue(protocol.kind()));
    assert_eq!(prologue, hex(&vector["prologue"]));
    let packet = hex(&vector["bodies"][0]);
    let mut tokens = file.tokens(full.curve);
    let time = file.0["time_ms_of_resumption"].as_u64().unwrap();
    let message = &KnockPacket::parse(&packet).unwrap().message;
    let (id, first) = message.split_at(RESUMPTION_ID);
    assert_eq!(id, link.id().unwrap());
    let key = knock::key(&origin.initiator, &origin.responder);
    assert_eq!(knock::packet(&key, protocol.kind(), time, message), packet);
    let psk = link.psk().unwrap();
    let starts = [0, 1].map(|end| {
        let setup = Setup::resumption(protocol, &tokens[1 - end].public, &prologue, &psk);
        let setup = setup.with_fixed(file.fixed("ephemerals_of_resumption", end));
        if end == 0 { initiator(setup).unwrap() } else { responder(setup).unwrap() }
    });
    let ends = bodies(starts, &mut tokens, &name, first, vector);
    finished(&ends, vector, &name);
}

#[test]
fn the_document_and_the_library_agree() {
    let file = File(serde_json::from_str(include_str!("../../../tests/vectors/handshakes.json")).unwrap());
    let preshared = PresharedKey::from_slice(&hex(&file.0["preshared_key"])).unwrap();
    let time = file.0["time_ms"].as_u64().unwrap();
    let vectors = file.0["handshakes"].as_array().unwrap();
    for vector in vectors {
        let name = vector["protocol"].as_str().unwrap();
        let kind = Kind::from_byte(vector["kind"].as_u64().unwrap() as u8).unwrap();
        let (curve, suite) = match name.contains("P256") {
            true => (Curve::P256, Suite::AesGcmSha256),
            false => (Curve::X25519, Suite::ChaChaPolyBlake2s),
        };
        let kem = kind.kem.then_some(Kem::MlKem768);
        let protocol = Protocol { pattern: kind.pattern, kem, psk: kind.psk, curve, suite };
        assert_eq!((protocol.name().as_str(), protocol.kind()), (name, kind));
        let mut tokens = file.tokens(curve);
        let [dialling, listening] = [0, 1].map(|end: usize| tokens[end].public.clone());
        let prologue = file.prologue(kind);
        assert_eq!(prologue, hex(&vector["prologue"]), "{name}");

        let packet = hex(&vector["bodies"][0]);
        let first = KnockPacket::parse(&packet).unwrap().message;
        assert_eq!(knock::packet(&knock::key(&dialling, &listening), kind, time, first), packet, "{name}");

        let starts = [0, 1].map(|end| {
            let [own, other] = if end == 0 { [&dialling, &listening] } else { [&listening, &dialling] };
            let setup = Setup::new(protocol, own, other, &prologue).with_fixed(file.fixed("ephemerals", end));
            let setup = if kind.psk { setup.with_preshared_key(&preshared) } else { setup };
            if end == 0 { initiator(setup).unwrap() } else { responder(setup).unwrap() }
        });
        let ends = bodies(starts, &mut tokens, name, first, vector);
        let link = finished(&ends, vector, name);
        if vector.get("records").is_some() {
            records(&ends, vector, name);
            let handshake_hash = ends[0].handshake_hash;
            let origin =
                Origin { handshake_hash, kind: kind.byte(), time_ms: time, initiator: dialling, responder: listening };
            resume(&file, &link, origin, protocol, &vector["resumed"]);
        }
    }
    assert_eq!(vectors.len(), 15);
}
