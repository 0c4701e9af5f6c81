//! The command line of `token`.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand, ValueEnum};
use claviger::identity::Curve;
use claviger_hsm::{PinPolicy, PivSlot, TokenKind, Touch};

use super::parsed;

#[derive(Subcommand)]
pub(crate) enum Token {
    /// List tokens: maker, serial number, curves, keys, PIN state, and why one can not be used
    #[command(after_help = "\
Examples:
  claviger-ceremony token list
  claviger-ceremony token list --backend piv --backend openpgp
  claviger-ceremony token list --module /usr/lib/softhsm/libsofthsm2.so
  claviger-ceremony token list --key-file cosigner.pem

Without options every backend is looked at, PKCS#11 modules in the usual places of a distribution. With options only what they \
name. No PIN is asked for; a key file's passphrase is. One device can be listed several times: as PIV card, as OpenPGP card, and \
behind a PKCS#11 module; these are different keys, or different ways to one.")]
    List(List),
    /// Make a key on a token, or in a file
    #[command(after_help = "\
Examples:
  claviger-ceremony token generate --curve p256 --slot 82 --pin-policy once \\
      --touch-policy never piv:serial=12345678
  claviger-ceremony token generate --curve x25519 openpgp:0006:12345678
  claviger-ceremony token generate --curve x25519 \\
      'pkcs11:token=cosigner;object=noise?module-path=/usr/lib/softhsm/libsofthsm2.so'
  claviger-ceremony token generate --curve p256 file:cosigner.pem
  claviger-ceremony token generate --curve p256 'file:cosigner.pem?pin-source=file:/run/passphrase'

Prints the locator to give to `init --token`. A key on a token never leaves it. A key in a file is a software key: \
whoever copies the file and learns its passphrase has it.

A key that is there already is shown, and is overwritten only when its fingerprint is typed or given with --replace. X25519 on PIV \
needs a YubiKey with firmware 5.7 or later; nobody has reported it from a real one yet: run `claviger-ceremony token test` on the key.")]
    Generate(Generate),
    /// Get the maker's statement that a key was made in its device, and verify it
    #[command(after_help = "\
Examples:
  claviger-ceremony token attest 'piv:serial=12345678;slot=9d'
  claviger-ceremony token attest openpgp:0006:12345678 --out attestation.pem

The verdict goes to stdout, the certificates in PEM to --out. `init` does the same and puts the attestation into the identity card.")]
    Attest(Attest),
    /// Try a key: ten timed operations, checked against software, and the state of the PIN before and after
    #[command(after_help = "\
Examples:
  claviger-ceremony token test 'piv:serial=12345678;slot=9d'
  claviger-ceremony token test openpgp:0006:12345678 --json | jq .median_ms

Ends with 6 when something is off. Asks for the PIN once, and for a touch as often as the key wants one.")]
    Test(Test),
    /// Say which key is for what, and what a thief has with it
    #[command(after_help = "\
Examples:
  claviger-ceremony token explain
  claviger-ceremony token explain 'piv:serial=12345678;slot=9d'

With a locator: what is on that token now, and what its PINs and keys are for. No PIN is asked for.")]
    Explain(Explain),
}

/// Families of tokens. A key file is named with `--key-file`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Backend {
    Openpgp,
    Piv,
    Pkcs11,
    Tpm,
}

impl Backend {
    pub(crate) fn kind(self) -> TokenKind {
        match self {
            Self::Openpgp => TokenKind::OpenPgp,
            Self::Piv => TokenKind::Piv,
            Self::Pkcs11 => TokenKind::Pkcs11,
            Self::Tpm => TokenKind::Tpm,
        }
    }
}

#[derive(Args)]
pub(crate) struct List {
    /// Tokens of this family; may be repeated
    #[arg(long, value_enum)]
    pub(crate) backend: Vec<Backend>,
    /// Tokens behind this PKCS#11 module; may be repeated
    #[arg(long, value_name = "PATH")]
    pub(crate) module: Vec<PathBuf>,
    /// The TPM behind this TCTI, as tpm2-tss writes it: device:/dev/tpmrm0
    #[arg(long, value_name = "CONF")]
    pub(crate) tcti: Option<String>,
    /// A software key file; may be repeated
    #[arg(long, value_name = "PATH")]
    pub(crate) key_file: Vec<PathBuf>,
}

#[derive(Args)]
pub(crate) struct Generate {
    /// x25519, or p256, the only curve that every family of tokens has; peers must share it
    #[arg(long, value_parser = parsed::<Curve>)]
    pub(crate) curve: Curve,
    /// The slot of a PIV card: 9d, or 82 to 95
    #[arg(long, value_parser = slot)]
    pub(crate) slot: Option<PivSlot>,
    /// When the device wants the PIN for this key: once after it was plugged in, or before every operation, which needs a
    /// person for every connection. YubiKey's PIV; TPM: never, or else always
    #[arg(long, value_name = "POLICY", value_parser = PossibleValuesParser::new(["never", "once", "always"])
        .try_map(|word| word.parse::<PinPolicy>()))]
    pub(crate) pin_policy: Option<PinPolicy>,
    /// When the device wants a touch for this key; cached: not within 15 s of the last. YubiKey's PIV, OpenPGP cards with a
    /// button
    #[arg(long, value_name = "POLICY", value_parser = PossibleValuesParser::new(["never", "cached", "always"])
        .try_map(|word| word.parse::<Touch>()))]
    pub(crate) touch_policy: Option<Touch>,
    /// Overwrite the key that has this fingerprint: all its words or all its digits
    #[arg(long, value_name = "WORDS|HEX")]
    pub(crate) replace: Option<String>,
    /// Where: openpgp:…, piv:…, tpm2:…, a PKCS#11 URI that names token and object, or file:PATH
    pub(crate) locator: String,
}

#[derive(Args)]
pub(crate) struct Attest {
    /// The key
    pub(crate) locator: String,
    /// Write the certificates there, PEM, the statement about the key first; - is stdout, and the verdict goes to stderr
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Overwrite a file that holds something else
    #[arg(long)]
    pub(crate) force: bool,
    /// A further root to trust, PEM; may be repeated
    #[arg(long, value_name = "FILE")]
    pub(crate) attestation_root: Vec<PathBuf>,
}

#[derive(Args)]
pub(crate) struct Test {
    /// The key
    pub(crate) locator: String,
}

#[derive(Args)]
pub(crate) struct Explain {
    /// A token or key; without it, every family
    pub(crate) locator: Option<String>,
}

fn slot(text: &str) -> Result<PivSlot, String> {
    text.parse().map_err(|_| {
        "A key that agrees is in slot 9d or one of 82 to 95; 9a, 9c and 9e hold keys for other purposes.".to_owned()
    })
}
