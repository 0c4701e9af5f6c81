//! Proof of possession: the machine that imports a card learns that a token in the room holds its key.
//!
//! The verifier makes an ephemeral key and sends its public half in a [`Challenge`], one for all members of its curve. A prover's token agrees with it, once,
//! and sends a MAC under a key from that secret in a [`Proof`]. Only the token with the private key on the card, and the verifier, can make it. What that is worth, and what
//! it gives to those who would misuse it, is argued in `docs/wire-format.md`, "Texts of the ceremony".
//!
//! ```text
//! claviger challenge 1
//! challenge: 32 lower-case hexadecimal digits
//! plan: none, or 32 digits
//! verifier: wallet
//! curve: x25519
//! ephemeral-public-key: 64 or 130 digits
//! issued: 1795229250
//! expires: 1795232850
//! checksum: 16 digits
//!
//! claviger proof 1
//! challenge: 32 digits
//! prover: cosigner
//! key: primary or backup
//! mac: 64 digits
//! checksum: 16 digits
//! ```

use aws_lc_rs::agreement::{self, PrivateKey, UnparsedPublicKey};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::{AsBigEndian, Curve25519SeedBin, EcPrivateKeyBin};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::{hmac, rand};
use data_encoding::HEXLOWER;

use super::text::{Form, MAX_TIME, mac, mac_key};
use crate::error::{Error, ErrorKind, Result};
use crate::identity::lines::with_checksum;
use crate::identity::{Curve, Fingerprint, Identifier, IdentityCard, KeyPlace, StaticPublic};
use crate::secret::{EphemeralSecret, SharedSecret};

/// Longest text of a challenge, in bytes.
pub const MAX_CHALLENGE_LEN: usize = 512;

/// Longest text of a proof, in bytes.
pub const MAX_PROOF_LEN: usize = 320;

/// Longest time for which a challenge holds, in seconds: a week.
pub const MAX_VALID: u64 = 7 * 24 * 3600;

/// The salt of the key, and the first line of what the MAC is over.
const LABEL: &str = "claviger proof 1";

/// What stands for a plan that is not there.
const NONE: &str = "none";

static CHALLENGE: Form = Form {
    title: "claviger challenge ",
    version: "1",
    what: "challenge",
    kind: ErrorKind::ProofInvalid,
    hint: "Carry it again and unchanged, or have another one made with `claviger-ceremony challenge`.",
    max: MAX_CHALLENGE_LEN,
};

static PROOF: Form = Form {
    title: "claviger proof ",
    version: "1",
    what: "proof",
    kind: ErrorKind::ProofInvalid,
    hint: "Carry it again and unchanged, or have another one made with `claviger-ceremony prove`.",
    max: MAX_PROOF_LEN,
};

/// A question to the tokens in the room. Public data; names no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// 16 random bytes.
    pub id: [u8; 16],
    /// The fingerprint of the plan; `None` in a ceremony without one.
    pub plan: Option<Fingerprint>,
    /// Who asks.
    pub verifier: Identifier,
    /// The verifier's ephemeral public key, on its curve, for this challenge only.
    pub ephemeral: StaticPublic,
    /// When it was made and until when it holds, seconds since 1970, by the verifier's clock.
    pub issued: u64,
    /// See `issued`. Later than it, by at most [`MAX_VALID`].
    pub expires: u64,
}

/// The answer of one token to one challenge. Public data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// The challenge's [`id`](Challenge::id).
    pub challenge: [u8; 16],
    /// Whose token answered.
    pub prover: Identifier,
    /// Which of its keys.
    pub place: KeyPlace,
    /// HMAC-SHA-256 under a key from the shared secret.
    pub mac: [u8; 32],
}

impl Challenge {
    /// Makes a challenge and the secret by which its proofs are verified. The secret stays in the verifier's store.
    ///
    /// # Errors
    /// [`Internal`](crate::ErrorKind::Internal) when there is no randomness; [`ProofInvalid`](crate::ErrorKind::ProofInvalid) for times that no challenge has.
    pub fn new(
        verifier: &IdentityCard,
        plan: Option<Fingerprint>,
        issued: u64,
        expires: u64,
    ) -> Result<(Self, EphemeralSecret)> {
        let failed = |_| {
            let hint = "Check that the operating system's random generator works, and try again.";
            Error::new(ErrorKind::Internal, "No random key could be made.", hint)
        };
        let mut id = [0; 16];
        rand::fill(&mut id).map_err(failed)?;
        let (secret, ephemeral) = ephemeral(verifier.curve()).map_err(failed)?;
        let ephemeral = StaticPublic::new(verifier.curve(), &ephemeral)?;
        let challenge = Self { id, plan, verifier: verifier.identifier.clone(), ephemeral, issued, expires };
        challenge.check()?;
        Ok((challenge, secret))
    }

