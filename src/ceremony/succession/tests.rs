use super::super::vectors::{BACKUP, COSIGNER, Vector, WALLET, agreed, forged, one_spelling};
use super::*;
use crate::identity::{Attestation, AttestationFormat};

fn next(vector: &Vector) -> IdentityCard {
    IdentityCard::from_text(vector.text("next")).unwrap()
}

#[test]
fn one_spelling_of_it() {
    let [vector, _] = Vector::all();
    one_spelling(vector.text("succession"), |text| Succession::from_text(text).is_ok());
}

#[test]
fn an_overlap_is_bounded() {
    let [vector, _] = Vector::all();
    let until = |until| Succession::new(&vector.cosigner, KeyPlace::Primary, next(&vector), until);
    let most = MAX_OVERLAP.as_secs() + DAY;
    assert_eq!(most, 7_862_400);
    for (time, now, bounded) in [(0, 0, true), (most, 0, true), (most + 1, 0, false), (most + 1, 1, true), (5, 9, true)]
    {
        assert_eq!(until(time).is_bounded(now), bounded, "until {time}, at {now}");
    }
    assert!(until(u64::MAX).is_bounded(u64::MAX) && !until(u64::MAX).is_bounded(1_800_000_000));
}

#[test]
fn the_longest_fits() {
    let [_, vector] = Vector::all();
    let chain = vec![vec![1; Attestation::MAX_CERTIFICATE]; Attestation::MAX_CHAIN];
    let attestation = Some(Attestation::new(AttestationFormat::YubicoOpenPgp, chain).unwrap());
    let mut card = vector.cosigner.clone();
    card.backup.as_mut().unwrap().attestation = attestation.clone();
    card = IdentityCard { attestation, role: "a".repeat(63).parse().unwrap(), ..card };
    let mut longest = Succession::new(&vector.cosigner, KeyPlace::Backup, card, u64::MAX);
    let shared = agreed(WALLET, &vector.cosigner.static_public);
    for number in 0..MAX_MACS {
        let peer = format!("{}{number:03}", "a".repeat(60)).parse().unwrap();
        longest.vouch(&peer, KeyPlace::Primary, &shared).unwrap();
    }
    assert!(longest.vouch(&"b".parse().unwrap(), KeyPlace::Primary, &shared).is_err(), "one too many");
    let text = longest.to_text();
    assert!(text.len() <= MAX_SUCCESSION_LEN, "{}", text.len());
    assert_eq!(Succession::from_text(&text).unwrap(), longest);
}

#[test]
fn misshapen_fields_are_refused() {
    let [vector, _] = Vector::all();
    let text = vector.text("succession");
    let card_sum = text.lines().find(|line| line.starts_with("card: checksum")).unwrap();
    let mac = text.lines().find(|line| line.starts_with("mac: ")).unwrap();
    let twice = format!("macs: 2\n{mac}\n{mac}");
    let disordered = format!("macs: 2\n{mac}\n{}", mac.replace("wallet", "a"));
    for (from, to) in [
        ("succession 1", "succession 2"),
        ("former: ", "former: 00"),
        ("by: backup", "by: Backup"),
        ("until: 1", "until: 01"),
        ("until: 1795232850", "until: 253402300800"),
        ("card: role: cosigner", "card: role: wallet"),
        ("card: role: cosigner\n", ""),
        (card_sum, "card: checksum: 0000000000000000"),
        ("macs: 1", "macs: 0"),
        ("macs: 1", "macs: 2"),
        ("macs: 1", "macs: 4000000000"),
        ("macs: 1", "macs: -1"),
        ("mac: wallet primary", "mac: wallet"),
        ("mac: wallet primary", "mac: wallet  primary"),
        ("mac: wallet primary", "mac: wallet primary 00"),
        (&format!("macs: 1\n{mac}"), &twice),
        (&format!("macs: 1\n{mac}"), &disordered),
    ] {
        let error = Succession::from_text(&forged(text, from, to)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::SuccessionInvalid, "{to}: {error}");
    }
    let none = forged(&forged(text, &format!("{mac}\n"), ""), "macs: 1", "macs: 0");
    assert_eq!(Succession::from_text(&none).unwrap().macs, []);
}

