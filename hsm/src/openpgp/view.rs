//! What a card says of itself and its decryption key, without a PIN.

use super::card::{self, Aid, Answer, Password};
use super::maker;
use crate::curve::{Curve, PublicKey};
use crate::device::{Device, DeviceKey, PinState};
use crate::locator::{Locator, OpenPgpLocator};
use crate::pin::Tries;
use crate::smartcard::{Exchange, Tlv, tlv};
use crate::token::{PinPolicy, TokenKind, Touch};

/// 1.3.6.1.4.1.3029.1.5.1, as OpenPGP names X25519 (RFC 9580, section 9.2).
const OID_X25519: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x97, 0x55, 0x01, 0x05, 0x01];
/// 1.2.840.10045.3.1.7.
pub(super) const OID_P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// Algorithm number of RSA in algorithm attributes (RFC 4880, section 9.1).
const RSA: u8 = 1;
/// Of ECDH.
pub(super) const ECDH: u8 = 18;

/// The object identifier of a curve, without tag and length.
pub(super) fn oid(curve: Curve) -> &'static [u8] {
    match curve {
        Curve::X25519 => OID_X25519,
        Curve::P256 => OID_P256,
    }
}

/// The curve that algorithm attributes name. Their first byte is the algorithm: it should be ECDH, but Gnuk writes ECDSA for P-256 and
/// YubiKeys before 5.6.1 EdDSA for X25519. An import format may follow the identifier (section 4.4.3.9).
fn curve(attributes: &[u8]) -> Option<Curve> {
    let (_, named) = attributes.split_first()?;
    [Curve::X25519, Curve::P256]
        .into_iter()
        .find(|&curve| named.strip_prefix(oid(curve)).is_some_and(|format| format.len() <= 1))
}

/// Where the key comes from: key information, DO DE (section 4.4.3.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// There is no key.
    None,
    /// Made in the card.
    Generated,
    /// Made elsewhere.
    Imported,
    /// The card does not tell.
    Unknown,
}

/// A card at one moment.
pub(super) struct View {
    pub(super) aid: Aid,
    pub(super) attributes: Vec<u8>,
    /// Whether the attributes can be written (extended capabilities, DO C0, section 4.4.3.7).
    pub(super) changeable: bool,
    /// Whether it has a KDF-DO (the same).
    pub(super) derives: bool,
    pub(super) origin: Origin,
    /// The public key, or why there is none that can be used: a clause for people.
    pub(super) public: Result<PublicKey, String>,
    /// Whether there is a key at all, of whatever kind.
    pub(super) occupied: bool,
    pub(super) user_tries: Tries,
    pub(super) touch: Touch,
    /// The touch policy is for ever.
    pub(super) touch_fixed: bool,
    /// The card has the object that sets the touch policy.
    pub(super) touch_settable: bool,
}

impl View {
    /// Reads the card whose application is selected.
    pub(super) fn read(card: &mut dyn Exchange, aid: Aid) -> Answer<Self> {
        let data = card::get(card, card::APPLICATION_DATA)?;
        let object = |tag| application_object(&data, tag);
        let capabilities = object(0xc0).and_then(|bits| bits.first()).copied().unwrap_or_default();
        let attributes = object(card::ATTRIBUTES).unwrap_or_default().to_vec();
        let origin = origin(object(0xde));
        let interaction = card::find(card, card::INTERACTION)?;
        let (touch, touch_fixed) = touch(interaction.as_ref().map(|flag| flag.as_slice()), object(0x7f74));
        let read = if origin == Origin::None { None } else { card::read_key(card)? };
        // Twenty bytes for each key: signature, decryption, authentication. A key that was deleted may leave its fingerprint behind.
        let fingerprint =
            object(0xc5).and_then(|all| all.get(20..40)).is_some_and(|one| one.iter().any(|&byte| byte != 0));
        let occupied = match origin {
            Origin::None => false,
            Origin::Generated | Origin::Imported => true,
            Origin::Unknown => fingerprint || read.is_some(),
        };
        let public = match (&read, occupied) {
            (Some(read), _) => public_key(&attributes, read),
            (None, true) => Err("the card does not give its public key".into()),
            (None, false) => Err("it has no decryption key".into()),
        };
        Ok(Self {
            aid,
            changeable: capabilities & 0x04 != 0,
            derives: capabilities & 0x01 != 0,
            origin,
            public,
            occupied,
            user_tries: card::tries(object(card::PIN_STATUS).unwrap_or_default()).0,
            touch,
            touch_fixed,
            touch_settable: interaction.is_some(),
            attributes,
        })
    }

