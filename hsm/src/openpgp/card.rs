//! The commands of an OpenPGP card that are used here, each a function of one card in a transaction. Sections are those of "Functional
//! Specification of the OpenPGP application on ISO Smart Card Operating Systems", version 3.4.

use zeroize::Zeroizing;

use super::kdf::Kdf;
use crate::curve::{Curve, PublicKey};
use crate::pin::Tries;
use crate::secret::{Pin, SharedSecret};
use crate::smartcard::{Command, Exchange, Fault, put, send, tlv};

/// What a card of this kind answers, or why it does not.
pub(super) type Answer<T> = Result<T, Fault>;

/// The application's name without version and serial number (section 4.2.1).
const APPLICATION: &[u8] = &[0xd2, 0x76, 0x00, 0x01, 0x24, 0x01];

/// Application identifier (DO 4F, section 4.2.1).
pub(super) const AID: u16 = 0x4f;
/// Application related data (DO 6E, section 4.4.3.1).
pub(super) const APPLICATION_DATA: u16 = 0x6e;
/// Algorithm attributes of the decryption key (DO C2, section 4.4.3.9).
pub(super) const ATTRIBUTES: u16 = 0xc2;
/// PW status bytes (DO C4, section 4.4.1).
pub(super) const PIN_STATUS: u16 = 0xc4;
/// Fingerprint of the decryption key, to be written (DO C8, section 4.4.1).
pub(super) const FINGERPRINT: u16 = 0xc8;
/// Generation time of the decryption key, to be written (DO CF, section 4.4.1).
pub(super) const GENERATED_AT: u16 = 0xcf;
/// User interaction flag of the decryption key (DO D7, section 4.4.3.6).
pub(super) const INTERACTION: u16 = 0xd7;
/// Key derived format (DO F9, section 4.3.2).
pub(super) const KDF: u16 = 0xf9;
/// Algorithm information (DO FA, section 4.4.3.11).
pub(super) const ALGORITHMS: u16 = 0xfa;

/// The control reference template of the decryption key (section 7.2.14).
const DECRYPTION_KEY: &[u8] = &[0xb8, 0x00];

/// The application identifier: who made the card, and which card it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Aid {
    /// Of the specification that the card follows, such as 0x0304.
    pub(super) version: u16,
    pub(super) manufacturer: u16,
    pub(super) serial: u32,
}

impl Aid {
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let fields = bytes.strip_prefix(APPLICATION)?;
        let &[v1, v0, m1, m0, s3, s2, s1, s0, ..] = fields else { return None };
        Some(Self {
            version: u16::from_be_bytes([v1, v0]),
            manufacturer: u16::from_be_bytes([m1, m0]),
            serial: u32::from_be_bytes([s3, s2, s1, s0]),
        })
    }

    /// From 3.1 on the specification lets a VERIFY without data tell the status and says that it costs no try (section 7.2.2). Older cards
    /// might take it for an empty PIN.
    pub(super) fn tells_status(&self) -> bool {
        self.version >= 0x0301
    }
}

/// Which of a card's passwords (section 4.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Password {
    /// PW1 for signing (mode 81).
    Sign,
    /// PW1 for everything else (mode 82).
    User,
    /// PW3.
    Admin,
}

impl Password {
    fn reference(self) -> u8 {
        match self {
            Self::Sign => 0x81,
            Self::User => 0x82,
            Self::Admin => 0x83,
        }
    }
}

/// How a card took a PIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verified {
    Yes,
    /// It counts as a try, but on cards that look at the length first.
    Wrong,
    Locked,
}

/// What a key operation came to.
pub(super) enum Outcome<T> {
    Done(T),
    /// 6982, 6985 or 6600: a PIN is wanted, or nobody touched the card. Which of them is told by what is known of the PIN.
    Refused(u16),
}

impl<T> Outcome<T> {
    pub(super) fn of(answer: Answer<T>) -> Answer<Self> {
        match answer {
            Ok(value) => Ok(Self::Done(value)),
            Err(fault) => match fault.status() {
                Some(status @ (0x6982 | 0x6985 | 0x6600)) => Ok(Self::Refused(status)),
                _ => Err(fault),
            },
        }
    }
}