    /// Its text, ASCII, at most [`MAX_CHALLENGE_LEN`] bytes.
    pub fn to_text(&self) -> String {
        with_checksum(format!(
            "{}{}\nchallenge: {}\nplan: {}\nverifier: {}\ncurve: {}\nephemeral-public-key: {}\nissued: {}\nexpires: {}\n",
            CHALLENGE.title,
            CHALLENGE.version,
            HEXLOWER.encode(&self.id),
            self.plan.map_or_else(|| NONE.to_owned(), |plan| HEXLOWER.encode(plan.as_bytes())),
            self.verifier,
            self.ephemeral.curve(),
            self.ephemeral.to_hex(),
            self.issued,
            self.expires,
        ))
    }

    /// Reads exactly what [`to_text`](Self::to_text) writes.
    ///
    /// # Errors
    /// [`ProofInvalid`](crate::ErrorKind::ProofInvalid).
    pub fn from_text(text: &str) -> Result<Self> {
        let form = &CHALLENGE;
        let mut lines = form.read(text)?;
        let id = lines.field("challenge")?;
        let plan = lines.field("plan")?;
        let verifier = lines.field("verifier")?;
        let curve = lines.field("curve")?;
        let ephemeral = lines.field("ephemeral-public-key")?;
        let issued = lines.field("issued")?;
        let expires = lines.field("expires")?;
        lines.end()?;
        let plan = if plan == NONE { None } else { Some(Fingerprint::from_bytes(form.bytes("plan", plan)?)) };
        let curve: Curve = form.value("curve", curve)?;
        let challenge = Self {
            id: form.bytes("challenge", id)?,
            plan,
            verifier: form.value("verifier", verifier)?,
            ephemeral: StaticPublic::from_hex(curve, ephemeral)
                .map_err(|why| form.refused(format!("The challenge's `ephemeral-public-key` is refused: {why}")))?,
            issued: form.number("issued", issued, MAX_TIME)?,
            expires: form.number("expires", expires, MAX_TIME)?,
        };
        challenge.check()?;
        if challenge.to_text() == text { Ok(challenge) } else { Err(form.changed()) }
    }

    fn check(&self) -> Result<()> {
        let holds = self.issued < self.expires && self.expires <= self.issued.saturating_add(MAX_VALID).min(MAX_TIME);
        let why =
            || CHALLENGE.refused("The challenge does not hold for a time between a second and seven days.".into());
        if holds { Ok(()) } else { Err(why()) }
    }
}

