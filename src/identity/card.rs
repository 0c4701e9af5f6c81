//! Identity cards: the text by which a machine's identity travels in a ceremony.
//!
//! Exactly these lines, each ended by one line feed, and nothing else (`docs/wire-format.md`, "Identity card"):
//!
//! ```text
//! claviger identity card 4
//! identifier: cosigner
//! role: cosigner
//! token: hardware
//! attestation: none, or `yubico-piv` or `yubico-openpgp` and 1 to 4 certificates in base64
//! curve: x25519
//! static-public-key: 64 or 130 lower-case hexadecimal digits
//! backup-token: none, hardware or software
//! backup-attestation: as `attestation`
//! backup-public-key: none, or as many digits as `static-public-key`
//! onion-address: 56 characters.onion
//! client-auth-public-key: descriptor:x25519:52 base32 characters
//! suites: ChaChaPoly_BLAKE2s
//! kem: ML-KEM-768
//! checksum: 16 lower-case hexadecimal digits
//! ```
//!
//! A card that offers no key encapsulation mechanism has no `kem` line, and is of format 3: such a card is byte for byte what releases wrote that knew of none.
//!
//! The checksum is the first 8 bytes of SHA-256 over all bytes before its line. It finds accidents and careless edits; it is the fingerprint, compared by people, that finds a swapped card.

use super::attestation::{from_field, to_field};
use super::lines::{Lines, Off, with_checksum};
use super::{
    Attestation, ClientAuthPublic, Curve, Fingerprint, Identifier, IdentityError, Kem, OnionAddress, Role,
    StaticPublic, Suites,
};
use aws_lc_rs::digest::{SHA256, digest};

/// Longest card text, in bytes: four certificates of 3072 bytes are 16 388 bytes of base64 with their spaces, there may be two such chains, and
/// everything else is less than 2048.
pub const MAX_CARD_LEN: usize = 36_864;

/// The format version of a card that offers a key encapsulation mechanism, and the newest that is read.
pub(super) const VERSION: &str = "4";

/// The format version of a card that offers none.
pub(super) const VERSION_WITHOUT_KEM: &str = "3";

pub(crate) const TITLE: &str = "claviger identity card ";

/// What stands for a backup key that is not there.
const NONE: &str = "none";

/// Where a machine's static private key lives, by the word of its own card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// On a device that does not let it out.
    Hardware,
    /// In an encrypted file: it can be copied.
    Software,
}

impl std::fmt::Display for TokenKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Hardware => "hardware",
            Self::Software => "software",
        })
    }
}

/// Which of a machine's two static keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KeyPlace {
    /// The key that is used unless it is lost.
    Primary,
    /// The key of the [`BackupKey`].
    Backup,
}

impl std::fmt::Display for KeyPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Primary => "primary",
            Self::Backup => "backup",
        })
    }
}

impl std::str::FromStr for KeyPlace {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        match text {
            "primary" => Ok(Self::Primary),
            "backup" => Ok(Self::Backup),
            _ => Err(IdentityError::Card { line: 1, expected: "`primary` or `backup`".into() }),
        }
    }
}

/// The second static key of a machine, on a token that lies in a safe until the first one is lost. Public data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupKey {
    /// Its Noise static public key, on the curve of the primary key, and another one.
    pub static_public: StaticPublic,
    /// Where the private key lives.
    pub token: TokenKind,
    /// The proof that it lives in a device.
    pub attestation: Option<Attestation>,
}

/// A machine's identity, as it travels. All public.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityCard {
    /// The machine's name, unique in every store that records it.
    pub identifier: Identifier,
    /// What the machine is for.
    pub role: Role,
    /// Where its static private key lives.
    pub token: TokenKind,
    /// The proof that it lives in a device, for whoever imports the card to verify. `None` for a software key.
    pub attestation: Option<Attestation>,
    /// The Noise static public key: the primary one.
    pub static_public: StaticPublic,
    /// The key by which the machine goes on when the token of the primary one is lost.
    pub backup: Option<BackupKey>,
    /// Where its onion service is reached.
    pub onion_address: OnionAddress,
    /// The key by which it reads other machines' onion descriptors.
    pub client_auth: ClientAuthPublic,
    /// The suites it offers, most wanted first.
    pub suites: Suites,
    /// The key encapsulation mechanism that it mixes into handshakes with machines whose cards offer it, too.
    pub kem: Option<Kem>,
}

impl IdentityCard {
    /// The curve of the static key.
    pub fn curve(&self) -> Curve {
        self.static_public.curve()
    }

    /// The key of that place; `None` for a backup that the card has not.
    pub fn key(&self, place: KeyPlace) -> Option<&StaticPublic> {
        match place {
            KeyPlace::Primary => Some(&self.static_public),
            KeyPlace::Backup => self.backup.as_ref().map(|backup| &backup.static_public),
        }
    }

