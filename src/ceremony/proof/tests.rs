use super::super::vectors::{BACKUP, CHALLENGE, COSIGNER, Vector, WALLET, agreed, forged, one_spelling, secret};
use super::*;
use crate::identity::ClientAuthKeys;

#[test]
fn one_spelling_of_each() {
    for vector in Vector::all() {
        one_spelling(vector.text("challenge"), |text| Challenge::from_text(text).is_ok());
        one_spelling(vector.text("proof_backup"), |text| Proof::from_text(text).is_ok());
    }
}

#[test]
fn the_longest_fit() {
    let [_, mut vector] = Vector::all();
    vector.challenge.verifier = "a".repeat(63).parse().unwrap();
    (vector.challenge.issued, vector.challenge.expires) = (MAX_TIME - 1, MAX_TIME);
    let text = vector.challenge.to_text();
    assert!(text.len() <= MAX_CHALLENGE_LEN, "{}", text.len());
    assert_eq!(Challenge::from_text(&text).unwrap(), vector.challenge);
    let prover = "a".repeat(63).parse().unwrap();
    let proof = Proof { challenge: [1; 16], prover, place: KeyPlace::Primary, mac: [2; 32] };
    assert!(proof.to_text().len() <= MAX_PROOF_LEN, "{}", proof.to_text().len());
    assert_eq!(Proof::from_text(&proof.to_text()).unwrap(), proof);
    assert!(Challenge::from_text(&"a".repeat(1 << 20)).is_err() && Proof::from_text(&"a".repeat(1 << 20)).is_err());
}