    /// For people: `Nitrokey OpenPGP card 000F:12345678`.
    pub(super) fn label(&self) -> String {
        label(self.aid.manufacturer, self.aid.serial)
    }

    /// The curve of the decryption key, or of the next one.
    pub(super) fn curve(&self) -> Option<Curve> {
        curve(&self.attributes)
    }

    /// The curves on which the card can make a key, from its algorithm information; `None`: it has none.
    pub(super) fn offers(&self, card: &mut dyn Exchange) -> Answer<Option<Vec<Curve>>> {
        if !self.changeable {
            return Ok(Some(self.curve().into_iter().collect()));
        }
        Ok(card::find(card, card::ALGORITHMS)?.map(|information| offered(&information)))
    }

    /// What `claviger-ceremony token list` shows; `seen_at` is left to the caller.
    pub(super) fn device(&self, card: &mut dyn Exchange) -> Answer<Device> {
        let firmware = maker::yubikey_firmware(card, &self.aid)?;
        let verified = if self.aid.tells_status() { card::status(card, Password::User)? } else { None };
        let curves = self.offers(card)?.unwrap_or_else(|| self.curve().into_iter().collect());
        let mut key = DeviceKey::new("decryption", self.public.clone());
        key.locator = Some(Locator::OpenPgp(OpenPgpLocator {
            manufacturer: self.aid.manufacturer,
            serial: self.aid.serial,
            pin_source: None,
        }));
        key.pin = Some(PinPolicy::Once);
        key.touch = self.touch;
        key.attestable = firmware.is_some_and(|version| version >= maker::ATTESTS) && self.origin == Origin::Generated;
        let unusable = if self.user_tries == Tries::None {
            Some("its PIN is locked".into())
        } else if self.public.is_err() && curves.is_empty() {
            Some("it offers no Diffie-Hellman on x25519 or p256".into())
        } else {
            self.public.as_ref().err().cloned()
        };
        Ok(Device {
            firmware: firmware.map(|[a, b, c]| format!("{a}.{b}.{c}")).unwrap_or_default(),
            curves,
            pin: Some(PinState { verified, ..PinState::new(self.user_tries) }),
            keys: vec![key],
            unusable,
            ..device(&self.aid)
        })
    }
}

/// For people, of a card that may not be there.
pub(super) fn label(manufacturer: u16, serial: u32) -> String {
    let maker = match maker::name(manufacturer) {
        "" => String::new(),
        name => format!("{name} "),
    };
    format!("{maker}OpenPGP card {manufacturer:04X}:{serial:08X}")
}

/// What the identifier alone tells of a card.
pub(super) fn device(aid: &Aid) -> Device {
    Device {
        kind: TokenKind::OpenPgp,
        maker: maker::name(aid.manufacturer).into(),
        model: format!("OpenPGP card {}.{}", aid.version >> 8, aid.version & 0xff),
        serial: format!("{:08X}", aid.serial),
        firmware: String::new(),
        hardware: true,
        seen_at: String::new(),
        curves: Vec::new(),
        pin: None,
        keys: Vec::new(),
        unusable: None,
    }
}

/// An object inside 6E, or inside 73 in it. GET DATA gives 6E with or without its own tag.
pub(super) fn application_object(data: &[u8], tag: u16) -> Option<&[u8]> {
    let data = tlv(data, card::APPLICATION_DATA).unwrap_or(data);
    tlv(data, tag).or_else(|| tlv(tlv(data, 0x73)?, tag))
}