/// GET DATA (section 7.2.6).
pub(super) fn get(card: &mut dyn Exchange, tag: u16) -> Answer<Zeroizing<Vec<u8>>> {
    let [p1, p2] = tag.to_be_bytes();
    send(card, Command::new("GET DATA", 0xca, p1, p2, &[]))
}

/// The same, of an object that a card may be without, or have without content.
pub(super) fn find(card: &mut dyn Exchange, tag: u16) -> Answer<Option<Zeroizing<Vec<u8>>>> {
    match get(card, tag) {
        Ok(value) => Ok((!value.is_empty()).then_some(value)),
        Err(Fault::Status { .. }) => Ok(None),
        Err(fault) => Err(fault),
    }
}

/// PUT DATA (section 7.2.8).
pub(super) fn set(card: &mut dyn Exchange, tag: u16, value: &[u8]) -> Answer<()> {
    let [p1, p2] = tag.to_be_bytes();
    send(card, Command::new("PUT DATA", 0xda, p1, p2, value)).map(drop)
}

/// The OpenPGP application of the card, selected where another one was, and whether it had to be. `None`: the card has none.
///
/// SELECT clears PIN states on some cards, so the card is asked for the identifier first: another application refuses that or answers with
/// something else.
pub(super) fn select(card: &mut dyn Exchange) -> Answer<Option<(Aid, bool)>> {
    if let Some(aid) = find(card, AID)?.and_then(|bytes| Aid::parse(&bytes)) {
        return Ok(Some((aid, false)));
    }
    match send(card, Command::new("SELECT", 0xa4, 0x04, 0x00, APPLICATION)) {
        Ok(_) => {}
        Err(Fault::Status { .. }) => return Ok(None),
        Err(fault) => return Err(fault),
    }
    Ok(find(card, AID)?.and_then(|bytes| Aid::parse(&bytes)).map(|aid| (aid, true)))
}

/// Whether the PIN is verified; `None`: the card does not tell. VERIFY without data (section 7.2.2). Ask only where [`Aid::tells_status`].
pub(super) fn status(card: &mut dyn Exchange, password: Password) -> Answer<Option<bool>> {
    match send(card, Command::new("VERIFY", 0x20, 0x00, password.reference(), &[])) {
        Ok(_) => Ok(Some(true)),
        Err(fault) => match fault.status() {
            // 63CX: not verified, X tries left. YubiKeys answer 6A80.
            Some(0x63c0..=0x63cf | 0x6983) => Ok(Some(false)),
            Some(_) => Ok(None),
            None => Err(fault),
        },
    }
}

/// Tries left for PW1 and PW3, from the PW status bytes: seven bytes, the counters of PW1, resetting code and PW3 at the end.
pub(super) fn tries(status: &[u8]) -> (Tries, Tries) {
    match status {
        &[_, _, _, _, pw1, _, pw3, ..] => (Tries::counted(pw1), Tries::counted(pw3)),
        _ => (Tries::Unknown, Tries::Unknown),
    }
}

/// Tries left for `password`.
pub(super) fn tries_left(card: &mut dyn Exchange, password: Password) -> Answer<Tries> {
    let status = find(card, PIN_STATUS)?.unwrap_or_default();
    let (user, admin) = tries(&status);
    Ok(if password == Password::Admin { admin } else { user })
}

