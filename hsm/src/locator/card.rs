//! Keys on smart cards: by what the card says of itself.

use std::fmt;
use std::path::PathBuf;

use super::query;
use super::refused;
use crate::error::Result;

/// The decryption key of an OpenPGP card: `openpgp:0006:12345678`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OpenPgpLocator {
    /// The maker's number (OpenPGP card 3.4, section 4.2.1).
    pub manufacturer: u16,
    /// The serial number of the application identifier.
    pub serial: u32,
    /// The file that holds the PIN.
    pub pin_source: Option<PathBuf>,
}

impl OpenPgpLocator {
    pub(crate) fn parse(rest: &str) -> Result<Self> {
        let (path, query) = query::split(rest, false)?;
        let why = "after `openpgp:` come the maker and the serial number of the card, 4 and 8 hexadecimal digits with a colon between";
        let (manufacturer, serial) = path.split_once(':').ok_or_else(|| refused(why))?;
        let number = |text: &str, digits: usize| {
            let fits = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            fits.then(|| u32::from_str_radix(text, 16).ok()).flatten().ok_or_else(|| refused(why))
        };
        let manufacturer = u16::try_from(number(manufacturer, 4)?).map_err(|_| refused(why))?;
        Ok(Self { manufacturer, serial: number(serial, 8)?, pin_source: query.pin_source })
    }
}

impl fmt::Display for OpenPgpLocator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "openpgp:{:04X}:{:08X}", self.manufacturer, self.serial)?;
        query::write(f, None, self.pin_source.as_deref())
    }
}

/// A key management key of a PIV card: `piv:serial=12345678;slot=9d`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PivLocator {
    /// Which card.
    pub card: CardId,
    /// Which key.
    pub slot: PivSlot,
    /// The file that holds the PIN.
    pub pin_source: Option<PathBuf>,
}

/// How a PIV card is told from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CardId {
    /// A YubiKey's serial number, as it is printed on it.
    Serial(u32),
    /// The GUID of the card's CHUID (SP 800-73-4, part 1, section 3.1.2), 16 bytes.
    Guid([u8; 16]),
}

/// A slot whose key may agree: 9D, or a retired key management key (SP 800-73-4, part 1, table 4b). Written in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PivSlot(u8);

impl PivSlot {
    /// Key management, 9D.
    pub const KEY_MANAGEMENT: Self = Self(0x9d);

    /// Digital signature, 9C: no key there agrees, and no locator of a key that does names it. See [`crate::sign`].
    #[allow(dead_code)] // Used by a backend that a build may leave out.
    pub(crate) const SIGNATURE: Self = Self(0x9c);

    /// The slot of that key reference: 0x9D, or 0x82 to 0x95.
    pub fn new(reference: u8) -> Option<Self> {
        matches!(reference, 0x9d | 0x82..=0x95).then_some(Self(reference))
    }

    /// Its key reference.
    pub fn reference(self) -> u8 {
        self.0
    }

    /// 9D, then 82 to 95.
    pub fn all() -> impl Iterator<Item = Self> {
        std::iter::once(Self::KEY_MANAGEMENT).chain((0x82..=0x95).map(Self))
    }
}

impl fmt::Display for PivSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}", self.0)
    }
}

impl std::str::FromStr for PivSlot {
    type Err = crate::error::Error;

    fn from_str(text: &str) -> Result<Self> {
        let reference = (text.len() == 2).then(|| u8::from_str_radix(text, 16).ok()).flatten();
        reference.and_then(Self::new).ok_or_else(|| {
            refused("the slot is neither 9d nor one of 82 to 95; 9a, 9c and 9e hold keys for other purposes")
        })
    }
}

impl PivLocator {
    pub(super) fn parse(rest: &str) -> Result<Self> {
        let (card, slot, pin_source) = named(rest)?;
        Ok(Self { card, slot: slot.parse()?, pin_source })
    }
}

/// The card, its slot as it is written, and the file with its PIN, of what follows `piv:`.
pub(crate) fn named(rest: &str) -> Result<(CardId, &str, Option<PathBuf>)> {
    let (path, query) = query::split(rest, false)?;
    let (mut card, mut slot) = (None, None);
    for attribute in path.split(';') {
        match attribute.split_once('=') {
            Some(("serial", text)) if card.is_none() => card = Some(CardId::Serial(serial(text)?)),
            Some(("guid", text)) if card.is_none() => card = Some(CardId::Guid(guid(text)?)),
            Some(("slot", text)) if slot.is_none() => slot = Some(text),
            _ => {
                return Err(refused(
                    "after `piv:` come `serial=` or `guid=`, and `slot=`, each once, with `;` between",
                ));
            }
        }
    }
    let card = card.ok_or_else(|| refused("it names no card: `serial=` or `guid=` is missing"))?;
    let slot = slot.ok_or_else(|| refused("it names no key: `slot=` is missing"))?;
    Ok((card, slot, query.pin_source))
}

fn serial(text: &str) -> Result<u32> {
    // One spelling for each number.
    let number = text.parse::<u32>().ok().filter(|number| number.to_string() == text);
    number.ok_or_else(|| refused("the serial number is not a decimal number below 2^32 without leading zeros"))
}

fn guid(text: &str) -> Result<[u8; 16]> {
    let why = || refused("the GUID does not have 32 hexadecimal digits");
    if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(why());
    }
    let number = u128::from_str_radix(text, 16).map_err(|_| why())?;
    Ok(number.to_be_bytes())
}

impl fmt::Display for CardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Serial(serial) => write!(f, "serial={serial}"),
            Self::Guid(guid) => write!(f, "guid={:032x}", u128::from_be_bytes(*guid)),
        }
    }
}

impl fmt::Display for PivLocator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "piv:{};slot={}", self.card, self.slot)?;
        query::write(f, None, self.pin_source.as_deref())
    }
}
