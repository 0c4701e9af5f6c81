//! One agree, by backend and curve: what a handshake waits for. With the feature `tpm` there is a TPM among them.
//!
//! Every device is one in software, behind the stack that a real one has. So this measures our side, the stack (module, pcscd, tpm2-tss) and the
//! emulation's arithmetic; a device adds its own.

// A benchmark that cannot set up its tokens ends, as a test does.
#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use aws_lc_rs::agreement::{ECDH_P256, PrivateKey, X25519};
use claviger_hsm::{
    Curve, KeepPin, Locator, NewKey, Operation, Pin, PinEntry, PinRequest, PublicKey, Purpose, Result, generate, open,
    pkcs11,
};
use claviger_testkit::cards::{self, Card, Pcscd, isolated_main};
use claviger_testkit::token::{Kryoptic, SO_PIN, SoftHsm};
use criterion::Criterion;

const OPENSC: &str = "/usr/lib/x86_64-linux-gnu/opensc-pkcs11.so";

/// A backend and its key. Every token here has the PIN that cards have from their factories.
type Key = (&'static str, Locator, PublicKey);

struct Given;

impl PinEntry for Given {
    fn pin(&mut self, request: &PinRequest<'_>) -> Result<Pin> {
        Pin::new(match request.purpose {
            Purpose::AdminPin => cards::ADMIN_PIN.into(),
            Purpose::ManagementKey => cards::MANAGEMENT_KEY.iter().map(|byte| format!("{byte:02x}")).collect(),
            _ => cards::PIN.into(),
        })
    }
}

fn within(people: &mut Given) -> Operation<'_> {
    Operation::within(Duration::from_secs(3600), people)
}

/// Makes a key.
fn key(backend: &'static str, curve: Curve, place: &str) -> Key {
    let (locator, public) = generate(&place.parse().unwrap(), &NewKey::new(curve), &mut within(&mut Given)).unwrap();
    (backend, locator, public)
}

/// The key of an OpenPGP card as OpenSC names it. Its module sees cards as they are when it first looks, so all keys must be made.
fn through_opensc(public: &PublicKey) -> Key {
    let keys = pkcs11::list(Path::new(OPENSC)).unwrap().into_iter().flat_map(|device| device.keys);
    let found = keys.filter(|key| key.public_key.as_ref() == Ok(public)).find_map(|key| key.locator);
    ("opensc", found.unwrap(), public.clone())
}

fn measure(criterion: &mut Criterion, curve: Curve, keys: &[Key]) {
    let mut group = criterion.benchmark_group(format!("agree/{curve}"));
    for (backend, locator, public) in keys.iter().filter(|(_, _, public)| public.curve() == curve) {
        let mut given = Given;
        let mut operation = within(&mut given);
        let mut token = open(locator, Some(public), KeepPin::Once, &mut operation).unwrap();
        // Its own key is as good a peer as any.
        group.bench_function(*backend, |bencher| {
            bencher.iter(|| token.agree(black_box(public), &mut operation).unwrap());
        });
    }
    let peer = PrivateKey::generate(if curve == Curve::X25519 { &X25519 } else { &ECDH_P256 }).unwrap();
    let public = PublicKey::new(curve, peer.compute_public_key().unwrap().as_ref()).unwrap();
    group.bench_function("check a peer's point", |bencher| {
        bencher.iter(|| PublicKey::new(curve, black_box(public.as_bytes())).unwrap());
    });
    group.finish();
}

fn agree(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().unwrap();
    let (softhsm, kryoptic) = (SoftHsm::new(), Kryoptic::new());
    let softhsm = softhsm.init_token("a", SO_PIN, cards::PIN);
    let kryoptic = kryoptic.init_token("b", SO_PIN, cards::PIN);
    let pcscd = Pcscd::start();
    let (yubikey, piv) = (Card::yubikey(&pcscd, 1), Card::piv(&pcscd, 2));
    // An OpenPGP card has one key that agrees.
    let openpgp = [Card::openpgp(&pcscd, 3), Card::openpgp(&pcscd, 4)];

    let mut keys = Vec::new();
    for (curve, slot, openpgp) in [(Curve::X25519, 0x82, &openpgp[0]), (Curve::P256, 0x9d, &openpgp[1])] {
        let object = curve.to_string();
        keys.push(key("software", curve, &format!("file:{}/{object}.pem", directory.path().display())));
        keys.push(key("softhsm", curve, &softhsm.uri(&object)));
        keys.push(key("kryoptic", curve, &kryoptic.uri(&object)));
        keys.push(key("openpgp", curve, &openpgp.locator()));
        keys.push(key("yubikey", curve, &yubikey.locator_at(slot)));
    }
    keys.push(key("piv", Curve::P256, &piv.locator()));
    let on_openpgp: Vec<_> = keys.iter().filter(|(backend, ..)| *backend == "openpgp").cloned().collect();
    keys.extend(on_openpgp.iter().map(|(_, _, public)| through_opensc(public)));
    #[cfg(feature = "tpm")]
    let swtpm = cards::Swtpm::start();
    #[cfg(feature = "tpm")]
    keys.push(key("tpm", Curve::P256, &format!("tpm2:0x81010042?tcti={}", swtpm.tcti())));

    for curve in [Curve::X25519, Curve::P256] {
        measure(criterion, curve, &keys);
    }
}

fn main() -> ExitCode {
    isolated_main(|| {
        let criterion = Criterion::default().sample_size(100).warm_up_time(Duration::from_secs(1));
        let mut criterion = criterion.measurement_time(Duration::from_secs(3)).configure_from_args();
        agree(&mut criterion);
        criterion.final_summary();
    })
}