/// Sends the PIN, derived as the card wants it, if it has the `derives` of the extended capabilities. VERIFY (section 7.2.2).
pub(super) fn verify(card: &mut dyn Exchange, password: Password, pin: &Pin, derives: bool) -> Answer<Verified> {
    let object = if derives { find(card, KDF)? } else { None };
    let bytes = match object {
        Some(object) => Kdf::parse(&object)?.derive(pin, password == Password::Admin)?,
        None => Zeroizing::new(pin.expose().as_bytes().to_vec()),
    };
    match send(card, Command::new("VERIFY", 0x20, 0x00, password.reference(), &bytes)) {
        Ok(_) => Ok(Verified::Yes),
        Err(fault) => match fault.status() {
            // 6982 is what YubiKey and Gnuk say instead of 63CX; 6A80 and 6700 are of cards that look at the length first.
            Some(0x63c0..=0x63cf | 0x6982 | 0x6a80 | 0x6700) => Ok(Verified::Wrong),
            Some(0x6983) => Ok(Verified::Locked),
            _ => Err(fault),
        },
    }
}

/// Makes the card forget that a PIN was right: VERIFY with P1 = FF (section 7.2.2). Cards before 3.1 do not know it.
pub(super) fn forget(card: &mut dyn Exchange, password: Password) -> Answer<()> {
    match send(card, Command::new("VERIFY", 0x20, 0xff, password.reference(), &[])) {
        Ok(_) | Err(Fault::Status { .. }) => Ok(()),
        Err(fault) => Err(fault),
    }
}

/// One Diffie-Hellman: PSO: DECIPHER with an ECDH cipher object (section 7.2.11). The peer's point is sent raw, 32 or 65 bytes.
pub(super) fn decipher(card: &mut dyn Exchange, peer: &PublicKey) -> Answer<Outcome<SharedSecret>> {
    let object = put(0xa6, &put(0x7f49, &put(0x86, peer.as_bytes())));
    let answer = send(card, Command::new("PSO: DECIPHER", 0x2a, 0x80, 0x86, &object));
    let answer = match Outcome::of(answer)? {
        Outcome::Done(answer) => answer,
        Outcome::Refused(status) => return Ok(Outcome::Refused(status)),
    };
    let secret = match (peer.curve(), answer.as_slice()) {
        (_, secret) if secret.len() == 32 => secret,
        // Gnuk gives the whole point; the secret is its X coordinate (RFC 6637, section 7).
        (Curve::P256, [4, point @ ..]) if point.len() == 64 => &point[..32],
        (Curve::X25519, [0x40, secret @ ..]) if secret.len() == 32 => secret,
        _ => return Err(Fault::Malformed("PSO: DECIPHER", "the answer is no shared secret")),
    };
    let mut bytes = Zeroizing::new([0; 32]);
    bytes.copy_from_slice(secret);
    Ok(Outcome::Done(SharedSecret::new(*bytes)?))
}

/// The answer of GENERATE ASYMMETRIC KEY PAIR for the decryption key: the content of the public key object 7F49 (section 7.2.14). Reads the
/// key that is there. `None`: the card gives none.
pub(super) fn read_key(card: &mut dyn Exchange) -> Answer<Option<Zeroizing<Vec<u8>>>> {
    match send(card, Command::new("GENERATE ASYMMETRIC KEY PAIR", 0x47, 0x81, 0x00, DECRYPTION_KEY)) {
        Ok(answer) => public_object(&answer).map(Some),
        Err(Fault::Status { .. }) => Ok(None),
        Err(fault) => Err(fault),
    }
}

/// The same command, making a new key.
pub(super) fn make_key(card: &mut dyn Exchange) -> Answer<Zeroizing<Vec<u8>>> {
    let answer = send(card, Command::new("GENERATE ASYMMETRIC KEY PAIR", 0x47, 0x80, 0x00, DECRYPTION_KEY))?;
    public_object(&answer)
}