/// Pairs of a key reference and a state; the decryption key is number 2.
fn origin(information: Option<&[u8]>) -> Origin {
    let pairs = information.unwrap_or_default().chunks_exact(2);
    match pairs.into_iter().find(|pair| pair[0] == 2).map(|pair| pair[1]) {
        Some(0) => Origin::None,
        Some(1) => Origin::Generated,
        Some(2) => Origin::Imported,
        _ => Origin::Unknown,
    }
}

/// The touch policy as it is now, if the card has one.
pub(super) fn touch_policy(card: &mut dyn Exchange) -> Answer<Option<Touch>> {
    Ok(card::find(card, card::INTERACTION)?.map(|flag| touch(Some(&flag), None).0))
}

/// The touch policy from the user interaction flag (section 4.4.3.6: off, on, on for ever; YubiKeys also 3 and 4, cached), and whether it
/// is for ever. Without the flag the features tell whether there is a button (general feature management, DO 7F74, section 4.1.3.1).
pub(super) fn touch(interaction: Option<&[u8]>, features: Option<&[u8]>) -> (Touch, bool) {
    match interaction.and_then(|flag| flag.first()) {
        Some(0) => (Touch::Never, false),
        Some(1) => (Touch::Always, false),
        Some(2) => (Touch::Always, true),
        Some(3) => (Touch::Cached, false),
        Some(4) => (Touch::Cached, true),
        Some(_) => (Touch::Unknown, false),
        None => match features.and_then(|features| tlv(features, 0x81)?.first()) {
            Some(features) if features & 0x20 == 0 => (Touch::Never, false),
            _ => (Touch::Unknown, false),
        },
    }
}

/// Curves that the algorithm information offers for the decryption key. Cards give it with or without its own tag, and YubiKeys write a
/// length two bytes too long, so the tag is skipped and its length not believed.
fn offered(information: &[u8]) -> Vec<Curve> {
    let list = match information {
        [0xfa, length @ 0x81..=0x83, rest @ ..] => rest.get(usize::from(length & 3)..).unwrap_or_default(),
        [0xfa, _, rest @ ..] => rest,
        list => list,
    };
    let offered: Vec<_> = Tlv::all(list)
        .filter(|object| object.tag == card::ATTRIBUTES)
        .filter_map(|object| curve(object.value))
        .collect();
    [Curve::X25519, Curve::P256].into_iter().filter(|curve| offered.contains(curve)).collect()
}

