//! PKCS#11 URIs: RFC 7512, the part of it that names one private key, and nothing that hides a secret in a text.
//!
//! Parsed here and not by a crate: of the two on crates.io one passes attributes through undecoded and lets unknown ones by,
//! the other calls itself a work in progress.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result};

/// A key on a PKCS#11 token, by name: `pkcs11:token=cosigner;object=noise?module-path=/usr/lib/softhsm/libsofthsm2.so`.
///
/// | attribute | meaning | bytes |
/// |---|---|---|
/// | `token`, `manufacturer`, `model`, `serial` | the token's description of itself (`CK_TOKEN_INFO`); all that are given must match | 1–32, 32, 16, 16 |
/// | `object` | the key's `CKA_LABEL` | 1–255 |
/// | `id` | the key's `CKA_ID`, any bytes, percent-encoded | 1–255 |
/// | `type` | `private` or `public`; says nothing here, where the key pair is meant | |
/// | `?module-path` | absolute path of the module; always required to open | 1–4096 |
/// | `&pin-source` | absolute path, or `file:` URI, of a file that holds the PIN | 1–4096 |
///
/// Refused, with the reason: `slot-*` (slot numbers change between runs), `module-name`, `pin-value` (a PIN in a URI ends up in
/// logs and process lists), attributes that are unknown, repeated or empty, and any text longer than 4 KiB.
/// `Display` writes the canonical form: attributes in the order of the table, everything escaped that needs it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Pkcs11Uri {
    token: Option<String>,
    manufacturer: Option<String>,
    model: Option<String>,
    serial: Option<String>,
    object: Option<String>,
    id: Option<Vec<u8>>,
    module_path: Option<PathBuf>,
    pin_source: Option<PathBuf>,
}

/// The longest text that is parsed, in bytes.
const MAX_LEN: usize = 4096;

impl Pkcs11Uri {
    /// The key called `object` on the token called `token`, behind the module at `module`.
    ///
    /// # Errors
    /// `Locator`: a name is empty or too long, or the path is not absolute UTF-8.
    pub fn for_key(module: &Path, token: &str, object: &str) -> Result<Self> {
        let Some(module) = module.to_str() else {
            return Err(refused("the module's path is not UTF-8"));
        };
        let uri = Self {
            token: Some(text("token", 32, token.into())?),
            object: Some(text("object", 255, object.into())?),
            module_path: Some(absolute("module-path", module.into())?),
            ..Self::default()
        };
        uri.bounded()
    }

    /// Its canonical form can be parsed again: escapes may have made it longer.
    fn bounded(self) -> Result<Self> {
        if self.to_string().len() > MAX_LEN { Err(refused("it is longer than 4096 bytes")) } else { Ok(self) }
    }

    /// `CK_TOKEN_INFO.label` that the token must have.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// `CK_TOKEN_INFO.manufacturerID` that the token must have.
    pub fn manufacturer(&self) -> Option<&str> {
        self.manufacturer.as_deref()
    }

    /// `CK_TOKEN_INFO.model` that the token must have.
    pub fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// `CK_TOKEN_INFO.serialNumber` that the token must have.
    pub fn serial(&self) -> Option<&str> {
        self.serial.as_deref()
    }

    /// `CKA_LABEL` that the key must have.
    pub fn object(&self) -> Option<&str> {
        self.object.as_deref()
    }

    /// `CKA_ID` that the key must have.
    pub fn id(&self) -> Option<&[u8]> {
        self.id.as_deref()
    }

    /// The module's shared object.
    pub fn module_path(&self) -> Option<&Path> {
        self.module_path.as_deref()
    }

    /// The file that holds the PIN.
    pub fn pin_source(&self) -> Option<&Path> {
        self.pin_source.as_deref()
    }

    /// The same key, named as narrowly as the token allows. `pin-source` is kept.
    #[cfg(feature = "pkcs11")]
    pub(crate) fn narrowed(&self, token: &str, serial: &str, object: &str, id: &[u8]) -> Self {
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        Self {
            token: some(token),
            manufacturer: None,
            model: None,
            serial: some(serial),
            object: some(object),
            id: Some(id.to_vec()).filter(|id| !id.is_empty()),
            module_path: self.module_path.clone(),
            pin_source: self.pin_source.clone(),
        }
    }

