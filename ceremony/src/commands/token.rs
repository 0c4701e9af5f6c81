//! `token list` and `token generate`.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use claviger::error::{ErrorKind, Result};
use claviger::identity::{Curve, StaticPublic, TokenKind};
use claviger::token::from_hsm;
use claviger_hsm::pkcs11::{self, TokenInfo};
use claviger_hsm::{Locator, PublicKey};
use serde::Serialize;

use crate::cli::{Generate, List};
use crate::report::Key;
use claviger::program::{Pins, Terminal, one_line};

/// Where distributions put PKCS#11 modules.
const USUAL_PLACES: [&str; 10] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/opensc-pkcs11.so",
    "/usr/lib/aarch64-linux-gnu/opensc-pkcs11.so",
    "/usr/lib64/pkcs11/opensc-pkcs11.so",
    "/usr/lib/x86_64-linux-gnu/libykcs11.so",
    "/usr/lib/aarch64-linux-gnu/libykcs11.so",
    "/usr/lib/x86_64-linux-gnu/libykcs11.so.2",
    "/usr/lib/aarch64-linux-gnu/libykcs11.so.2",
    "/usr/lib64/libykcs11.so.2",
];

/// `token list --json`: `{"tokens": […], "key_files": […], "failed_modules": […]}`.
#[derive(Serialize)]
struct Listing {
    tokens: Vec<TokenReport>,
    key_files: Vec<Key>,
    /// Modules in the usual places that could not be used.
    failed_modules: Vec<Failed>,
}

#[derive(Serialize)]
struct Failed {
    module: String,
    why: String,
}

#[derive(Serialize)]
struct TokenReport {
    module: String,
    label: String,
    manufacturer: String,
    model: String,
    serial: String,
    firmware: String,
    /// Whether it is a device; a token in software can be copied.
    hardware: bool,
    curves: Vec<String>,
    pin: String,
    keys: Vec<KeyReport>,
    /// Why it can not be used; `null` when it can.
    unusable: Option<String>,
}

#[derive(Serialize)]
struct KeyReport {
    label: String,
    /// `CKA_ID`, hexadecimal.
    id: String,
    /// `null` when it can not be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<Key>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unusable: Option<String>,
}

pub(super) fn list(list: &List, terminal: &Terminal) -> Result<()> {
    let mut listing = Listing { tokens: Vec::new(), key_files: Vec::new(), failed_modules: Vec::new() };
    for path in &list.key_file {
        let locator = Locator::File(std::path::absolute(path).unwrap_or_else(|_| path.clone()));
        let mut pins = Pins::new(terminal);
        let opened = claviger_hsm::open(&locator, None, &mut pins);
        let token = pins.outcome(opened.map_err(from_hsm))?;
        let public = static_public(token.public_key())?;
        listing.key_files.push(Key::new(locator.to_string(), TokenKind::Software, &public));
    }
    for module in &list.module {
        let module = std::path::absolute(module).unwrap_or_else(|_| module.clone());
        let tokens = pkcs11::list(&module).map_err(from_hsm)?;
        listing.tokens.extend(tokens.into_iter().map(|token| describe(&module, token)));
    }
    if list.module.is_empty() && list.key_file.is_empty() {
        for module in installed() {
            match pkcs11::list(&module) {
                Ok(tokens) => listing.tokens.extend(tokens.into_iter().map(|token| describe(&module, token))),
                Err(error) => {
                    listing.failed_modules.push(Failed { module: module.display().to_string(), why: error.to_string() })
                }
            }
        }
    }
    if listing.tokens.is_empty() && listing.key_files.is_empty() {
        terminal.note(
            "No token was found. Name the token's PKCS#11 module with `claviger-ceremony token list --module PATH`.",
        );
    }
    terminal.result(&text(&listing), &listing)
}

/// The modules that are there, each once.
fn installed() -> Vec<PathBuf> {
    let mut seen = BTreeSet::new();
    let new = |place: &&str| Path::new(place).canonicalize().is_ok_and(|path| seen.insert(path));
    USUAL_PLACES.iter().copied().filter(new).map(PathBuf::from).collect()
}

fn describe(module: &Path, token: TokenInfo) -> TokenReport {
    let pin = match (token.pin.set, token.pin.pad) {
        (false, _) => "not set".to_owned(),
        (true, false) => format!("set; {}", token.pin.tries_left),
        (true, true) => format!("set, entered on the token; {}", token.pin.tries_left),
    };
    let keys = token.keys.iter().map(|key| {
        let id: String = key.id.iter().map(|byte| format!("{byte:02x}")).collect();
        let report = key.public_key.clone().and_then(|public| {
            let public = static_public(&public).map_err(|error| error.to_string())?;
            Ok(Key::new(locator(module, &token, &key.label, &key.id)?, kind(token.hardware), &public))
        });
        let (key_report, unusable) = match report {
            Ok(report) => (Some(report), None),
            Err(why) => (None, Some(why)),
        };
        KeyReport { label: key.label.clone(), id, key: key_report, unusable }
    });
    let mut keys: Vec<KeyReport> = keys.collect();
    // Modules list objects in an order of their own, which changes.
    keys.sort_by(|a, b| (&a.label, &a.id).cmp(&(&b.label, &b.id)));
    TokenReport {
        module: module.display().to_string(),
        curves: token.curves.iter().map(ToString::to_string).collect(),
        pin,
        keys,
        label: token.label,
        manufacturer: token.manufacturer,
        model: token.model,
        serial: token.serial,
        firmware: token.firmware,
        hardware: token.hardware,
        unusable: token.unusable,
    }
}

