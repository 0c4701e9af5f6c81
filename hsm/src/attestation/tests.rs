//! Real certificates of real devices (`tests/data/attestation`), and generated ones for what those do not show.

use claviger_testkit::attestation::{Signer, Template};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::*;

fn chain(pem: &str) -> Vec<Vec<u8>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).map(|der| der.unwrap().to_vec()).collect()
}

macro_rules! sample {
    ($format:ident, $name:literal) => {
        Evidence {
            format: Format::$format,
            chain: chain(include_str!(concat!("../../tests/data/attestation/", $name, ".pem"))),
        }
    };
}

fn new() -> Evidence {
    sample!(YubicoPiv, "piv-5.7.4-slot-82-p384")
}

fn old() -> Evidence {
    sample!(YubicoPiv, "piv-5.4.3-slot-9a-p256")
}

/// Its factory certificate is not marked as a signer's.
fn unmarked() -> Evidence {
    sample!(YubicoPiv, "piv-5.2.4-slot-93-p384")
}

fn key(curve: Curve) -> PublicKey {
    crate::curve::SoftKey::generate(curve).unwrap().public().clone()
}

/// The sentence by which `evidence` is refused.
fn refusal<T>(result: Result<T>) -> String {
    let error = result.err().expect("it was taken");
    assert_eq!(error.kind(), ErrorKind::Attestation);
    error.to_string()
}

#[test]
fn what_real_devices_state() {
    for (evidence, place, agrees, verdict) in [
        (
            new(),
            "PIV slot 82",
            true,
            "Yubico, serial 33162554, firmware 5.7.4, PIN never, touch always, up to Yubico Attestation Root 1",
        ),
        (
            unmarked(),
            "PIV slot 93",
            true,
            "Yubico, serial 11778047, firmware 5.2.4, PIN never, touch cached, up to Yubico PIV Root CA Serial 263751",
        ),
        (
            old(),
            "PIV slot 9a",
            false,
            "Yubico, serial 15732500, firmware 5.4.3, PIN once, touch never, up to Yubico PIV Root CA Serial 263751",
        ),
    ] {
        let statement = read(&evidence, &Roots::makers()).unwrap();
        assert_eq!(
            (statement.place.as_str(), statement.agrees, statement.verdict.to_string().as_str()),
            (place, agrees, verdict)
        );
        assert_eq!(statement.verdict.maker, Some("Yubico"));
    }
    assert_eq!(read(&new(), &Roots::makers()).unwrap().verdict.form_factor, Some("USB-C keychain"));
}

/// No OpenPGP chain of a real device is public without its owner's name; the statement alone is, and is read up to the missing signer.
#[test]
fn a_real_openpgp_statement() {
    let evidence = sample!(YubicoOpenPgp, "openpgp-5.7.4-dec-x25519");
    assert!(refusal(read(&evidence, &Roots::makers())).contains("no root that is trusted here"));
    use x509_cert::der::{Decode, Encode};
    let leaf = x509_cert::Certificate::from_der(&evidence.chain[0]).unwrap();
    let key = leaf.tbs_certificate.subject_public_key_info.to_der().unwrap();
    let path = path::Path { leaf, key: key.clone(), maker: None, root: "none".into() };
    let statement = yubico::statement(Format::YubicoOpenPgp, &path).unwrap();
    assert_eq!((statement.place.as_str(), statement.agrees), ("the OpenPGP key DEC", true));
    assert_eq!(
        statement.verdict.to_string(),
        "no known maker, serial 35718625, firmware 5.7.4, touch never (can be changed), up to none"
    );
    let public = PublicKey::new(Curve::X25519, &key[12..]).unwrap();
    assert_eq!(subject_public_key_info(&public), key);
    assert!(refusal(yubico::statement(Format::YubicoPiv, &path)).contains("names no PIV slot"));
}

#[test]
fn a_real_key_that_does_not_agree_is_refused() {
    let evidence = old();
    let stated = read(&evidence, &Roots::makers()).unwrap().key;
    let public = PublicKey::new(Curve::P256, &stated[26..]).unwrap();
    assert_eq!(subject_public_key_info(&public), stated);
    assert!(refusal(verify(&evidence, &public, &Roots::makers())).contains("PIV slot 9a, whose keys do not agree"));
    for other in [key(Curve::P256), key(Curve::X25519)] {
        assert!(refusal(verify(&evidence, &other, &Roots::makers())).contains("about another key"));
        assert!(refusal(verify(&new(), &other, &Roots::makers())).contains("about another key"));
    }
}

#[test]
fn every_changed_byte_of_real_chains_is_found() {
    let roots = Roots::makers();
    for evidence in [old(), new(), unmarked()] {
        for at in 0..evidence.chain.len() {
            for byte in 0..evidence.chain[at].len() {
                for change in [1, 0x80] {
                    let mut changed = evidence.clone();
                    changed.chain[at][byte] ^= change;
                    refusal(read(&changed, &roots).map(drop));
                }
            }
        }
    }
}