    fn path_attribute(&mut self, name: &str, value: &str) -> Result<()> {
        match name {
            "token" => once(name, &mut self.token, text(name, 32, utf8(name, value)?)?),
            "manufacturer" => once(name, &mut self.manufacturer, text(name, 32, utf8(name, value)?)?),
            "model" => once(name, &mut self.model, text(name, 16, utf8(name, value)?)?),
            "serial" => once(name, &mut self.serial, text(name, 16, utf8(name, value)?)?),
            "object" => once(name, &mut self.object, text(name, 255, utf8(name, value)?)?),
            "id" => {
                let id = decode(name, value)?;
                if id.is_empty() || id.len() > 255 {
                    return Err(refused("`id` must have 1 to 255 bytes"));
                }
                once(name, &mut self.id, id)
            }
            "slot-id" | "slot-manufacturer" | "slot-description" => Err(Error::new(
                ErrorKind::Locator,
                format!(
                    "The PKCS#11 URI names a slot (`{name}`); slots are renumbered whenever a reader or token comes or goes."
                ),
                "Name the token instead, by `token=` or `serial=`; `claviger-ceremony token list` shows them.",
            )),
            _ => Err(unknown(name)),
        }
    }

    fn query_attribute(&mut self, name: &str, value: &str) -> Result<()> {
        match name {
            "module-path" => once(name, &mut self.module_path, absolute(name, utf8(name, value)?)?),
            "pin-source" => once(name, &mut self.pin_source, file_path(value)?),
            "pin-value" => Err(Error::new(
                ErrorKind::Locator,
                "The PKCS#11 URI holds a PIN (`pin-value`); a PIN in a URI ends up in logs and process lists.",
                "Put the PIN in a file of mode 0600 and name it by `pin-source=file:/path`, or leave it out to be asked. \
                 If the URI was stored or logged, change the PIN.",
            )),
            "module-name" => Err(Error::new(
                ErrorKind::Locator,
                "The PKCS#11 URI names its module by `module-name`, which each system resolves differently.",
                "Give the file: `?module-path=/usr/lib/…/module.so`.",
            )),
            _ => Err(unknown(name)),
        }
    }
}

impl FromStr for Pkcs11Uri {
    type Err = Error;

    fn from_str(uri: &str) -> Result<Self> {
        if uri.len() > MAX_LEN {
            return Err(refused("it is longer than 4096 bytes"));
        }
        let rest = uri.strip_prefix("pkcs11:").ok_or_else(|| refused("it does not begin with `pkcs11:`"))?;
        let (path, query) = match rest.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (rest, None),
        };
        let mut parsed = Self::default();
        let mut kind_seen = None;
        for attribute in path.split(';').filter(|_| !path.is_empty()) {
            let (name, value) = split(attribute)?;
            allowed(name, value, PATH_CHARACTERS)?;
            if name == "type" {
                if !matches!(value, "private" | "public") {
                    return Err(refused("`type` is neither `private` nor `public`"));
                }
                once(name, &mut kind_seen, ())?;
            } else {
                parsed.path_attribute(name, value)?;
            }
        }
        if let Some(query) = query {
            for attribute in query.split('&') {
                let (name, value) = split(attribute)?;
                allowed(name, value, QUERY_CHARACTERS)?;
                parsed.query_attribute(name, value)?;
            }
        }
        parsed.bounded()
    }
}

impl fmt::Display for Pkcs11Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = |value: &Option<String>| value.as_deref().map(|value| encode(value.as_bytes(), PATH_CHARACTERS));
        let file = |value: &Option<PathBuf>| {
            value.as_deref().map(|value| encode(value.as_os_str().as_encoded_bytes(), QUERY_CHARACTERS))
        };
        let id = self.id.as_deref().map(|id| id.iter().map(|byte| format!("%{byte:02X}")).collect());
        let attributes = [
            ("token", path(&self.token)),
            ("manufacturer", path(&self.manufacturer)),
            ("model", path(&self.model)),
            ("serial", path(&self.serial)),
            ("object", path(&self.object)),
            ("id", id),
        ];
        f.write_str("pkcs11:")?;
        join(f, "", ";", attributes)?;
        let pin_source = file(&self.pin_source).map(|path| format!("file:{path}"));
        join(f, "?", "&", [("module-path", file(&self.module_path)), ("pin-source", pin_source)])
    }
}

/// The path in the value of a `pin-source`: RFC 8089's `file:/path` and `file:///path`, or the path alone.
pub(crate) fn file_path(value: &str) -> Result<PathBuf> {
    let value = query_text(value)?;
    let path = value.strip_prefix("file:").unwrap_or(&value);
    let path = path.strip_prefix("//").filter(|rest| rest.starts_with('/')).unwrap_or(path);
    absolute("pin-source", path.into())
}