fn public_object(answer: &[u8]) -> Answer<Zeroizing<Vec<u8>>> {
    match tlv(answer, 0x7f49) {
        Some(object) => Ok(Zeroizing::new(object.to_vec())),
        None => Err(Fault::Malformed("GENERATE ASYMMETRIC KEY PAIR", "the answer is no public key")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::script::Script;
    use super::*;

    const OPENPGP: &str = "d2760001240103040006000000420000";

    #[test]
    fn the_application_is_selected_only_where_another_one_is() {
        let mut card = Script::new(&[("00ca004f00", &format!("{OPENPGP}9000"))]);
        let aid = Aid { version: 0x0304, manufacturer: 6, serial: 0x42 };
        assert_eq!(select(&mut card).unwrap(), Some((aid, false)));
        let mut card = Script::new(&[
            ("00ca004f00", "6d00"),
            ("00a4040006d2760001240100", "9000"),
            ("00ca004f00", &format!("{OPENPGP}9000")),
        ]);
        assert_eq!(select(&mut card).unwrap(), Some((aid, true)));
        let mut card = Script::new(&[("00ca004f00", "a0000003089000"), ("00a4040006d2760001240100", "6a82")]);
        assert_eq!(select(&mut card).unwrap(), None);
    }

    #[test]
    fn the_status_costs_no_try_and_may_be_unknown() {
        for (answer, status_is) in
            [("9000", Some(true)), ("63c3", Some(false)), ("6983", Some(false)), ("6a80", None), ("6982", None)]
        {
            assert_eq!(status(&mut Script::new(&[("00200082", answer)]), Password::User).unwrap(), status_is);
        }
    }

    #[test]
    fn each_cards_word_for_a_wrong_pin_is_known() {
        let pin = Pin::new("123456".into()).unwrap();
        for (answer, verified) in [
            ("9000", Verified::Yes),
            ("63c2", Verified::Wrong),
            ("6982", Verified::Wrong),
            ("6a80", Verified::Wrong),
            ("6983", Verified::Locked),
        ] {
            let mut card = Script::new(&[("00ca00f900", "6a88"), ("0020008206313233343536", answer)]);
            assert_eq!(verify(&mut card, Password::User, &pin, true).unwrap(), verified);
        }
        let mut card = Script::new(&[("00ca00f900", "9000"), ("0020008206313233343536", "6f00")]);
        assert_eq!(verify(&mut card, Password::User, &pin, true).unwrap_err().status(), Some(0x6f00));
        let mut card = Script::new(&[("0020008206313233343536", "9000")]);
        assert_eq!(verify(&mut card, Password::User, &pin, false).unwrap(), Verified::Yes);
    }

    #[test]
    fn the_secret_is_taken_from_every_form_of_answer() {
        let x25519 = PublicKey::new(Curve::X25519, &[9; 32]).unwrap();
        let p256 = crate::curve::SoftKey::generate(Curve::P256).unwrap();
        let secret = "11".repeat(32);
        let agreed = |peer: &PublicKey, answer: &str| decipher(&mut Script::any(&[answer]), peer);
        for (peer, answer) in [
            (&x25519, format!("{secret}9000")),
            (&x25519, format!("40{secret}9000")),
            (p256.public(), format!("{secret}9000")),
            (p256.public(), format!("04{secret}{}9000", "22".repeat(32))),
        ] {
            let Ok(Outcome::Done(agreed)) = agreed(peer, &answer) else { panic!("{answer}") };
            assert_eq!(agreed.as_bytes(), &[0x11; 32]);
        }
        for answer in ["9000", "1111119000", &format!("04{secret}9000")] {
            assert!(matches!(agreed(p256.public(), answer), Err(Fault::Malformed(..))), "{answer}");
        }
        assert!(matches!(agreed(&x25519, &format!("{}9000", "00".repeat(32))), Err(Fault::Typed(_))));
        assert!(matches!(agreed(&x25519, "6982"), Ok(Outcome::Refused(0x6982))));
        assert!(matches!(agreed(&x25519, "6600"), Ok(Outcome::Refused(0x6600))));
        assert!(matches!(agreed(&x25519, "6f00"), Err(Fault::Status { status: 0x6f00, .. })));
    }

    #[test]
    fn points_are_sent_raw() {
        let peer = PublicKey::new(Curve::X25519, &[9; 32]).unwrap();
        let sent = format!("002a808627a6257f49228620{}00", "09".repeat(32));
        let mut card = Script::new(&[(&sent, &format!("{}9000", "11".repeat(32)))]);
        assert!(matches!(decipher(&mut card, &peer), Ok(Outcome::Done(_))));
    }
}