#[test]
fn cut_swapped_and_oversized_chains_are_refused() {
    let roots = Roots::makers();
    let good = new();
    for cut in 0..good.chain[0].len() {
        let mut changed = good.clone();
        changed.chain[0].truncate(cut);
        refusal(read(&changed, &roots).map(drop));
    }
    let with = |change: fn(&mut Vec<Vec<u8>>)| {
        let mut changed = good.clone();
        change(&mut changed.chain);
        refusal(read(&changed, &roots).map(drop))
    };
    assert!(with(Vec::clear).contains("has 0 certificates"));
    assert!(with(|chain| chain.truncate(1)).contains("no root"));
    assert!(with(|chain| chain.reverse()).contains("that of a signer"));
    assert!(with(|chain| chain.resize(5, vec![0x30, 0])).contains("has 5 certificates"));
    assert!(with(|chain| chain[0].resize(3073, 0)).contains("3073 bytes"));
    assert!(with(|chain| chain[0].push(0)).contains("malformed"));
    with(|chain| chain[1] = old().chain[1].clone());
}

#[test]
fn only_the_right_roots_count() {
    assert!(refusal(read(&old(), &Roots::default()).map(drop)).contains("no root that is trusted here"));
    // A root of the same name is not the root.
    let mut roots = Roots::default();
    roots.with_pem(Signer::root("Yubico PIV Root CA Serial 263751").pem().as_bytes()).unwrap();
    refusal(read(&old(), &roots).map(drop));
    // The root for OpenPGP signs no PIV chain, and the other way round.
    for mut evidence in [old(), new()] {
        evidence.format = Format::YubicoOpenPgp;
        refusal(read(&evidence, &Roots::makers()).map(drop));
    }
    // Certified under the root for U2F, as some devices before 2018 were. Its signer is no authority.
    let early = sample!(YubicoPiv, "piv-4.3.7-slot-9a-p256");
    refusal(read(&early, &Roots::makers()).map(drop));
}

/// The mark is forgiven to a device that the maker certified, and to nobody else.
#[test]
fn a_signer_without_the_mark_stands_directly_under_the_makers_old_root() {
    let roots = Roots::makers();
    read(&unmarked(), &roots).unwrap();
    // The same root, named by its owner instead of shipped.
    let mut added = Roots::default();
    added.with_pem(include_bytes!("../../roots/yubico-piv-root-ca-serial-263751.pem")).unwrap();
    assert!(refusal(read(&unmarked(), &added).map(drop)).contains("not marked as a signer's"));
    // What the device has signed signs nothing, however deep.
    let [leaf, signer] = <[Vec<u8>; 2]>::try_from(unmarked().chain).unwrap();
    for chain in
        [vec![new().chain[0].clone(), leaf.clone(), signer.clone()], vec![leaf.clone(), leaf.clone(), signer.clone()]]
    {
        refusal(read(&Evidence { chain, ..unmarked() }, &roots).map(drop));
    }
    // A statement that the device did not sign.
    for other in [old(), new()] {
        refusal(
            read(&Evidence { chain: vec![other.chain[0].clone(), signer.clone()], ..unmarked() }, &roots).map(drop),
        );
    }
    // A root of the same name, and a signer below it.
    let root = Signer::root("Yubico PIV Root CA Serial 263751");
    let device = root.below_as(|own| Signer::authority("Yubico PIV Attestation", own, None).without("2.5.29.19"));
    let key = key(Curve::P256);
    let chain = vec![device.sign(&Template::piv(0x9d, key.as_bytes())), device.der.clone()];
    let evidence = Evidence { format: Format::YubicoPiv, chain };
    refusal(verify(&evidence, &key, &roots));
    added.with_pem(root.pem().as_bytes()).unwrap();
    assert!(refusal(verify(&evidence, &key, &added)).contains("not marked as a signer's"));
}

#[test]
fn shipped_certificates_hold() {
    for format in [Format::YubicoPiv, Format::YubicoOpenPgp] {
        let roots = Roots::makers();
        assert_eq!(roots.of(format).unwrap().len(), 2);
        assert_eq!(roots.between(format).unwrap().len(), 5);
        assert!(
            Roots::default().of(format).unwrap().is_empty() && Roots::default().between(format).unwrap().is_empty()
        );
    }
}

/// A maker of the tests: root, authority, device.
struct Maker {
    root: Signer,
    authority: Signer,
    device: Signer,
}

impl Maker {
    fn new() -> Self {
        let root = Signer::root("Test Root");
        let authority = root.below("Test Authority", Some(1));
        let device = authority.below("Test Device", Some(0));
        Self { root, authority, device }
    }