/// With a checksum that fits, so that it is the fields' own rules that refuse.
#[test]
fn misshapen_fields_are_refused() {
    let [vector, p256] = Vector::all();
    let text = vector.text("challenge");
    let key = vector.challenge.ephemeral.to_hex();
    for (from, to) in [
        ("challenge 1", "challenge 2"),
        ("challenge 1", "proof 1"),
        ("challenge: 10", "challenge: 1"),
        ("challenge: 10", "challenge: 1G"),
        ("plan: 00", "plan: "),
        ("plan: 000102030405060708090a0b0c0d0e0f", "plan: None"),
        ("verifier: wallet", "verifier: Wallet"),
        ("verifier: wallet", "verifier: "),
        ("curve: x25519", "curve: p256"),
        ("curve: x25519", "curve: ed25519"),
        (&key, &key.to_uppercase()),
        // A point of low order, and one that is not reduced.
        (&key, &"0".repeat(64)),
        (&key, "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
        (&key, "f0ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
        (&key, &p256.challenge.ephemeral.to_hex()),
        ("issued: 1", "issued: 01"),
        ("issued: 1", "issued: +1"),
        ("issued: 1795229250", "issued: 99999999999999999999"),
        ("issued: 1795229250", "issued: 1795232850"),
        ("issued: 1795229250", "issued: 0"),
        ("expires: 1795232850", "expires: 253402300800"),
        ("expires: 1795232850", "expires: 1795834051"),
        ("plan", "\nplan"),
        ("plan", "Plan"),
    ] {
        let error = Challenge::from_text(&forged(text, from, to)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ProofInvalid, "{to}: {error}");
    }
    // A week, to the second.
    assert!(Challenge::from_text(&forged(text, "expires: 1795232850", "expires: 1795834050")).is_ok());
    assert_eq!(Challenge::from_text(&forged(text, "000102030405060708090a0b0c0d0e0f", NONE)).unwrap().plan, None);
    let named = Challenge::from_text(&forged(text, "verifier: wallet", "verifier wallet")).unwrap_err();
    assert_eq!(named.to_string(), "Line 4 of the challenge is not `verifier: …`.");

    let text = vector.text("proof_primary");
    for (from, to) in [
        ("proof 1", "proof 2"),
        ("prover: cosigner", "prover: -"),
        ("key: primary", "key: both"),
        ("mac: ", "mac: 00"),
        ("mac: ", "mac:  "),
    ] {
        let error = Proof::from_text(&forged(text, from, to)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ProofInvalid, "{to}: {error}");
    }
}

#[test]
fn a_proof_is_for_one_challenge_one_card_one_key() {
    for vector in Vector::all() {
        let Vector { wallet, cosigner, challenge, .. } = &vector;
        let proof =
            Proof::new(challenge, cosigner, KeyPlace::Primary, &agreed(COSIGNER, &challenge.ephemeral)).unwrap();
        let verify = |proof: &Proof, challenge: &Challenge, card: &IdentityCard| {
            proof.verify(challenge, &secret(CHALLENGE), card).map_err(|error| error.kind())
        };
        assert_eq!(verify(&proof, challenge, cosigner), Ok(()));

        // Whatever of the challenge differs, so that a proof for one question is none for another.
        let changes: [fn(&mut Challenge); 6] = [
            |challenge| challenge.id[0] ^= 1,
            |challenge| challenge.plan = None,
            |challenge| challenge.plan = Some(Fingerprint::from_bytes([9; 16])),
            |challenge| challenge.verifier = "coordinator".parse().unwrap(),
            |challenge| challenge.issued -= 1,
            |challenge| challenge.expires += 1,
        ];
        for change in changes {
            let mut other = challenge.clone();
            change(&mut other);
            let mut moved = proof.clone();
            moved.challenge = other.id;
            assert_eq!(verify(&moved, &other, cosigner), Err(ErrorKind::ProofInvalid), "{other:?}");
        }
        // Another ephemeral key, whose secret the verifier has.
        let (other, other_secret) = Challenge::new(wallet, challenge.plan, 10, 20).unwrap();
        let mut moved = proof.clone();
        moved.challenge = other.id;
        assert!(moved.verify(&other, &other_secret, cosigner).is_err());

        // Whatever of the card differs: also what is no key.
        let changes: [fn(&mut IdentityCard); 5] = [
            |card| card.role = "wallet".parse().unwrap(),
            |card| card.client_auth = ClientAuthKeys::generate().unwrap().public,
            |card| card.backup = None,
            |card| card.suites = "AESGCM_SHA256".parse().unwrap(),
            |card| card.static_public = card.backup.as_ref().unwrap().static_public.clone(),
        ];
        for change in changes {
            let mut other = cosigner.clone();
            change(&mut other);
            assert_eq!(verify(&proof, challenge, &other), Err(ErrorKind::ProofInvalid), "{other:?}");
        }

        // In another's name, by the other key, and with any bit of the MAC changed.
        let mut other = proof.clone();
        other.prover = wallet.identifier.clone();
        assert!(verify(&other, challenge, cosigner).is_err() && verify(&other, challenge, wallet).is_err());
        let mut other = proof.clone();
        other.place = KeyPlace::Backup;
        assert!(verify(&other, challenge, cosigner).is_err());
        for bit in 0..256 {
            let mut other = proof.clone();
            other.mac[bit / 8] ^= 1 << (bit % 8);
            assert!(verify(&other, challenge, cosigner).is_err(), "bit {bit}");
        }
        // A token that is not the card's.
        for key in [WALLET, BACKUP, 77] {
            let other = Proof::new(challenge, cosigner, KeyPlace::Primary, &agreed(key, &challenge.ephemeral)).unwrap();
            assert!(verify(&other, challenge, cosigner).is_err(), "key {key}");
        }
        // A backup key that the card has not.
        let bare = IdentityCard { backup: None, ..cosigner.clone() };
        let other = Proof::new(challenge, &bare, KeyPlace::Backup, &agreed(BACKUP, &challenge.ephemeral)).unwrap();
        assert!(verify(&other, challenge, &bare).is_err());
    }
}

#[test]
fn challenges_are_new_each_time() {
    for Vector { wallet, cosigner, .. } in Vector::all() {
        let [(one, secret), (other, _)] = [(); 2].map(|()| Challenge::new(&wallet, None, 1_000, 2_000).unwrap());
        assert!(one.id != other.id && one.ephemeral != other.ephemeral);
        assert_eq!(Challenge::from_text(&one.to_text()).unwrap(), one);
        let proof = Proof::new(&one, &cosigner, KeyPlace::Primary, &agreed(COSIGNER, &one.ephemeral)).unwrap();
        proof.verify(&one, &secret, &cosigner).unwrap();
        for (issued, expires) in [(5, 5), (5, 4), (0, MAX_VALID + 1), (u64::MAX - 1, u64::MAX)] {
            assert!(Challenge::new(&wallet, None, issued, expires).is_err(), "{issued} to {expires}");
        }
    }
}

#[test]
fn curves_are_not_mixed() {
    let [x25519, p256] = Vector::all();
    let proof = Proof::from_text(x25519.text("proof_primary")).unwrap();
    let refused = proof.verify(&p256.challenge, &secret(CHALLENGE), &x25519.cosigner).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ProofInvalid);
}