/// The text of a value that stands in a query.
pub(crate) fn query_text(value: &str) -> Result<String> {
    allowed("query", value, QUERY_CHARACTERS)?;
    utf8("query", value)
}

/// A value as it stands in a query.
pub(crate) fn query_escaped(bytes: &[u8]) -> String {
    encode(bytes, QUERY_CHARACTERS)
}

fn join<const N: usize>(
    f: &mut fmt::Formatter<'_>,
    first: &str,
    between: &str,
    attributes: [(&str, Option<String>); N],
) -> fmt::Result {
    let mut separator = first;
    for (name, value) in attributes {
        if let Some(value) = value {
            write!(f, "{separator}{name}={value}")?;
            separator = between;
        }
    }
    Ok(())
}

/// `unreserved` and `pk11-res-avail` of RFC 7512, section 2.3, and what its `pk11-pchar` and `pk11-qchar` add.
const BOTH_CHARACTERS: &[u8] = b"-._~:[]@!$'()*+,=";
const PATH_CHARACTERS: &[u8] = b"&";
const QUERY_CHARACTERS: &[u8] = b"/?|";

fn plain(byte: u8, extra: &[u8]) -> bool {
    byte.is_ascii_alphanumeric() || BOTH_CHARACTERS.contains(&byte) || extra.contains(&byte)
}

fn encode(bytes: &[u8], extra: &[u8]) -> String {
    let escape = |&byte: &u8| if plain(byte, extra) { char::from(byte).into() } else { format!("%{byte:02X}") };
    bytes.iter().map(escape).collect()
}

fn split(attribute: &str) -> Result<(&str, &str)> {
    // The attribute is not shown: it may be a PIN whose `pin-value=` was forgotten.
    attribute.split_once('=').ok_or_else(|| refused("an attribute has no `=`"))
}

fn allowed(name: &str, value: &str, extra: &[u8]) -> Result<()> {
    if value.bytes().all(|byte| byte == b'%' || plain(byte, extra)) {
        return Ok(());
    }
    Err(refused(&format!("`{}` holds a character that must be percent-encoded", shown(name))))
}

fn decode(name: &str, value: &str) -> Result<Vec<u8>> {
    unescaped(value).ok_or_else(|| refused(&format!("`{}` holds a `%` without two hexadecimal digits", shown(name))))
}

/// Percent-decoded (RFC 3986, section 2.1); `None` for a `%` without two hexadecimal digits.
pub(crate) fn unescaped(value: &str) -> Option<Vec<u8>> {
    let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
    let mut decoded = Vec::with_capacity(value.len());
    let mut bytes = value.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => (digit(bytes.next())? * 16 + digit(bytes.next())?) as u8,
            byte => byte,
        });
    }
    Some(decoded)
}

fn utf8(name: &str, value: &str) -> Result<String> {
    String::from_utf8(decode(name, value)?).map_err(|_| refused(&format!("`{}` is not UTF-8", shown(name))))
}

fn text(name: &str, limit: usize, value: String) -> Result<String> {
    if value.is_empty() || value.len() > limit || value.contains('\0') {
        return Err(refused(&format!("`{name}` must have 1 to {limit} bytes and no NUL")));
    }
    Ok(value)
}

fn absolute(name: &str, value: String) -> Result<PathBuf> {
    let value = text(name, MAX_LEN, value)?;
    // Two slashes: a `file:` URI with a host.
    if !value.starts_with('/') || value.starts_with("//") {
        return Err(refused(&format!("`{name}` must be an absolute path")));
    }
    Ok(value.into())
}

fn once<T>(name: &str, slot: &mut Option<T>, value: T) -> Result<()> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(refused(&format!("`{name}` is there twice"))),
    }
}

fn unknown(name: &str) -> Error {
    refused(&format!("`{}` is no attribute that is known here", shown(name)))
}

/// An attribute's name as it may be shown: short, and nothing that a terminal would act on.
fn shown(name: &str) -> String {
    name.chars().take(32).map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect()
}