/// A fresh key pair: the secret scalar, and the public key's bytes.
fn ephemeral(curve: Curve) -> std::result::Result<(EphemeralSecret, Vec<u8>), Unspecified> {
    let key = PrivateKey::generate(curve.algorithm())?;
    let secret = match curve {
        Curve::X25519 => EphemeralSecret::from_slice(AsBigEndian::<Curve25519SeedBin<'_>>::as_be_bytes(&key)?.as_ref()),
        Curve::P256 => EphemeralSecret::from_slice(AsBigEndian::<EcPrivateKeyBin<'_>>::as_be_bytes(&key)?.as_ref()),
    };
    Ok((secret.ok_or(Unspecified)?, key.compute_public_key()?.as_ref().to_vec()))
}

/// The verifier's side of the agreement.
pub(super) fn agree(secret: &EphemeralSecret, key: &StaticPublic) -> std::result::Result<SharedSecret, Unspecified> {
    let algorithm = key.curve().algorithm();
    let secret = PrivateKey::from_private_key(algorithm, secret.expose()).map_err(|_| Unspecified)?;
    agreement::agree(&secret, UnparsedPublicKey::new(algorithm, key.as_bytes()), Unspecified, |agreed| {
        SharedSecret::from_slice(agreed).ok_or(Unspecified)
    })
}

impl Proof {
    /// The proof by the key at `place` of `card`, whose token agreed with [`Challenge::ephemeral`] to `agreed`.
    ///
    /// # Errors
    /// [`Internal`](crate::ErrorKind::Internal) when no key can be derived.
    pub fn new(challenge: &Challenge, card: &IdentityCard, place: KeyPlace, agreed: &SharedSecret) -> Result<Self> {
        let mac = mac(&key(challenge, agreed)?, &message(card, place));
        Ok(Self { challenge: challenge.id, prover: card.identifier.clone(), place, mac })
    }

    /// Whether the token of the key at [`place`](Self::place) of `card`, as this machine holds the card, made this proof. Constant time in the MAC. Who asks
    /// looks at the clock, and that no proof counts twice.
    ///
    /// # Errors
    /// [`ProofInvalid`](crate::ErrorKind::ProofInvalid): another challenge, another member, a key that the card has not, or a MAC that does not fit.
    pub fn verify(&self, challenge: &Challenge, secret: &EphemeralSecret, card: &IdentityCard) -> Result<()> {
        let name = &self.prover;
        if self.challenge != challenge.id || *name != card.identifier {
            let what = format!("The proof of \"{name}\" is for another challenge, or another machine's.");
            return Err(PROOF.refused(what));
        }
        let Some(public) = card.key(self.place) else {
            return Err(Error::new(
                ErrorKind::ProofInvalid,
                format!(
                    "The proof is by the backup key of \"{name}\", and the card of \"{name}\" that is held here has none."
                ),
                format!("Import the present card of \"{name}\", and have its proof made again."),
            ));
        };
        let wrong = || {
            Error::new(
                ErrorKind::ProofInvalid,
                format!(
                    "The token in the room does not hold the {} key on the card of \"{name}\" that is held here, or \"{name}\" holds another card of its own.",
                    self.place
                ),
                format!(
                    "Compare the fingerprint of \"{name}\" here (`claviger-ceremony show {name}`) and there (`claviger-ceremony show`): if they differ, the card was exchanged on its way."
                ),
            )
        };
        // Challenge and card may be on two curves only if the store mixed them up.
        if public.curve() != challenge.ephemeral.curve() {
            return Err(wrong());
        }
        let agreed = agree(secret, public).map_err(|_| wrong())?;
        hmac::verify(&key(challenge, &agreed)?, &message(card, self.place), &self.mac).map_err(|_| wrong())
    }

    /// Its text, ASCII, at most [`MAX_PROOF_LEN`] bytes.
    pub fn to_text(&self) -> String {
        with_checksum(format!(
            "{}{}\nchallenge: {}\nprover: {}\nkey: {}\nmac: {}\n",
            PROOF.title,
            PROOF.version,
            HEXLOWER.encode(&self.challenge),
            self.prover,
            self.place,
            HEXLOWER.encode(&self.mac),
        ))
    }

    /// Reads exactly what [`to_text`](Self::to_text) writes.
    ///
    /// # Errors
    /// [`ProofInvalid`](crate::ErrorKind::ProofInvalid).
    pub fn from_text(text: &str) -> Result<Self> {
        let form = &PROOF;
        let mut lines = form.read(text)?;
        let challenge = lines.field("challenge")?;
        let prover = lines.field("prover")?;
        let place = lines.field("key")?;
        let mac = lines.field("mac")?;
        lines.end()?;
        let proof = Self {
            challenge: form.bytes("challenge", challenge)?,
            prover: form.value("prover", prover)?,
            place: form.place("key", place)?,
            mac: form.bytes("mac", mac)?,
        };
        if proof.to_text() == text { Ok(proof) } else { Err(form.changed()) }
    }
}

/// The key is bound to the challenge's whole text: to who asks, in which ceremony, until when.
fn key(challenge: &Challenge, agreed: &SharedSecret) -> Result<hmac::Key> {
    mac_key(agreed, LABEL, digest(&SHA256, challenge.to_text().as_bytes()).as_ref())
}

/// The MAC is over the prover's whole card.
fn message(card: &IdentityCard, place: KeyPlace) -> Vec<u8> {
    let mut message = format!("{LABEL}\n{}\n{place}\n", card.identifier).into_bytes();
    message.extend_from_slice(&card.digest());
    message
}

#[cfg(test)]
mod tests;
