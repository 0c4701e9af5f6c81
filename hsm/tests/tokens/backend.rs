//! What a backend gives to the tests, and what tests do with any token.

use std::time::Duration;

use aws_lc_rs::agreement::{self, ECDH_P256, PrivateKey, UnparsedPublicKey, X25519};
use claviger_hsm::{
    Curve, Error, ErrorKind, KeepPin, Locator, NewKey, Operation, Pin, PinEntry, PinRequest, PublicKey, Purpose,
    Result, Token, TokenKind, Tries,
};
use claviger_testkit::cards::{Card, Pcscd};
use claviger_testkit::{cards, token};

/// A PIN that no token has, of a form that every token takes.
pub(crate) const WRONG_PIN: &str = "314159";

/// A device, as it leaves its factory or as its maker's tool prepares it.
pub(crate) trait Backend: Sized {
    const KIND: TokenKind;
    /// Somebody is asked for the PIN before each agree, whatever is kept in the device: it keeps nothing.
    const FORGETS: bool = false;
    /// The user PIN.
    const PIN: &str = token::PIN;
    /// KiB by which this process may grow in a thousand operations. One page for each would be 4000.
    const GROWTH: u64 = 1024;

    /// Runs a test alone, with what the device needs around it.
    fn alone<F: FnOnce()>(body: F) {
        token::isolated::<F>(body);
    }

    fn new() -> Self;

    /// Names a place for a key on `curve`, as `generate` takes it.
    fn place(&self, curve: Curve) -> Locator;

    /// Makes a key. Gives the locator that names it most narrowly.
    fn make(&self, curve: Curve) -> (Locator, PublicKey) {
        let mut people = Given::new(Self::PIN);
        claviger_hsm::generate(&self.place(curve), &NewKey::new(curve), &mut soon(&mut people)).unwrap()
    }

    /// The device forgets that a PIN was right, as when it loses power.
    fn forget(&self) {}
}

/// A device with a key, and what names it. The device has forgotten the PIN that it took when the key was made.
pub(crate) fn ready<B: Backend>(curve: Curve) -> (B, Locator, PublicKey) {
    let backend = B::new();
    let (locator, public) = backend.make(curve);
    backend.forget();
    (backend, locator, public)
}

/// A device that counts wrong PINs, tells the number, and locks.
pub(crate) trait Counting: Backend {
    /// The tries of a new device.
    const TRIES: u8;
    /// A right PIN gives all tries back.
    const FORGIVES: bool = true;
}

/// A device that goes away and comes back.
pub(crate) trait Coming: Backend {
    /// What an agree says meanwhile.
    const GONE: ErrorKind = ErrorKind::TokenAbsent;

    /// The device goes away: a card is pulled, and what it remembers without power is lost.
    fn pull(&self);
    /// It is put back.
    fn insert(&self);
}

/// A card in a reader of pcscd. Its backend's [`Backend::alone`] is [`cards::isolated`].
pub(crate) trait SmartCard: Coming {
    /// The application that holds the key.
    const AID: &[u8];
    /// P2 of VERIFY for the user PIN.
    const PIN_REFERENCE: u8;

    fn card(&self) -> &Card;
    fn pcscd(&self) -> &Pcscd;

    /// The data of VERIFY for the user PIN.
    fn pin_block() -> Vec<u8> {
        Self::PIN.into()
    }
}

/// Answers every question in the same way, and counts.
pub(crate) struct Given {
    /// The user PIN or passphrase.
    pub(crate) pin: String,
    /// Whether the last try may be spent.
    pub(crate) spend_last: bool,
    /// How often the user PIN or passphrase was asked for.
    pub(crate) asked: u32,
    /// What the last question said of the tries left.
    pub(crate) tries: Option<Tries>,
}

impl Given {
    pub(crate) fn new(pin: &str) -> Self {
        Self { pin: pin.into(), spend_last: false, asked: 0, tries: None }
    }

    /// The same, and the last try may be spent.
    pub(crate) fn all(pin: &str) -> Self {
        Self { spend_last: true, ..Self::new(pin) }
    }
}

