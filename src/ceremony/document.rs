//! What travels: identity cards, challenges, proofs, successions. Texts that begin with a title line `claviger … N` and end with a `checksum:` line; several may
//! stand one after the other in one file or QR code.

use super::proof::{Challenge, Proof};
use super::succession::Succession;
use crate::error::{Error, ErrorKind, Result};
use crate::identity::lines::CHECKSUM;
use crate::identity::{IdentityCard, IdentityError};

/// Longest text that is read at once, in bytes: every card of a full plan without attestations, or some thirty with.
pub const MAX_BUNDLE_LEN: usize = 1024 * 1024;

/// One text that travels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// An identity card.
    Card(IdentityCard),
    /// A challenge.
    Challenge(Challenge),
    /// A proof.
    Proof(Proof),
    /// A succession.
    Succession(Succession),
}

/// What a title line says that follows.
#[derive(Clone, Copy)]
enum Title {
    Card,
    Challenge,
    Proof,
    Succession,
}

impl Title {
    const ALL: [(&str, Self); 4] = [
        ("claviger identity card ", Self::Card),
        ("claviger challenge ", Self::Challenge),
        ("claviger proof ", Self::Proof),
        ("claviger succession ", Self::Succession),
    ];

    fn of(line: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(title, _)| line.starts_with(title)).map(|(_, kind)| kind)
    }

    fn what(self) -> &'static str {
        match self {
            Self::Card => "identity card",
            Self::Challenge => "challenge",
            Self::Proof => "proof",
            Self::Succession => "succession",
        }
    }

    fn read(self, text: &str) -> Result<Document> {
        match self {
            Self::Card => Ok(Document::Card(IdentityCard::from_text(text)?)),
            Self::Challenge => Challenge::from_text(text).map(Document::Challenge),
            Self::Proof => Proof::from_text(text).map(Document::Proof),
            Self::Succession => Succession::from_text(text).map(Document::Succession),
        }
    }
}

impl Document {
    /// Reads every document of a text, at least one. Blank lines may stand between them, and nothing else.
    ///
    /// # Errors
    /// [`CardInvalid`](crate::ErrorKind::CardInvalid) for text that is none of them or longer than [`MAX_BUNDLE_LEN`], and those of each one's reader. Of
    /// several, the message says which one.
    pub fn read_all(text: &str) -> Result<Vec<Self>> {
        if text.len() > MAX_BUNDLE_LEN {
            return Err(IdentityError::CardSize(text.len()).into());
        }
        if text.contains('\r') {
            return Err(IdentityError::CardLineEnds.into());
        }
        let (mut documents, mut rest, mut line) = (Vec::new(), text, 1);
        loop {
            let blank = rest.len() - rest.trim_start_matches('\n').len();
            (rest, line) = (&rest[blank..], line + blank);
            if rest.is_empty() {
                break;
            }
            let title = Title::of(rest).ok_or_else(|| not_a_title(line))?;
            let (document, behind) = rest.split_at(length(rest));
            let alone = documents.is_empty() && behind.bytes().all(|byte| byte == b'\n');
            documents.push(title.read(document).map_err(|error| match alone {
                true => error,
                false => located(&error, title, documents.len() + 1, line),
            })?);
            (rest, line) = (behind, line + document.matches('\n').count());
        }
        if documents.is_empty() { Err(not_a_title(line)) } else { Ok(documents) }
    }

    /// Its text.
    pub fn to_text(&self) -> String {
        match self {
            Self::Card(card) => card.to_text(),
            Self::Challenge(challenge) => challenge.to_text(),
            Self::Proof(proof) => proof.to_text(),
            Self::Succession(succession) => succession.to_text(),
        }
    }

    /// What people call it: `identity card`, `challenge`, `proof`, `succession`.
    pub fn what(&self) -> &'static str {
        match self {
            Self::Card(_) => Title::Card,
            Self::Challenge(_) => Title::Challenge,
            Self::Proof(_) => Title::Proof,
            Self::Succession(_) => Title::Succession,
        }
        .what()
    }
}

/// The length of the document that `text` begins with: to the end of its checksum line. All of `text` when there is none: the document's reader says what
/// is missing.
fn length(text: &str) -> usize {
    let mut end = 0;
    for line in text.split_inclusive('\n') {
        end += line.len();
        if line.strip_prefix(CHECKSUM).is_some_and(|rest| rest.starts_with(": ")) {
            break;
        }
    }
    end
}

fn not_a_title(line: usize) -> Error {
    Error::new(
        ErrorKind::CardInvalid,
        format!("Line {line} is not the title of an identity card, challenge, proof or succession."),
        "Give a file as `claviger-ceremony` wrote it, or several of them one after the other, unchanged.",
    )
}

/// Which of several it was.
fn located(error: &Error, title: Title, number: usize, line: usize) -> Error {
    let what = format!("Document {number}, the {} that begins at line {line}: {error}", title.what());
    Error::new(error.kind(), what, error.hint())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{ClientAuthKeys, Curve, OnionKeys, StaticPublic, Suites, TokenKind};

    fn card(name: &str) -> IdentityCard {
        IdentityCard {
            identifier: name.parse().unwrap(),
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

    #[test]
    fn several_stand_in_one_text() {
        let (one, two) = (card("one"), card("two"));
        let [a, b] = [&one, &two].map(IdentityCard::to_text);
        let cards = vec![Document::Card(one), Document::Card(two)];
        for text in [format!("{a}{b}"), format!("\n\n{a}\n{b}\n\n")] {
            assert_eq!(Document::read_all(&text).unwrap(), cards);
        }
        assert_eq!(Document::read_all(&a).unwrap(), cards[..1]);
        assert_eq!(cards[1].to_text(), b);
    }

    #[test]
    fn nothing_else_does() {
        let (a, b) = (card("one").to_text(), card("two").to_text());
        let refused = |text: &str| {
            let error = Document::read_all(text).unwrap_err();
            (error.kind(), error.to_string())
        };
        let kind = ErrorKind::CardInvalid;
        let title =
            |line| (kind, format!("Line {line} is not the title of an identity card, challenge, proof or succession."));
        assert_eq!(refused(""), title(1));
        assert_eq!(refused("\n\n"), title(3));
        assert_eq!(refused("https://example.org"), title(1));
        assert_eq!(refused(&format!("{a} {b}")), title(15));
        assert_eq!(refused(&format!("{a}\nfrom: me\n{b}")), title(16));
        assert_eq!(
            refused(&a.replace('\n', "\r\n")),
            (kind, "The identity card's line ends were changed on the way.".into())
        );
        assert_eq!(refused(&"\n".repeat(MAX_BUNDLE_LEN + 1)).0, kind);
        // The first is cut: its reader meets the second.
        let cut = a.split_once("checksum").unwrap().0;
        let (kind, what) = refused(&format!("{cut}{b}"));
        assert_eq!(
            (kind, what.as_str()),
            (ErrorKind::CardInvalid, "Line 14 of the identity card is not `checksum: …`.")
        );
        let (kind, what) = refused(&format!("{a}\n{}", b.replace("role: cosigner", "role: wallet")));
        assert_eq!(kind, ErrorKind::CardChecksum);
        assert!(
            what.starts_with("Document 2, the identity card that begins at line 16: The identity card's checksum"),
            "{what}"
        );
    }
}
