//! Attestation: a maker's statement that a key was made in one of its devices and cannot leave it.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result};
use crate::token::words;

/// What a device gave as proof: certificates, to be believed by nobody who has not verified them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// Who states what, in which form.
    pub format: Format,
    /// X.509 certificates in DER: the statement about the key first, then those that sign it, without the maker's root. At most
    /// [`Evidence::MAX_CHAIN`], each at most [`Evidence::MAX_CERTIFICATE`] bytes.
    pub chain: Vec<Vec<u8>>,
}

impl Evidence {
    /// The most certificates.
    pub const MAX_CHAIN: usize = 4;
    /// The most bytes of one certificate.
    pub const MAX_CERTIFICATE: usize = 3072;
}

/// Forms of attestation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// A YubiKey's PIV application: command ATTEST (F9), signed by the key in slot F9.
    YubicoPiv,
    /// A YubiKey's OpenPGP application: command GET ATTESTATION (FB), signed by its attestation key.
    YubicoOpenPgp,
}

words!(Format, "form of attestation": YubicoPiv = "yubico-piv", YubicoOpenPgp = "yubico-openpgp");
