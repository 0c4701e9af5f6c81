//! What stands after the `?` of a locator: where the PIN is, and the way to a TPM.

use std::fmt;
use std::path::{Path, PathBuf};

use super::refused;
use crate::error::Result;
use crate::uri;

/// The longest text of a locator that is parsed, in bytes.
pub(super) const MAX_LEN: usize = 4096;
pub(super) const TOO_LONG: &str = "it is longer than 4096 bytes";

#[derive(Default)]
pub(super) struct Query {
    pub(super) pin_source: Option<PathBuf>,
    pub(super) tcti: Option<String>,
}

/// Splits `rest` at its `?`. Only with `tcti` may the query name one.
pub(super) fn split(rest: &str, tcti: bool) -> Result<(&str, Query)> {
    if rest.len() > MAX_LEN {
        return Err(refused(TOO_LONG));
    }
    let mut query = Query::default();
    let Some((path, text)) = rest.split_once('?') else { return Ok((rest, query)) };
    for attribute in text.split('&') {
        match attribute.split_once('=') {
            Some(("pin-source", value)) if query.pin_source.is_none() => {
                query.pin_source = Some(uri::file_path(value)?)
            }
            Some(("tcti", value)) if tcti && query.tcti.is_none() => {
                let conf = uri::query_text(value)?;
                if conf.is_empty() || conf.len() > 1024 || conf.chars().any(char::is_control) {
                    return Err(refused("`tcti` must have 1 to 1024 bytes and no control characters"));
                }
                query.tcti = Some(conf);
            }
            // Neither name nor value is shown: it may be a PIN.
            _ => return Err(refused("what stands after its `?` is unknown here, or there twice")),
        }
    }
    Ok((path, query))
}

pub(super) fn write(f: &mut fmt::Formatter<'_>, tcti: Option<&str>, pin_source: Option<&Path>) -> fmt::Result {
    let mut separator = '?';
    if let Some(tcti) = tcti {
        write!(f, "{separator}tcti={}", uri::query_escaped(tcti.as_bytes()))?;
        separator = '&';
    }
    if let Some(path) = pin_source {
        write!(f, "{separator}pin-source=file:{}", uri::query_escaped(path.as_os_str().as_encoded_bytes()))?;
    }
    Ok(())
}