    /// SHA-256 over the text without the checksum line: what proofs, successions and the phrase are bound to.
    pub fn digest(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, self.body().as_bytes()).as_ref());
        bytes
    }

    /// What people compare.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of_card(self)
    }

    /// The text up to, and without, the checksum line.
    pub(super) fn body(&self) -> String {
        let version = if self.kem.is_some() { VERSION } else { VERSION_WITHOUT_KEM };
        let kem = self.kem.map_or_else(String::new, |kem| format!("kem: {kem}\n"));
        format!(
            "{TITLE}{version}\nidentifier: {}\nrole: {}\ntoken: {}\nattestation: {}\ncurve: {}\nstatic-public-key: {}\n\
             backup-token: {}\nbackup-attestation: {}\nbackup-public-key: {}\nonion-address: {}\n\
             client-auth-public-key: {}\nsuites: {}\n{kem}",
            self.identifier,
            self.role,
            self.token,
            to_field(self.attestation.as_ref()),
            self.curve(),
            self.static_public.to_hex(),
            self.backup.as_ref().map_or_else(|| NONE.to_owned(), |backup| backup.token.to_string()),
            to_field(self.backup.as_ref().and_then(|backup| backup.attestation.as_ref())),
            self.backup.as_ref().map_or_else(|| NONE.to_owned(), |backup| backup.static_public.to_hex()),
            self.onion_address,
            self.client_auth,
            self.suites,
        )
    }

    /// The card's text, ASCII, at most [`MAX_CARD_LEN`] bytes.
    pub fn to_text(&self) -> String {
        with_checksum(self.body())
    }

    /// Reads exactly what [`to_text`](Self::to_text) writes: same order, same spelling, no blank lines, no comments.
    ///
    /// # Errors
    /// [`IdentityError::CardSize`], [`IdentityError::CardVersion`], [`IdentityError::Card`] with the first line that is off,
    /// [`IdentityError::CardChecksum`] when all lines have the right form but were changed, and the errors of the fields.
    pub fn from_text(text: &str) -> Result<Self, IdentityError> {
        if text.len() > MAX_CARD_LEN {
            return Err(IdentityError::CardSize(text.len()));
        }
        if text.contains('\r') {
            return Err(IdentityError::CardLineEnds);
        }
        let mut lines = Lines::new(text);
        let version = lines.title(TITLE, VERSION)?;
        if version != VERSION && version != VERSION_WITHOUT_KEM {
            return Err(IdentityError::CardVersion(version.chars().take(16).collect()));
        }
        let mut field = |name: &str| lines.field(name);
        let identifier = field("identifier")?;
        let role = field("role")?;
        let token = field("token")?;
        let attestation = field("attestation")?;
        let curve = field("curve")?;
        let static_public = field("static-public-key")?;
        let backup = [field("backup-token")?, field("backup-attestation")?, field("backup-public-key")?];
        let onion_address = field("onion-address")?;
        let client_auth = field("client-auth-public-key")?;
        let suites = field("suites")?;
        let kem = if version == VERSION { Some(field("kem")?) } else { None };
        if !lines.checksum("card")? {
            return Err(IdentityError::CardChecksum);
        }
        let curve = curve.parse()?;
        let static_public = StaticPublic::from_hex(curve, static_public)?;
        let card = Self {
            identifier: identifier.parse()?,
            role: role.parse()?,
            token: token_kind(token, 4)?,
            attestation: from_field(attestation)?,
            backup: backup_key(curve, backup)?,
            static_public,
            onion_address: onion_address.parse()?,
            client_auth: client_auth.parse()?,
            suites: suites.parse()?,
            kem: kem.map(str::parse).transpose()?,
        };
        card.check()?;
        // Every field has one spelling, so this holds for whatever got here; it keeps the fingerprint a function of the text.
        if card.to_text() == text { Ok(card) } else { Err(IdentityError::CardChecksum) }
    }

    /// What holds between the fields.
    pub(crate) fn check(&self) -> Result<(), IdentityError> {
        let software = |token, attestation: &Option<Attestation>| token == TokenKind::Software && attestation.is_some();
        let backup = self.backup.as_ref();
        if software(self.token, &self.attestation)
            || backup.is_some_and(|backup| software(backup.token, &backup.attestation))
        {
            return Err(IdentityError::Attestation("is on the card of a software key, which no device attests"));
        }
        match backup {
            Some(backup) if backup.static_public == self.static_public => {
                Err(IdentityError::PublicKey("is the backup key, too"))
            }
            Some(backup) if backup.static_public.curve() != self.curve() => {
                Err(IdentityError::PublicKey("of the backup is on another curve"))
            }
            _ => Ok(()),
        }
    }

    /// Reads a card from a file's bytes.
    ///
    /// # Errors
    /// As [`from_text`](Self::from_text); bytes that are not UTF-8 are [`IdentityError::CardSize`] or a bad first line.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, IdentityError> {
        if bytes.len() > MAX_CARD_LEN {
            return Err(IdentityError::CardSize(bytes.len()));
        }
        let text = std::str::from_utf8(bytes)
            .map_err(|_| IdentityError::Card { line: 1, expected: "text: this is not an identity card".into() })?;
        Self::from_text(text)
    }
}