/// The locator of a key, as narrow as its token's and its own names allow, in canonical form.
fn locator(module: &Path, token: &TokenInfo, label: &str, id: &[u8]) -> std::result::Result<String, String> {
    let escaped = |bytes: &[u8]| bytes.iter().map(|byte| format!("%{byte:02X}")).collect::<String>();
    let names = [
        ("token", token.label.as_bytes()),
        ("serial", token.serial.as_bytes()),
        ("object", label.as_bytes()),
        ("id", id),
    ];
    let names: Vec<String> = names
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| format!("{name}={}", escaped(value)))
        .collect();
    let uri = format!("pkcs11:{}?module-path={}", names.join(";"), escaped(module.as_os_str().as_encoded_bytes()));
    uri.parse::<Locator>().map(|locator| locator.to_string()).map_err(|error| error.to_string())
}

fn text(listing: &Listing) -> String {
    let mut text = String::new();
    for token in &listing.tokens {
        let or_none = |value: &str| if value.is_empty() { "none".to_owned() } else { one_line(value) };
        let software = if token.hardware { "" } else { ", in software: its keys can be copied" };
        let _ = writeln!(text, "{} token \"{}\"{software}", one_line(&token.model), one_line(&token.label));
        for (name, value) in [
            ("module", token.module.clone()),
            ("maker", or_none(&token.manufacturer)),
            ("serial", or_none(&token.serial)),
            ("firmware", token.firmware.clone()),
            ("curves", or_none(&token.curves.join(" "))),
            ("PIN", token.pin.clone()),
        ] {
            let _ = writeln!(text, "  {name:<9} {value}");
        }
        if let Some(why) = &token.unusable {
            let _ = writeln!(text, "  can not be used: {why}");
        }
        for key in &token.keys {
            let _ = match (&key.key, &key.unusable) {
                (Some(usable), _) => {
                    writeln!(text, "  \"{}\": {}\n    {}", one_line(&key.label), usable.what(), usable.locator)
                }
                (None, why) => writeln!(
                    text,
                    "  \"{}\": can not be used: {}",
                    one_line(&key.label),
                    why.as_deref().unwrap_or_default()
                ),
            };
        }
    }
    for key in &listing.key_files {
        let _ = writeln!(text, "{}\n  {}", key.what(), key.locator);
    }
    for failed in &listing.failed_modules {
        let _ = writeln!(text, "module {}\n  can not be used: {}", failed.module, failed.why);
    }
    text
}

pub(super) fn generate(generate: &Generate, terminal: &Terminal) -> Result<()> {
    let curve = match generate.curve {
        Curve::X25519 => claviger_hsm::Curve::X25519,
        Curve::P256 => claviger_hsm::Curve::P256,
    };
    let mut pins = Pins::new(terminal);
    let (locator, token, public) = match parse(&generate.locator)? {
        Locator::Pkcs11(uri) => {
            let made = pkcs11::generate(&uri, curve, &mut pins);
            let (uri, public) = pins.outcome(made.map_err(from_hsm))?;
            let hardware = pkcs11::is_hardware(&uri).map_err(from_hsm)?;
            (Locator::Pkcs11(uri), kind(hardware), public)
        }
        Locator::File(path) => {
            terminal.warn(
                "this makes a SOFTWARE key: it is in this computer's memory when used, and whoever copies the file and learns its passphrase has it.",
            );
            let made = claviger_hsm::software::generate(&path, curve, &mut pins);
            let public = pins.outcome(made.map_err(from_hsm))?;
            (Locator::File(path), TokenKind::Software, public)
        }
    };
    let key = Key::new(locator.to_string(), token, &static_public(&public)?);
    terminal.note(&format!("Made a {}. Its locator, for `claviger-ceremony init --token`:", key.what()));
    terminal.result(&format!("{}\n", key.locator), &key)
}

/// What a card says of a key that is, or is not, in a device.
pub(super) fn kind(hardware: bool) -> TokenKind {
    if hardware { TokenKind::Hardware } else { TokenKind::Software }
}

/// A locator as it is stored and used: a key file's path is absolute, so that it holds from every directory.
pub(super) fn parse(text: &str) -> Result<Locator> {
    match text.parse().map_err(from_hsm)? {
        Locator::File(path) => {
            let absolute = std::path::absolute(&path).map_err(|error| crate::files::failed(&path, "find", error))?;
            Ok(Locator::File(absolute))
        }
        locator => Ok(locator),
    }
}

/// The token's public key as an identity holds it.
pub(super) fn static_public(key: &PublicKey) -> Result<StaticPublic> {
    let curve = match key.curve() {
        claviger_hsm::Curve::X25519 => Curve::X25519,
        claviger_hsm::Curve::P256 => Curve::P256,
        #[allow(unreachable_patterns)] // Reached when that crate learns a curve first.
        other => {
            let what = format!("The key is on {other}, which identities do not have.");
            return Err(claviger::Error::new(ErrorKind::CurveUnsupported, what, "Use a key on x25519 or p256."));
        }
    };
    Ok(StaticPublic::new(curve, key.as_bytes())?)
}
