//! The two Python libraries against each other: what later speaks with claviger speaks Noise.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use claviger_testkit::pynoise::{Error, ErrorKind, Library, PyPeer, PySpec, Role};
use data_encoding::HEXLOWER;

// Private and public key.
const ALICE: ([u8; 32], &str) = ([0x11; 32], "7b4e909bbe7ffe44c465a220037d608ee35897d31ef972f07f74892cb0f73f13");
const BOB: ([u8; 32], &str) = ([0x22; 32], "0faa684ed28867b97f4a6a2dee5df8ce974e76b7018e3f22a1c4cf2678570f20");

fn key(hex: &str) -> [u8; 32] {
    HEXLOWER.decode(hex.as_bytes()).unwrap().try_into().unwrap()
}

/// Alice initiates with one library and prologue, Bob responds with another.
fn meet(name: &str, alice: (Library, &[u8]), bob: (Library, &[u8])) -> [Result<[u8; 32], Error>; 2] {
    let known = name.starts_with("Noise_KK");
    let responder = PyPeer::spawn(&PySpec {
        library: bob.0,
        role: Role::Responder,
        protocol_name: name,
        kind: 0,
        secret: None,
        prologue: bob.1,
        static_private: &BOB.0,
        remote_public: known.then_some(&key(ALICE.1)),
        connect: None,
    })
    .unwrap();
    let initiator = PyPeer::spawn(&PySpec {
        library: alice.0,
        role: Role::Initiator,
        protocol_name: name,
        kind: 0,
        secret: None,
        prologue: alice.1,
        static_private: &ALICE.0,
        remote_public: Some(&key(BOB.1)),
        connect: Some(responder.addr().port()),
    })
    .unwrap();
    [initiator.finish(), responder.finish()]
}

#[test]
fn the_libraries_agree_in_both_roles() {
    use Library::{Dissononce, NoiseProtocol};
    for pattern in ["KK", "XK"] {
        for suite in ["ChaChaPoly_BLAKE2s", "AESGCM_SHA256"] {
            let name = format!("Noise_{pattern}_25519_{suite}");
            for (initiator, responder) in [(NoiseProtocol, Dissononce), (Dissononce, NoiseProtocol)] {
                let hashes = meet(&name, (initiator, b"prologue"), (responder, b"prologue"));
                let [Ok(alice), Ok(bob)] = hashes else { panic!("{name}, {initiator:?} initiates: {hashes:#?}") };
                assert_eq!(alice, bob, "{name}, {initiator:?} initiates");
            }
        }
    }
    for suite in ["ChaChaPoly_BLAKE2s", "AESGCM_SHA256"] {
        let name = format!("Noise_KK1_25519_{suite}");
        let [alice, bob] = meet(&name, (Dissononce, b""), (Dissononce, b"")).map(Result::unwrap);
        assert_eq!(alice, bob, "{name}");
    }
}

#[test]
fn another_prologue_is_a_failure_to_decrypt() {
    let name = "Noise_KK_25519_ChaChaPoly_BLAKE2s";
    let [alice, bob] = meet(name, (Library::NoiseProtocol, b"one"), (Library::Dissononce, b"two"));
    let (alice, bob) = (alice.unwrap_err(), bob.unwrap_err());
    assert_eq!((alice.kind(), bob.kind()), (ErrorKind::Peer, ErrorKind::Peer));
    assert!(bob.to_string().contains("DecryptFailed"), "{bob}");
}

#[test]
fn a_protocol_that_a_library_lacks_is_refused() {
    let spec = PySpec {
        library: Library::Dissononce,
        role: Role::Responder,
        protocol_name: "Noise_KK_P256_ChaChaPoly_BLAKE2s",
        kind: 0,
        secret: None,
        prologue: b"",
        static_private: &BOB.0,
        remote_public: None,
        connect: None,
    };
    let error = PyPeer::spawn(&spec).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Peer);
    assert!(error.to_string().contains("is not supported"), "{error}");
}