impl From<Off> for IdentityError {
    fn from(Off { line, expected }: Off) -> Self {
        Self::Card { line, expected }
    }
}

fn token_kind(text: &str, line: usize) -> Result<TokenKind, IdentityError> {
    match text {
        "hardware" => Ok(TokenKind::Hardware),
        "software" => Ok(TokenKind::Software),
        _ => Err(IdentityError::Card { line, expected: "`token: hardware` or `token: software`".into() }),
    }
}

/// The three backup lines, which are all `none` or none of them.
fn backup_key(curve: Curve, [token, attestation, key]: [&str; 3]) -> Result<Option<BackupKey>, IdentityError> {
    if [token, attestation, key] == [NONE; 3] {
        return Ok(None);
    }
    Ok(Some(BackupKey {
        static_public: StaticPublic::from_hex(curve, key)?,
        token: token_kind(token, 8)?,
        attestation: from_field(attestation)?,
    }))
}

#[cfg(test)]
mod tests {
    use super::super::{AttestationFormat, ClientAuthKeys, OnionKeys};
    use super::*;

    /// The generator (SEC 2, section 2.4.2).
    const P256: &str = "046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c2964fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5";

    /// Twice the generator.
    const P256_TWICE: &str = "047cf27b188d034f7e8a52380304b51ac3c08969e277f21b35a60b48fc4766997807775510db8ed040293d9ac69f7430dbba7dade63ce982299e04b79d227873d1";

    fn card() -> IdentityCard {
        IdentityCard {
            identifier: "cosigner".parse().unwrap(),
            role: "cosigner".parse().unwrap(),
            token: TokenKind::Hardware,
            attestation: None,
            static_public: StaticPublic::new(Curve::X25519, &[9; 32]).unwrap(),
            backup: None,
            onion_address: OnionKeys::generate().unwrap().address,
            client_auth: ClientAuthKeys::generate().unwrap().public,
            suites: Suites::default(),
            kem: None,
        }
    }

    fn hybrid() -> IdentityCard {
        IdentityCard { kem: Some(Kem::MlKem768), ..card() }
    }

    fn attested() -> IdentityCard {
        let chain = vec![(0..=255).collect(), vec![7; 20]];
        let attestation = Attestation::new(AttestationFormat::YubicoPiv, chain).unwrap();
        IdentityCard { attestation: Some(attestation), ..card() }
    }

    fn with_backup() -> IdentityCard {
        let static_public = StaticPublic::new(Curve::X25519, &[5; 32]).unwrap();
        let backup = BackupKey { static_public, token: TokenKind::Hardware, attestation: attested().attestation };
        IdentityCard { backup: Some(backup), ..card() }
    }

    #[test]
    fn a_backup_key_is_another_on_the_same_curve() {
        let mut same = with_backup();
        same.backup.as_mut().unwrap().static_public = same.static_public.clone();
        assert!(matches!(IdentityCard::from_text(&same.to_text()), Err(IdentityError::PublicKey(_))));
        let mut curve = with_backup();
        curve.backup.as_mut().unwrap().static_public = StaticPublic::from_hex(Curve::P256, P256).unwrap();
        assert!(IdentityCard::from_text(&curve.to_text()).is_err());
        let mut software = with_backup();
        software.backup.as_mut().unwrap().token = TokenKind::Software;
        assert!(matches!(IdentityCard::from_text(&software.to_text()), Err(IdentityError::Attestation(_))));
    }

    #[test]
    fn round_trip() {
        for card in [card(), hybrid(), attested(), with_backup()] {
            assert_eq!(IdentityCard::from_text(&card.to_text()), Ok(card));
        }
    }

    #[test]
    fn the_longest_card_fits() {
        let name = "a".repeat(63);
        let chain = vec![vec![1; Attestation::MAX_CERTIFICATE]; Attestation::MAX_CHAIN];
        let longest = IdentityCard {
            identifier: name.parse().unwrap(),
            role: name.parse().unwrap(),
            attestation: Some(Attestation::new(AttestationFormat::YubicoOpenPgp, chain.clone()).unwrap()),
            static_public: StaticPublic::from_hex(Curve::P256, P256).unwrap(),
            backup: Some(BackupKey {
                static_public: StaticPublic::from_hex(Curve::P256, P256_TWICE).unwrap(),
                token: TokenKind::Hardware,
                attestation: Some(Attestation::new(AttestationFormat::YubicoOpenPgp, chain).unwrap()),
            }),
            suites: "AESGCM_SHA256 ChaChaPoly_BLAKE2s".parse().unwrap(),
            ..hybrid()
        };
        assert!(longest.to_text().len() <= MAX_CARD_LEN, "{}", longest.to_text().len());
        assert_eq!(IdentityCard::from_text(&longest.to_text()), Ok(longest));
    }