#[test]
fn only_the_present_key_vouches() {
    for vector in Vector::all() {
        let Vector { wallet, cosigner, challenge, .. } = &vector;
        let own = (&wallet.identifier, KeyPlace::Primary);
        let theirs = agreed(WALLET, &cosigner.static_public);
        let made = |change: fn(&mut Succession), key: u8| {
            let mut made = Succession::new(cosigner, KeyPlace::Primary, next(&vector), challenge.expires);
            change(&mut made);
            made.vouch(own.0, own.1, &agreed(key, &wallet.static_public)).unwrap();
            made
        };
        let good = made(|_| {}, COSIGNER);
        good.verify(cosigner, own, &theirs).unwrap();
        let refused = |succession: &Succession, former: &IdentityCard, own, agreed: &SharedSecret| {
            let error = succession.verify(former, own, agreed).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::SuccessionInvalid, "{error}");
        };
        // By the backup key in the primary's name, by the key that comes next, and by a stranger's.
        for key in [BACKUP, 5, 77] {
            refused(&made(|_| {}, key), cosigner, own, &theirs);
        }
        // Of another card, or none: also one that the vouching key itself made.
        refused(&made(|made| made.former[0] ^= 1, COSIGNER), cosigner, own, &theirs);
        refused(&good, &next(&vector), own, &theirs);
        refused(&made(|made| made.card.identifier = "wallet-2".parse().unwrap(), COSIGNER), cosigner, own, &theirs);
        let same = Succession::new(cosigner, KeyPlace::Primary, cosigner.clone(), challenge.expires);
        refused(&same, cosigner, own, &theirs);
        let bare = IdentityCard { backup: None, ..cosigner.clone() };
        let backup = Succession::new(&bare, KeyPlace::Backup, next(&vector), challenge.expires);
        refused(&backup, &bare, own, &theirs);
        // For another key of this machine, or another machine.
        refused(&good, cosigner, (own.0, KeyPlace::Backup), &theirs);
        let watchtower = "watchtower".parse().unwrap();
        refused(&good, cosigner, (&watchtower, KeyPlace::Primary), &theirs);
        let mut renamed = good.clone();
        renamed.macs[0].peer = watchtower.clone();
        refused(&renamed, cosigner, (&watchtower, KeyPlace::Primary), &theirs);
        // Whatever is changed afterwards.
        let changes: [fn(&mut Succession); 5] = [
            |made| made.by = KeyPlace::Backup,
            |made| made.until += 1,
            |made| made.card.role = "wallet".parse().unwrap(),
            |made| made.card.suites = "AESGCM_SHA256".parse().unwrap(),
            |made| made.macs[0].mac[31] ^= 1,
        ];
        for change in changes {
            let mut changed = good.clone();
            change(&mut changed);
            refused(&changed, cosigner, own, &theirs);
        }
    }
}

#[test]
fn macs_are_ordered_and_replaced() {
    let [vector, _] = Vector::all();
    let mut succession = Succession::new(&vector.cosigner, KeyPlace::Primary, next(&vector), 7);
    let shared = agreed(COSIGNER, &vector.wallet.static_public);
    for (peer, place) in
        [("b", KeyPlace::Backup), ("b", KeyPlace::Primary), ("a", KeyPlace::Primary), ("b", KeyPlace::Backup)]
    {
        succession.vouch(&peer.parse().unwrap(), place, &shared).unwrap();
    }
    let order: Vec<String> = succession.macs.iter().map(|mac| format!("{} {}", mac.peer, mac.place)).collect();
    assert_eq!(order, ["a primary", "b primary", "b backup"]);
    assert_eq!(Succession::from_text(&succession.to_text()).unwrap(), succession);
}