    fn roots(&self) -> Roots {
        let mut roots = Roots::makers();
        roots.with_pem(self.root.pem().as_bytes()).unwrap();
        roots
    }

    fn evidence(&self, format: Format, template: &Template) -> Evidence {
        Evidence {
            format,
            chain: vec![self.device.sign(template), self.device.der.clone(), self.authority.der.clone()],
        }
    }

    fn piv(&self, template: &Template, key: &PublicKey) -> Result<Verdict> {
        verify(&self.evidence(Format::YubicoPiv, template), key, &self.roots())
    }

    fn openpgp(&self, template: &Template, key: &PublicKey) -> Result<Verdict> {
        verify(&self.evidence(Format::YubicoOpenPgp, template), key, &self.roots())
    }
}

#[test]
fn both_forms_over_both_curves() {
    let maker = Maker::new();
    for curve in [Curve::X25519, Curve::P256] {
        let key = key(curve);
        for slot in [0x9d, 0x82, 0x95] {
            let verdict = maker.piv(&Template::piv(slot, key.as_bytes()), &key).unwrap();
            assert_eq!(
                verdict.to_string(),
                "no known maker, serial 12345678, firmware 5.7.1, PIN once, touch always, up to Test Root"
            );
        }
        for slot in [0x9a, 0x9c, 0x9e, 0xf9, 0x81, 0x96] {
            assert!(refusal(maker.piv(&Template::piv(slot, key.as_bytes()), &key)).contains("do not agree"));
        }
        for (uif, touch) in [
            (0, "touch never (can be changed)"),
            (1, "touch always (can be changed)"),
            (2, "touch always"),
            (3, "touch cached (can be changed)"),
            (4, "touch cached"),
            (9, "touch unknown"),
        ] {
            let verdict = maker.openpgp(&Template::openpgp("DEC", key.as_bytes(), uif), &key).unwrap();
            let line = format!("no known maker, serial 12345678, firmware 5.7.1, {touch}, up to Test Root");
            assert_eq!(verdict.to_string(), line);
        }
        for place in ["SIG", "AUT"] {
            let template = Template::openpgp(place, key.as_bytes(), 0);
            assert!(refusal(maker.openpgp(&template, &key)).contains("do not agree"));
        }
    }
}

#[test]
fn statements_that_do_not_say_enough_are_refused() {
    let maker = Maker::new();
    let key = key(Curve::X25519);
    let piv = || Template::piv(0x9d, key.as_bytes());
    let openpgp = || Template::openpgp("DEC", key.as_bytes(), 2);
    let firmware = "1.3.6.1.4.1.41482.3.3";
    for (template, why) in [
        (piv().without(firmware), "does not tell the key's firmware"),
        (piv().with(firmware, &[5, 7]), "the firmware in it is malformed"),
        (piv().without("1.3.6.1.4.1.41482.3.8"), "does not tell the key's policies"),
        (piv().with("1.3.6.1.4.1.41482.3.8", &[2]), "the policy in it is malformed"),
        (piv().with("1.3.6.1.4.1.41482.3.7", &[2, 1, 0x80]), "a number in it is malformed"),
        (piv().with("1.3.6.1.4.1.41482.3.7", &[2, 5, 1, 0, 0, 0, 0]), "a number in it is malformed"),
        (piv().with("1.3.6.1.4.1.41482.3.9", &[]), "the form factor in it is malformed"),
        (Template { subject: "YubiKey PIV Attestation 9D".into(), ..piv() }, "names no PIV slot"),
        (Template { subject: "YubiKey PIV Attestation +d".into(), ..piv() }, "names no PIV slot"),
        (Template { subject: "Yubikey PIV Attestation 9d".into(), ..piv() }, "names no PIV slot"),
    ] {
        let said = refusal(maker.piv(&template, &key));
        assert!(said.contains(why), "{said}");
    }
    for (template, why) in [
        (openpgp().with("1.3.6.1.4.1.41482.5.2", &[2, 1, 0]), "was imported into the device"),
        (openpgp().with("1.3.6.1.4.1.41482.5.2", &[2, 1, 2]), "does not tell the key's origin"),
        (openpgp().without("1.3.6.1.4.1.41482.5.2"), "does not tell the key's origin"),
        (openpgp().with("1.3.6.1.4.1.41482.5.8", &[2]), "a value in it is malformed"),
        (openpgp().with("1.3.6.1.4.1.41482.5.8", &[4, 2, 1, 1]), "the touch policy in it is malformed"),
        (Template { subject: "YubiKey OPGP Attestation ENC".into(), ..openpgp() }, "names no OpenPGP key"),
    ] {
        let said = refusal(maker.openpgp(&template, &key));
        assert!(said.contains(why), "{said}");
    }
    let mut twice = piv();
    twice.extensions.push((firmware, false, vec![5, 7, 2]));
    assert!(refusal(maker.piv(&twice, &key)).contains("stands twice"));
    let mut critical = piv();
    critical.extensions.push(("1.2.3.4", true, vec![5, 0]));
    assert!(refusal(maker.piv(&critical, &key)).contains("critical extension"));
    // What is known as something else may be missing or new.
    let plain = maker.piv(&piv().without("1.3.6.1.4.1.41482.3.7").without("1.3.6.1.4.1.41482.3.9"), &key).unwrap();
    assert_eq!((plain.serial, plain.form_factor), (None, None));
    let later = maker.piv(&piv().with("1.3.6.1.4.1.41482.3.8", &[9, 9]).with("1.3.6.1.4.1.41482.3.99", b"x"), &key);
    assert_eq!((later.as_ref().unwrap().pin, later.unwrap().touch), (None, Touch::Unknown));
}

