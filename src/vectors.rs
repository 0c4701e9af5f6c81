//! Our own vectors, made from `docs/wire-format.md` by `tests/vectors/check.py` and by nothing of this library.

use crate::ceremony::preshared;
use crate::identity::{Curve, Fingerprint, IdentityCard, Kem, OnionAddress, StaticPublic};
use crate::noise::knock;
use crate::wire::{Ends, Pattern, prologue};
use data_encoding::HEXLOWER;
use serde_json::Value;

fn hex(value: &Value) -> Vec<u8> {
    HEXLOWER.decode(value.as_str().unwrap().as_bytes()).unwrap()
}

#[test]
fn the_document_and_the_library_agree() {
    let file: Value = serde_json::from_str(include_str!("../tests/vectors/claviger.json")).unwrap();
    let [initiator, responder] =
        ["initiator", "responder"].map(|name| StaticPublic::new(Curve::X25519, &hex(&file[name])).unwrap());
    let onion_address = OnionAddress::from_public_key(hex(&file["onion_public_key"]).try_into().unwrap());

    let made = &file["knock"];
    let key = knock::key(&initiator, &responder);
    let packet = knock::packet(&key, Pattern::Kk.into(), made["time_ms"].as_u64().unwrap(), &hex(&made["message"]));
    assert_eq!(packet, hex(&made["packet"]));

    let ends = Ends {
        initiator: &"wallet".parse().unwrap(),
        initiator_role: &"signer".parse().unwrap(),
        responder: &"cosigner".parse().unwrap(),
        responder_role: &"cosigner".parse().unwrap(),
        onion_address: &onion_address,
        port: 4747,
    };
    assert_eq!(prologue(Pattern::Kk.into(), &ends), hex(&file["prologue"]));

    for (vector, kem) in [(&file["card"], None), (&file["card_with_kem"], Some(Kem::MlKem768))] {
        let text = vector["text"].as_str().unwrap();
        let card = IdentityCard::from_text(text).unwrap();
        assert_eq!((card.to_text().as_str(), card.onion_address, card.kem), (text, onion_address, kem));
        let print = card.fingerprint();
        assert_eq!(print.as_bytes()[..], hex(&vector["fingerprint"]));
        let list = bip39::Language::English.word_list();
        let numbers = vector["word_numbers"].as_array().unwrap();
        let words: Vec<&str> = numbers.iter().map(|number| list[number.as_u64().unwrap() as usize]).collect();
        assert_eq!(print.words(), words.join(" "));
    }
    let (text, check) = (file["preshared_key"]["text"].as_str().unwrap(), &file["preshared_key"]["check"]);
    let key = preshared::from_text(text).unwrap();
    assert_eq!(
        (preshared::to_text(&key).as_str(), preshared::check_value(&key)),
        (text, check.as_str().unwrap().into())
    );
    assert_eq!(Fingerprint::of_key(&responder).as_bytes()[..], hex(&file["key_fingerprint"]));
}
