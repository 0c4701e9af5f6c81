//! `token explain`.

mod texts;

use std::path::Path;

use claviger::error::{Error, ErrorKind, Result};
use claviger::program::{COLUMNS, Terminal, store_dir, wrapped};
use claviger::store::Store;
use claviger::token::from_hsm;
use claviger_hsm::{Locator, TokenKind};
use serde::Serialize;

use super::shown::TokenReport;
use super::{look, parse};
use crate::cli::Explain;
use crate::commands::attend;
use texts::{FAMILIES, Family, MACHINE, Rows, THIEF};

const INDENT: usize = 22;

/// `token explain --json`: `{"machine": […], "thief": […], "families": [{"backend", "parts"}], "tokens": […]}`, where parts are
/// `{"name", "what"}` and tokens are as `token list --json` gives them.
#[derive(Serialize)]
struct Explanation {
    machine: Vec<Part>,
    thief: Vec<Part>,
    families: Vec<FamilyReport>,
    /// Those that are here now.
    tokens: Vec<TokenReport>,
}

#[derive(Serialize)]
struct FamilyReport {
    backend: String,
    parts: Vec<Part>,
}

#[derive(Serialize)]
struct Part {
    name: &'static str,
    what: &'static str,
}

fn parts(rows: Rows) -> Vec<Part> {
    rows.iter().map(|&(name, what)| Part { name, what }).collect()
}

pub(super) fn explain(store: Option<&Path>, explain: &Explain, terminal: &Terminal) -> Result<()> {
    let locator = explain.locator.as_deref().map(parse).transpose()?;
    let families: Vec<&Family> = match &locator {
        Some(locator) => FAMILIES.iter().filter(|family| family.kind == kind_of(locator)).collect(),
        None => FAMILIES.iter().collect(),
    };
    let devices = match &locator {
        Some(Locator::File(_)) => Vec::new(),
        Some(locator) => {
            let devices = attend::look(terminal, || look::of(locator)).map_err(from_hsm)?;
            if devices.is_empty() {
                return Err(attend::look(terminal, || absent(locator)));
            }
            devices
        }
        // What can not be looked for is no part of an explanation.
        None => [TokenKind::OpenPgp, TokenKind::Piv]
            .into_iter()
            .flat_map(|kind| attend::look(terminal, || look::cards(kind)).unwrap_or_default())
            .collect(),
    };
    let explanation = Explanation {
        machine: parts(MACHINE),
        thief: parts(THIEF),
        families: families
            .iter()
            .map(|family| FamilyReport { backend: family.kind.to_string(), parts: parts(family.parts) })
            .collect(),
        tokens: devices.iter().map(TokenReport::new).collect(),
    };
    let own = own_key(store);
    let mut blocks = Vec::new();
    if locator.is_none() {
        blocks.push(block("The keys of a machine", MACHINE));
    }
    blocks.extend(families.iter().map(|family| block(family.title, family.parts)));
    blocks.push(block("What a thief has with", THIEF));
    for token in &explanation.tokens {
        blocks.push(format!("Here now:\n{}", token.text()));
        if let Some((machine, hex)) = &own
            && token.holds(hex)
        {
            blocks.push(format!("The static key of this machine, \"{machine}\", is on this token.\n"));
        }
    }
    terminal.result(&blocks.join("\n"), &explanation)
}

fn absent(locator: &Locator) -> Error {
    let is_card = matches!(locator, Locator::OpenPgp(_) | Locator::Piv(_));
    if is_card && look::held().is_ok_and(|held| !held.is_empty()) {
        return Error::new(
            ErrorKind::TokenBusy,
            format!("No token answers to {locator}, and another program holds a card for itself alone."),
            "End that program (GnuPG: `gpgconf --kill scdaemon`), or leave the locator out.",
        );
    }
    Error::new(
        ErrorKind::TokenAbsent,
        format!("No token answers to {locator}."),
        "Plug it in, see what is there with `claviger-ceremony token list`, or leave the locator out.",
    )
}

fn kind_of(locator: &Locator) -> TokenKind {
    match locator {
        Locator::Pkcs11(_) => TokenKind::Pkcs11,
        Locator::OpenPgp(_) => TokenKind::OpenPgp,
        Locator::Piv(_) => TokenKind::Piv,
        Locator::Tpm(_) => TokenKind::Tpm,
        _ => TokenKind::Software,
    }
}

/// The name of the machine whose store is here, and its static public key in hexadecimal.
fn own_key(store: Option<&Path>) -> Option<(String, String)> {
    let card = Store::open(&store_dir(store).ok()?).ok()?.machine().ok()?.card;
    Some((card.identifier.to_string(), card.static_public.to_hex()))
}

/// A title, and rows in two columns.
fn block(title: &str, rows: Rows) -> String {
    let mut text = format!("{title}\n");
    for (name, what) in rows {
        let row = format!("  {name:<width$}{what}", width = INDENT - 2);
        text += &(wrapped(&row, INDENT, COLUMNS).join("\n") + "\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_fit_a_terminal() {
        let mut all = block("", MACHINE) + &block("", THIEF);
        for family in &FAMILIES {
            all += &block(family.title, family.parts);
        }
        for line in all.lines() {
            assert!(line.chars().count() <= COLUMNS, "{line}");
            // Titles have one column.
            assert!(!line.starts_with(' ') || line.chars().nth(INDENT - 1) == Some(' '), "{line}");
        }
        assert!(all.contains("\n  static key          on the token"), "{all}");
    }
}