#[test]
fn signers_that_may_not_sign_are_refused() {
    let key = key(Curve::P256);
    let statement = Template::piv(0x9d, key.as_bytes());
    let root = Signer::root("Test Root");
    let mut roots = Roots::makers();
    roots.with_pem(root.pem().as_bytes()).unwrap();
    let tried = |signers: &[&Signer]| {
        let last = signers[signers.len() - 1];
        let chain = std::iter::once(last.sign(&statement)).chain(signers.iter().rev().map(|signer| signer.der.clone()));
        verify(&Evidence { format: Format::YubicoPiv, chain: chain.collect() }, &key, &roots)
    };
    tried(&[&root.below("Device", None)]).unwrap();
    let no_authority = root.below_as(|own| Signer::authority("Device", own, None).without("2.5.29.19"));
    assert!(refusal(tried(&[&no_authority])).contains("not marked as a signer's"));
    // KeyUsage digitalSignature only.
    let no_signing = root.below_as(|own| Signer::authority("Device", own, None).with("2.5.29.15", &[3, 2, 7, 0x80]));
    assert!(refusal(tried(&[&no_signing])).contains("may not"));
    let short = root.below("Authority", Some(0));
    assert!(refusal(tried(&[&short, &short.below("Device", None)])).contains("may not"));
    let past = root.below_as(|own| Template { years: (2000, 2010), ..Signer::authority("Device", own, None) });
    assert!(refusal(tried(&[&past])).contains("never valid at the same time"));
    // Signed by another of the same name.
    let device = root.below("Device", None);
    let chain = vec![root.below("Device", None).sign(&statement), device.der.clone()];
    let evidence = Evidence { format: Format::YubicoPiv, chain };
    assert!(refusal(verify(&evidence, &key, &roots)).contains("signature in it is wrong"));
}

#[test]
fn a_root_limits_its_paths() {
    let (key, maker) = (key(Curve::P256), Maker::new());
    let evidence = maker.evidence(Format::YubicoPiv, &Template::piv(0x9d, key.as_bytes()));
    // The authority as a root of its own: one may stand below it, and one does.
    let mut roots = Roots::default();
    let pem = maker.authority.pem();
    roots.with_pem(pem.as_bytes()).unwrap();
    assert_eq!(verify(&evidence, &key, &roots).unwrap().root, "Test Authority");
    let device = maker.device.below("Below", None);
    let chain = vec![device.sign(&Template::piv(0x9d, key.as_bytes())), device.der.clone(), maker.device.der.clone()];
    assert!(refusal(verify(&Evidence { format: Format::YubicoPiv, chain }, &key, &roots)).contains("may not"));
}

#[test]
fn added_roots_are_looked_at() {
    let mut roots = Roots::default();
    let root = Signer::root("Test\u{1b}[2J Root");
    for (pem, why) in [
        (String::new(), "no certificate"),
        ("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n".into(), "is malformed"),
        ("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n".into(), "not PEM"),
        (include_str!("../../tests/data/attestation/openpgp-5.7.4-dec-x25519.pem").into(), "may not sign"),
        (root.pem().repeat(17), "more than 16"),
        (" ".repeat(Roots::MAX_PEM + 1), "longer than 128 KiB"),
    ] {
        let said = refusal(roots.with_pem(pem.as_bytes()));
        assert!(said.contains(why), "{said}");
    }
    let key = key(Curve::P256);
    let device = root.below("Device", None);
    let chain = vec![device.sign(&Template::piv(0x9d, key.as_bytes())), device.der.clone()];
    let evidence = Evidence { format: Format::YubicoPiv, chain };
    refusal(verify(&evidence, &key, &roots));
    roots.with_pem(root.pem().repeat(16).as_bytes()).unwrap();
    assert_eq!(verify(&evidence, &key, &roots).unwrap().root, "Test [2J Root");
    assert!(refusal(roots.with_pem(root.pem().as_bytes())).contains("more than 16"));
}