fn refused(why: &str) -> Error {
    Error::new(
        ErrorKind::Locator,
        format!("The PKCS#11 URI is refused: {why}."),
        "Write it as RFC 7512 says: `pkcs11:token=NAME;object=KEY?module-path=/path/to/module.so`; \
         `claviger-ceremony token list` shows the names.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(uri: &str) -> String {
        let error = uri.parse::<Pkcs11Uri>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Locator, "{uri}");
        error.to_string()
    }

    #[test]
    fn all_attributes() {
        let uri: Pkcs11Uri = "pkcs11:type=private;id=%00%fFa;serial=1f;object=a%3Bb%2F;model=SoftHSM%20v2;manufacturer=Snake%20Oil,%20Inc.;token=The%20Software%20PKCS%2311%20Softtoken\
             ?pin-source=file:///run/pin%20file&module-path=/usr/lib/m.so"
            .parse()
            .unwrap();
        assert_eq!(uri.token(), Some("The Software PKCS#11 Softtoken"));
        assert_eq!(uri.manufacturer(), Some("Snake Oil, Inc."));
        assert_eq!((uri.model(), uri.serial()), (Some("SoftHSM v2"), Some("1f")));
        assert_eq!((uri.object(), uri.id()), (Some("a;b/"), Some(&[0, 255, b'a'][..])));
        assert_eq!(uri.module_path(), Some(Path::new("/usr/lib/m.so")));
        assert_eq!(uri.pin_source(), Some(Path::new("/run/pin file")));
        let canonical = "pkcs11:token=The%20Software%20PKCS%2311%20Softtoken;manufacturer=Snake%20Oil,%20Inc.;model=SoftHSM%20v2;serial=1f;object=a%3Bb%2F;id=%00%FF%61\
             ?module-path=/usr/lib/m.so&pin-source=file:/run/pin%20file";
        assert_eq!(uri.to_string(), canonical);
        assert_eq!(canonical.parse::<Pkcs11Uri>().unwrap(), uri);
    }

    #[test]
    fn every_byte_of_a_name_round_trips() {
        let name: String = (1..=255u8).map(char::from).collect();
        for part in name.chars().collect::<Vec<_>>().chunks(16) {
            let part: String = part.iter().collect();
            let uri = Pkcs11Uri::for_key(Path::new("/m?&;%|.so"), &part, &part).unwrap();
            assert_eq!(uri.to_string().parse::<Pkcs11Uri>().unwrap(), uri);
        }
    }

    #[test]
    fn the_empty_uri_names_any_key() {
        assert_eq!("pkcs11:".parse::<Pkcs11Uri>().unwrap(), Pkcs11Uri::default());
        assert_eq!(Pkcs11Uri::default().to_string(), "pkcs11:");
    }

    #[test]
    fn a_pin_is_never_repeated() {
        for uri in
            ["pkcs11:token=a?pin-value=271828", "pkcs11:token=a?271828", "pkcs11:271828", "pkcs11:object=271828\u{7f}"]
        {
            assert!(!refusal(uri).contains("271828"), "{uri}");
        }
        assert!(refusal("pkcs11:?pin-value=1").contains("process lists"));
    }

    #[test]
    fn what_is_refused() {
        for uri in [
            "",
            "PKCS11:token=a",
            "token=a",
            "pkcs11:token=",
            "pkcs11:token",
            "pkcs11:token=a;",
            "pkcs11:;token=a",
            "pkcs11:token=a;token=b",
            "pkcs11:type=cert",
            "pkcs11:type=private;type=private",
            "pkcs11:slot-id=0",
            "pkcs11:slot-description=x",
            "pkcs11:x-vendor=1",
            "pkcs11:library-version=1",
            "pkcs11:token=a b",
            "pkcs11:token=a%2",
            "pkcs11:token=a%zz",
            "pkcs11:token=%ff",
            "pkcs11:token=a%00",
            "pkcs11:token=a/b",
            "pkcs11:token=é",
            "pkcs11:id=",
            "pkcs11:token=a?",
            "pkcs11:?module-path=m.so",
            "pkcs11:?module-name=softhsm2",
            "pkcs11:?pin-source=|cmd",
            "pkcs11:?pin-source=file:pin",
            "pkcs11:?pin-source=file://host/pin",
            "pkcs11:?token=a",
            "pkcs11:module-path=/m.so",
            "pkcs11:?module-path=/m.so&module-path=/m.so",
            "pkcs11:?module-path=/m.so;pin-source=/p",
            "pkcs11:serial=12345678901234567",
        ] {
            refusal(uri);
        }
        assert!(refusal("pkcs11:slot-id=3").contains("renumbered"));
        refusal(&format!("pkcs11:id={}", "%00".repeat(256)));
        refusal(&format!("pkcs11:object={}", "a".repeat(5000)));
        // 3,900 bytes as they stand, 4,400 in canonical form.
        refusal(&format!("pkcs11:id={}?module-path=/{}", "a".repeat(250), "m".repeat(3620)));
    }
}