    #[test]
    fn a_software_key_has_no_attestation() {
        let text = IdentityCard { token: TokenKind::Software, ..attested() }.to_text();
        assert!(matches!(IdentityCard::from_text(&text), Err(IdentityError::Attestation(_))));
    }

    #[test]
    fn every_changed_byte_and_every_cut_is_found() {
        let plain = card().to_text();
        for (text, at) in [plain.clone(), hybrid().to_text(), attested().to_text(), with_backup().to_text()]
            .iter()
            .flat_map(|text| (0..text.len()).map(move |at| (text, at)))
        {
            for change in [1u8, 2, 0x20] {
                let mut bytes = text.clone().into_bytes();
                bytes[at] ^= change;
                assert!(IdentityCard::from_bytes(&bytes).is_err(), "byte {at} changed by {change}");
            }
            assert!(IdentityCard::from_text(&text[..at]).is_err(), "cut to {at}");
        }
        let text = plain;
        for more in ["\n", " ", "x", "\r\n"] {
            assert!(IdentityCard::from_text(&format!("{text}{more}")).is_err());
            assert!(IdentityCard::from_text(&format!("{more}{text}")).is_err());
        }
        assert!(IdentityCard::from_text(&text.replace('\n', "\r\n")).is_err());
        assert!(matches!(IdentityCard::from_bytes(&[b'a'; 40_000]), Err(IdentityError::CardSize(40_000))));
        assert!(IdentityCard::from_bytes(&[0xff; 50]).is_err());
    }

    #[test]
    fn another_version_is_named() {
        for (version, said) in [("card 2\n", "2"), ("card 5\n", "5")] {
            let text = card().to_text().replace("card 3\n", version);
            assert_eq!(IdentityCard::from_text(&text), Err(IdentityError::CardVersion(said.into())));
        }
    }

    /// A format for a card with a mechanism, another for one without, and no second spelling of either.
    #[test]
    fn a_kem_is_a_line_of_format_4() {
        let with_line =
            |text: &str| with_checksum(text.rsplit_once("checksum").unwrap().0.to_owned() + "kem: ML-KEM-768\n");
        let (bare, hybrid) = (card().to_text(), hybrid().to_text());
        assert!(bare.starts_with("claviger identity card 3\n") && !bare.contains("kem"));
        assert!(hybrid.starts_with("claviger identity card 4\n") && hybrid.contains("\nkem: ML-KEM-768\nchecksum: "));
        let four_without = bare.replace("card 3\n", "card 4\n");
        let off = |line, expected: &str| Err(IdentityError::Card { line, expected: expected.into() });
        assert_eq!(IdentityCard::from_text(&four_without), off(14, "`kem: …`"));
        assert_eq!(IdentityCard::from_text(&with_line(&bare)), off(14, "`checksum: …`"));
        assert_eq!(IdentityCard::from_text(&with_line(&hybrid)), off(15, "`checksum: …`"));
        for kem in ["none", "ml-kem-768", "ML-KEM-1024", "ML-KEM-768 ", ""] {
            let body = hybrid.rsplit_once("checksum").unwrap().0.replace("kem: ML-KEM-768", &format!("kem: {kem}"));
            assert_eq!(IdentityCard::from_text(&with_checksum(body)), Err(IdentityError::Kem(kem.into())), "{kem:?}");
        }
    }

    #[test]
    fn the_fingerprint_covers_every_field() {
        let one = card();
        let changes: [fn(&mut IdentityCard); 9] = [
            |card| card.backup = with_backup().backup,
            |card| card.identifier = "cosigner-2".parse().unwrap(),
            |card| card.role = "watchtower".parse().unwrap(),
            |card| card.token = TokenKind::Software,
            |card| card.onion_address = OnionKeys::generate().unwrap().address,
            |card| card.client_auth = ClientAuthKeys::generate().unwrap().public,
            |card| card.attestation = attested().attestation,
            |card| card.suites = "AESGCM_SHA256".parse().unwrap(),
            |card| card.kem = Some(Kem::MlKem768),
        ];
        for change in changes {
            let mut other = one.clone();
            change(&mut other);
            assert_ne!(other.fingerprint(), one.fingerprint());
        }
    }
}
