//! `token attest`.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use claviger::error::Result;
use claviger::program::{Terminal, one_line};
use claviger::token::from_hsm;
use claviger_hsm::attestation::{Evidence, Roots, Verdict, verify};
use claviger_hsm::{KeepPin, Operation};
use data_encoding::BASE64;
use serde::Serialize;

use super::{kind, parse, static_public};
use crate::cli::Attest;
use crate::commands::attend::{attend, name};
use crate::files::{Written, failed, write_file};
use crate::report::Key;

/// Characters of base64 on a line of PEM (RFC 7468, section 2).
const LINE: usize = 64;

/// `token attest --json`.
#[derive(Serialize)]
struct Report {
    key: Key,
    token: String,
    /// `yubico-piv`, `yubico-openpgp`.
    format: String,
    /// In one line, for people.
    verdict: String,
    /// `null`: the root was given with `--attestation-root`.
    maker: Option<&'static str>,
    root: String,
    serial: Option<u32>,
    firmware: String,
    /// `null` where the attestation does not say.
    pin_policy: Option<String>,
    touch_policy: String,
    touch_fixed: bool,
    form_factor: Option<&'static str>,
    /// The certificates, the statement about the key first.
    pem: String,
}

pub(super) fn attest(attest: &Attest, terminal: &Terminal) -> Result<()> {
    let locator = parse(&attest.locator)?;
    // Before the token costs anybody a PIN or a touch.
    let roots = roots(&attest.attestation_root)?;
    let open = |operation: &mut Operation<'_>| claviger_hsm::open(&locator, None, KeepPin::Once, operation);
    let mut token = attend(terminal, &name(&locator), open)?.answer;
    let label = one_line(&token.hints().label);
    let evidence = attend(terminal, &label, |operation| token.attest(operation))?.answer;
    let verdict = verify(&evidence, token.public_key(), &roots).map_err(from_hsm)?;

    let public = static_public(token.public_key())?;
    let key = Key::new(locator.to_string(), kind(token.hints().hardware), &public);
    let report = Report::new(key, label, &evidence, &verdict);
    let text = report.text(&verdict);
    match &attest.out {
        Some(out) if out == Path::new("-") => {
            terminal.note(text.trim_end());
            terminal.result(&report.pem, &report)
        }
        Some(out) => {
            let told = match write_file(out, report.pem.as_bytes(), attest.force)? {
                Written::New => "Wrote the certificates to",
                Written::AlreadyThere => "Unchanged:",
            };
            terminal.note(&format!("{told} {}.", out.display()));
            terminal.result(&text, &report)
        }
        None => terminal.result(&text, &report),
    }
}

fn roots(files: &[PathBuf]) -> Result<Roots> {
    let mut roots = Roots::makers();
    for file in files {
        let mut pem = Vec::new();
        let read = File::open(file).and_then(|open| open.take(Roots::MAX_PEM as u64 + 1).read_to_end(&mut pem));
        read.map_err(|error| failed(file, "read", error))?;
        roots.with_pem(&pem).map_err(from_hsm)?;
    }
    Ok(roots)
}

impl Report {
    fn new(key: Key, token: String, evidence: &Evidence, verdict: &Verdict) -> Self {
        Self {
            key,
            token,
            format: evidence.format.to_string(),
            verdict: verdict.to_string(),
            maker: verdict.maker,
            root: verdict.root.clone(),
            serial: verdict.serial,
            firmware: verdict.firmware.clone(),
            pin_policy: verdict.pin.map(|policy| policy.to_string()),
            touch_policy: verdict.touch.to_string(),
            touch_fixed: verdict.touch_fixed,
            form_factor: verdict.form_factor,
            pem: pem(evidence),
        }
    }

    fn text(&self, verdict: &Verdict) -> String {
        let pin = self.pin_policy.as_deref().unwrap_or("not stated");
        let touch = match (self.touch_fixed, self.touch_policy.as_str()) {
            (_, "unknown") => "not stated".to_owned(),
            (true, policy) => policy.to_owned(),
            (false, policy) => format!("{policy}; whoever has the admin PIN can change that"),
        };
        let root = match verdict.maker {
            Some(_) => self.root.clone(),
            None => format!("{}, which was given here and is no maker's", self.root),
        };
        let serial = self.serial.map_or_else(|| "not stated".to_owned(), |serial| serial.to_string());
        let rows = [
            ("fingerprint", self.key.grouped()),
            ("maker", self.maker.unwrap_or("not known").to_owned()),
            ("serial", serial),
            ("firmware", self.firmware.clone()),
            ("form", self.form_factor.unwrap_or("not stated").to_owned()),
            ("PIN", pin.to_owned()),
            ("touch", touch),
            ("root", root),
        ];
        let head = format!("{}: attested: the {} was made in this device\n", self.token, self.key.kind_on_curve());
        rows.iter().fold(head, |text, (name, value)| text + &format!("  {name:<11} {}\n", one_line(value)))
    }
}

/// RFC 7468, one after the other.
fn pem(evidence: &Evidence) -> String {
    let mut pem = String::new();
    for certificate in &evidence.chain {
        let text = BASE64.encode(certificate);
        pem += "-----BEGIN CERTIFICATE-----\n";
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let (line, more) = rest.split_at(rest.len().min(LINE));
            pem += line;
            pem.push('\n');
            rest = more;
        }
        pem += "-----END CERTIFICATE-----\n";
    }
    pem
}