impl PinEntry for Given {
    fn pin(&mut self, request: &PinRequest<'_>) -> Result<Pin> {
        assert!(!request.what.is_empty());
        Pin::new(match request.purpose {
            Purpose::AdminPin => cards::ADMIN_PIN.into(),
            Purpose::ManagementKey => cards::MANAGEMENT_KEY.iter().map(|byte| format!("{byte:02x}")).collect(),
            _ => {
                self.asked += 1;
                self.tries = Some(request.tries_left);
                self.pin.clone()
            }
        })
    }

    fn confirm_last_try(&mut self, request: &PinRequest<'_>) -> bool {
        assert_eq!(request.tries_left, Tries::Last);
        self.spend_last
    }
}

/// Nobody to ask.
pub(crate) struct Nobody;

impl PinEntry for Nobody {
    fn pin(&mut self, _: &PinRequest<'_>) -> Result<Pin> {
        Err(Error::pin_required("Nobody is here.", "Come back."))
    }
}

/// An operation with all the time that a test may take.
pub(crate) fn soon(people: &mut dyn PinEntry) -> Operation<'_> {
    Operation::within(Duration::from_secs(20), people)
}

/// Opens with the PIN kept.
pub(crate) fn open(
    locator: &Locator,
    expected: Option<&PublicKey>,
    people: &mut dyn PinEntry,
) -> Result<Box<dyn Token>> {
    claviger_hsm::open(locator, expected, KeepPin::Once, &mut soon(people))
}

/// The kind of the error that must have come, which must be fit for people and keep its secrets.
pub(crate) fn kind<T>(result: Result<T>) -> ErrorKind {
    let error = result.err().expect("an error");
    assert!(error.to_string().ends_with('.') && error.hint().ends_with('.'), "{error:?}");
    for pin in [token::PIN, cards::PIN, cards::ADMIN_PIN, WRONG_PIN] {
        assert!(!format!("{error:?}").contains(pin), "{error:?}");
    }
    error.kind()
}

/// A fresh key in software, independent of the crate under test.
pub(crate) fn peer(curve: Curve) -> (PrivateKey, PublicKey) {
    let algorithm = if curve == Curve::X25519 { &X25519 } else { &ECDH_P256 };
    let key = PrivateKey::generate(algorithm).unwrap();
    let public = PublicKey::new(curve, key.compute_public_key().unwrap().as_ref()).unwrap();
    (key, public)
}

/// The other curve.
pub(crate) fn other(curve: Curve) -> Curve {
    if curve == Curve::X25519 { Curve::P256 } else { Curve::X25519 }
}

/// One agree, both sides compared, with `people` there to be asked.
pub(crate) fn agrees_asking(token: &mut dyn Token, people: &mut dyn PinEntry) {
    let (key, public) = peer(token.curve());
    let own = UnparsedPublicKey::new(key.algorithm(), token.public_key().as_bytes());
    let expected = agreement::agree(&key, own, (), |secret| Ok(secret.to_vec())).unwrap();
    assert_eq!(token.agree(&public, &mut soon(people)).unwrap().as_bytes()[..], expected);
}

/// One agree, both sides compared, nobody asked.
pub(crate) fn agrees(token: &mut dyn Token) {
    agrees_asking(token, &mut Nobody);
}

/// One agree whose answer is not looked at, nobody asked.
pub(crate) fn agree(token: &mut dyn Token) -> Result<()> {
    let (_, public) = peer(token.curve());
    token.agree(&public, &mut soon(&mut Nobody)).map(drop)
}

/// Tests, for each of these backends on each of its curves: `name: Type [CURVE …]`.
macro_rules! each {
    ($($(#[$attribute:meta])* $name:ident: $backend:ty [$($curve:ident)*]),* => $tests:tt) => {
        $( $(#[$attribute])* mod $name {
            $crate::backend::each!(@curves $backend, [$($curve)*], $tests);
        } )*
    };
    (@curves $backend:ty, [$($curve:ident)*], $tests:tt) => {
        $( #[allow(non_snake_case)] mod $curve { $crate::backend::each!(@tests $backend, $curve, $tests); } )*
    };
    (@tests $backend:ty, $curve:ident, { $($test:ident)* }) => {
        $( #[test] fn $test() {
            <$backend as $crate::backend::Backend>::alone(|| super::super::$test::<$backend>(claviger_hsm::Curve::$curve));
        } )*
    };
}
pub(crate) use each;
