//! Whole handshakes in memory on one core, both ends' time counted.

use crate::keys::{Key, handshake};
use crate::measure::{Subject, alternate, median, thread_time};
use crate::report::{Report, Rounds, Target};
use crate::tls::{Identity, Provider, Signature, configs, server_name};
use crate::{Options, Result};
use claviger::identity::{Curve, Kem, Suite};
use claviger::noise::Protocol;
use claviger::noise::knock::{Doorkeeper, key, packet};
use claviger::wire::Pattern;
use rustls::{ClientConnection, NamedGroup, ServerConnection};
use std::sync::Arc;

/// Handshakes of one measurement.
const BATCH: usize = 20;

const BEGIN: u64 = 1_800_000_000_000;
const WINDOW: u64 = 120_000;

/// Handshakes a second, of a core that does both ends.
fn rate(mut one: impl FnMut() -> Result<()>) -> Result<f64> {
    let start = thread_time();
    for _ in 0..BATCH {
        one()?;
    }
    Ok(BATCH as f64 / (thread_time() - start))
}

/// Ours, the knock in front of it.
fn ours(protocol: Protocol) -> impl FnMut() -> Result<f64> {
    let keys = [Key::new(protocol.curve), Key::new(protocol.curve)];
    let mut door = Doorkeeper::new(&keys[1].public, [&keys[0].public], WINDOW, BEGIN - WINDOW);
    let kind = protocol.kind();
    let message = vec![7; kind.first_message_len(protocol.curve)];
    let mut now = BEGIN;
    move || {
        rate(|| {
            now += WINDOW;
            let knock = packet(&key(&keys[0].public, &keys[1].public), kind, now, &message);
            door.admit(&knock, now).map_err(|refused| format!("{refused:?}"))?;
            handshake(protocol, &keys);
            Ok(())
        })
    }
}

/// TLS 1.3, both ends with a certificate.
fn tls(provider: Provider, signature: Signature, group: NamedGroup) -> Result<impl FnMut() -> Result<f64>> {
    let (server, client) = (Identity::new(signature)?, Identity::new(signature)?);
    let (accepting, dialling) = configs(provider, None, Some(group), [&server, &client])?;
    Ok(move || {
        rate(|| {
            let mut client = ClientConnection::new(Arc::clone(&dialling), server_name())?;
            let mut server = ServerConnection::new(Arc::clone(&accepting))?;
            let mut wire = Vec::with_capacity(8192);
            while client.is_handshaking() || server.is_handshaking() {
                while client.wants_write() {
                    client.write_tls(&mut wire)?;
                }
                let mut bytes = wire.as_slice();
                while !bytes.is_empty() {
                    server.read_tls(&mut bytes)?;
                    server.process_new_packets()?;
                }
                wire.clear();
                while server.wants_write() {
                    server.write_tls(&mut wire)?;
                }
                let mut bytes = wire.as_slice();
                while !bytes.is_empty() {
                    client.read_tls(&mut bytes)?;
                    client.process_new_packets()?;
                }
                wire.clear();
            }
            Ok(())
        })
    })
}

/// What a line of the table measures: our patterns with or without ML-KEM-768, and TLS with the same key exchange.
struct Case {
    name: &'static str,
    curve: Curve,
    kem: Option<Kem>,
    group: NamedGroup,
    signatures: &'static [Signature],
}

const CASES: [Case; 3] = [
    Case {
        name: "X25519",
        curve: Curve::X25519,
        kem: None,
        group: NamedGroup::X25519,
        signatures: &[Signature::Ed25519, Signature::P256],
    },
    Case {
        name: "X25519 with ML-KEM-768",
        curve: Curve::X25519,
        kem: Some(Kem::MlKem768),
        group: NamedGroup::X25519MLKEM768,
        signatures: &[Signature::Ed25519],
    },
    Case { name: "P-256", curve: Curve::P256, kem: None, group: NamedGroup::secp256r1, signatures: &[Signature::P256] },
];

pub(super) fn run(options: &Options, report: &mut Report) -> Result<()> {
    for case in CASES {
        options.progress("handshake", case.name);
        let mut subjects = Vec::new();
        for pattern in Pattern::ALL {
            let suite = Suite::ChaChaPolyBlake2s;
            let protocol = Protocol { pattern, kem: case.kem, psk: false, curve: case.curve, suite };
            subjects.push(Subject::new(pattern.to_string(), ours(protocol)));
        }
        for signature in case.signatures {
            let signed = if *signature == Signature::Ed25519 { "Ed25519" } else { "P-256" };
            for provider in Provider::ALL {
                // ring has no ML-KEM.
                if case.kem.is_none() || provider == Provider::AwsLc {
                    let name = format!("rustls {signed}, {}", provider.name());
                    subjects.push(Subject::new(name, tls(provider, *signature, case.group)?));
                }
            }
        }
        let values = alternate(&mut subjects, options.rounds(31, 7))?;
        let names: Vec<String> = subjects.iter().map(|subject| subject.name.clone()).collect();
        report.note("handshake", case.name, "per s and core", &names, &values);
        // The first kind of certificate, by whoever is faster.
        let theirs = 3..names.len().min(5);
        let best = theirs.max_by(|a, b| median(&values[*a]).total_cmp(&median(&values[*b]))).unwrap_or(3);
        let theirs = Rounds { name: &names[best], values: &values[best] };
        for (pattern, values) in Pattern::ALL.into_iter().zip(&values) {
            let bound = (case.name == "X25519" && pattern != Pattern::Kk).then_some(Target::Ratio(1.7));
            report.compare("handshake", &format!("{pattern}, {}", case.name), "/s", values, &theirs, bound);
        }
    }
    Ok(())
}