/// The public key in the content of 7F49: tag 86, the point; X25519 raw or behind the 40 of RFC 4880bis.
pub(super) fn public_key(attributes: &[u8], object: &[u8]) -> Result<PublicKey, String> {
    let Some(curve) = curve(attributes) else {
        return Err(match attributes.first() {
            Some(&RSA) => "its decryption key is an RSA key".into(),
            _ => "its decryption key is on another curve than x25519 and p256".into(),
        });
    };
    let point = match (curve, tlv(object, 0x86)) {
        (Curve::X25519, Some([0x40, point @ ..])) if point.len() == 32 => point,
        (_, Some(point)) => point,
        (_, None) => return Err("the card gives no point as its public key".into()),
    };
    PublicKey::new(curve, point).map_err(|_| "its public key is no point that is safe to agree with".into())
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::script::{Script, hex};
    use super::*;

    /// A new card, set for RSA as they all are.
    pub(in super::super) fn empty(aid: Aid) -> View {
        View {
            aid,
            attributes: vec![1, 8, 0, 0, 17, 0],
            changeable: true,
            derives: true,
            origin: Origin::None,
            public: Err("it has no decryption key".into()),
            occupied: false,
            user_tries: Tries::Left(3),
            touch: Touch::Never,
            touch_fixed: false,
            touch_settable: true,
        }
    }

    /// A card's objects, as commands and answers: a YubiKey 5 with a key on X25519, cached touch.
    fn dialogue(point: &str) -> Vec<(String, String)> {
        let attributes = "c20b122b060104019755010501";
        let discretionary = [
            hex("c00a7d000bfe080000ff0000"),
            hex(attributes),
            hex("c407007f7f7f030003"),
            [hex("c53c"), vec![0; 20], vec![0xaa; 20], vec![0; 20]].concat(),
            hex("de06010002010300"),
        ]
        .concat();
        let data =
            [hex("4f10d2760001240103040006000000420000"), hex("7381"), vec![discretionary.len() as u8], discretionary]
                .concat();
        let data = [hex("6e81"), vec![data.len() as u8], data].concat();
        let text = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        vec![
            ("00ca006e00".into(), format!("{}9000", text(&data))),
            ("00ca00d700".into(), "03209000".into()),
            ("0047810002b80000".into(), format!("7f49228620{point}9000")),
        ]
    }

    const AID: Aid = Aid { version: 0x0304, manufacturer: 6, serial: 0x42 };

    fn script(dialogue: &[(String, String)]) -> Script {
        let pairs: Vec<_> = dialogue.iter().map(|(command, answer)| (command.as_str(), answer.as_str())).collect();
        Script::new(&pairs)
    }

    #[test]
    fn a_card_is_read() {
        let mut card = script(&dialogue(&"09".repeat(32)));
        let view = View::read(&mut card, AID).unwrap();
        assert!(card.is_over());
        assert_eq!(view.public, Ok(PublicKey::new(Curve::X25519, &[9; 32]).unwrap()));
        assert_eq!((view.origin, view.occupied, view.changeable), (Origin::Generated, true, true));
        assert_eq!((view.user_tries, view.touch, view.touch_fixed), (Tries::Left(3), Touch::Cached, false));
        assert_eq!(view.label(), "Yubico OpenPGP card 0006:00000042");
    }

    #[test]
    fn a_point_of_low_order_is_no_key() {
        let mut card = script(&dialogue(&"00".repeat(32)));
        let view = View::read(&mut card, AID).unwrap();
        assert!(view.public.is_err() && view.occupied);
    }

    #[test]
    fn curves_are_told_from_attributes() {
        for (attributes, expected) in [
            ("122b060104019755010501", Some(Curve::X25519)),
            ("162b060104019755010501ff", Some(Curve::X25519)),
            ("122a8648ce3d030107", Some(Curve::P256)),
            ("132a8648ce3d030107", Some(Curve::P256)),
            ("010800002000", None),
            ("122b81040022", None),
            ("122a8648ce3d03010700ff", None),
            ("", None),
        ] {
            assert_eq!(curve(&hex(attributes)), expected, "{attributes}");
        }
    }

    #[test]
    fn algorithm_information_has_two_forms_and_a_wrong_length() {
        let list = "c106010800002000c209122a8648ce3d030107c20b162b060104019755010501c309132a8648ce3d030107";
        for form in [list.to_owned(), format!("fa2a{list}"), format!("fa82002c{list}")] {
            assert_eq!(offered(&hex(&form)), [Curve::X25519, Curve::P256], "{form}");
        }
        assert_eq!(offered(&hex("c206010800002000")), []);
        for nonsense in ["fa", "fa82", "fa83ff", "c2ff"] {
            assert_eq!(offered(&hex(nonsense)), []);
        }
    }

    #[test]
    fn touch_is_told_from_flag_and_features() {
        let (button, none) = (hex("810120"), hex("810100"));
        for (flag, features, expected) in [
            (Some(&[0, 0x20][..]), None, (Touch::Never, false)),
            (Some(&[1, 0x20]), None, (Touch::Always, false)),
            (Some(&[2, 0x20]), None, (Touch::Always, true)),
            (Some(&[3]), None, (Touch::Cached, false)),
            (Some(&[4]), None, (Touch::Cached, true)),
            (Some(&[9]), None, (Touch::Unknown, false)),
            (None, Some(&none), (Touch::Never, false)),
            (None, Some(&button), (Touch::Unknown, false)),
            (None, None, (Touch::Unknown, false)),
        ] {
            assert_eq!(touch(flag, features.map(Vec::as_slice)), expected);
        }
    }
}
