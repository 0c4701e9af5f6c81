//! One agree, by backend and curve: what a handshake waits for.

// A benchmark that cannot set up its tokens ends, as a test does.
#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;
use std::process::ExitCode;
use std::time::Duration;

use aws_lc_rs::agreement::{ECDH_P256, PrivateKey, X25519};
use claviger_hsm::{
    Curve, KeepPin, Locator, NewKey, Operation, Pin, PinEntry, PinRequest, PublicKey, Result, generate, open,
};
use claviger_testkit::token::{Kryoptic, PIN, SO_PIN, SoftHsm, isolated_main};
use criterion::Criterion;

struct Given;

impl PinEntry for Given {
    fn pin(&mut self, _: &PinRequest<'_>) -> Result<Pin> {
        Pin::new(PIN.into())
    }
}

fn agree(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().unwrap();
    let (softhsm, kryoptic) = (SoftHsm::new(), Kryoptic::new());
    let (softhsm, kryoptic) = (softhsm.init_token("a", SO_PIN, PIN), kryoptic.init_token("b", SO_PIN, PIN));
    #[cfg(feature = "tpm")]
    let swtpm = claviger_testkit::cards::Swtpm::start();
    for curve in [Curve::X25519, Curve::P256] {
        let object = curve.to_string();
        let file = Locator::File(directory.path().join(format!("{object}.pem")));
        #[cfg_attr(not(feature = "tpm"), allow(unused_mut))]
        let mut locators: Vec<(&str, Locator)> = vec![
            ("softhsm", softhsm.uri(&object).parse().unwrap()),
            ("kryoptic", kryoptic.uri(&object).parse().unwrap()),
            ("software", file),
        ];
        #[cfg(feature = "tpm")]
        if curve == Curve::P256 {
            locators.push(("tpm", format!("tpm2:0x81010042?tcti={}", swtpm.tcti()).parse().unwrap()));
        }
        let mut group = criterion.benchmark_group(format!("agree/{curve}"));
        for (backend, locator) in locators {
            let mut given = Given;
            let mut operation = Operation::within(Duration::from_secs(3600), &mut given);
            let (locator, public) = generate(&locator, &NewKey::new(curve), &mut operation).unwrap();
            let mut token = open(&locator, Some(&public), KeepPin::Once, &mut operation).unwrap();
            // Its own key is as good a peer as any.
            group.bench_function(backend, |bencher| {
                bencher.iter(|| token.agree(black_box(&public), &mut operation).unwrap());
            });
        }
        let peer = PrivateKey::generate(if curve == Curve::X25519 { &X25519 } else { &ECDH_P256 }).unwrap();
        let public = PublicKey::new(curve, peer.compute_public_key().unwrap().as_ref()).unwrap();
        group.bench_function("check a peer's point", |bencher| {
            bencher.iter(|| PublicKey::new(curve, black_box(public.as_bytes())).unwrap());
        });
        group.finish();
    }
}

fn main() -> ExitCode {
    isolated_main(|| {
        let mut criterion = Criterion::default().configure_from_args().sample_size(200);
        agree(&mut criterion);
        criterion.final_summary();
    })
}
