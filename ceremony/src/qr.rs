//! QR codes (ISO/IEC 18004): documents shown on a terminal, drawn as PNG and SVG, and read back from pictures.
//!
//! A code holds a document's text as it is, so that any phone shows what is in it. A text that is too long for one code is cut into
//! [parts], each in a code of its own.

mod draw;
mod read;
mod show;
#[cfg(test)]
mod tests;

use claviger::ceremony::parts;
use claviger::error::{Error, ErrorKind, Result};
use qrcodegen::{QrCode, QrCodeEcc, QrSegment, Version};

pub(crate) use draw::{png, svg};
pub(crate) use read::{MAX_IMAGE_LEN, is_image, read};
pub(crate) use show::show;

/// The largest code in a picture: 117 modules a side, up to 1273 bytes, which holds any card without attestations. Cameras have trouble with larger ones.
const LARGEST: u8 = 25;

/// Modules of light around a code (ISO/IEC 18004, 9.1).
const QUIET: usize = 4;

/// Codes of several texts, each of `version` (1 to 40) or smaller.
fn codes<'a>(texts: impl IntoIterator<Item = &'a str>, version: u8) -> Result<Vec<QrCode>> {
    let mut codes = Vec::new();
    for text in texts {
        let pieces = parts::split(text, capacity(version)).ok_or_else(|| {
            let what = format!("{} bytes are too long for QR codes of {} modules.", text.len(), modules(version));
            Error::new(ErrorKind::QrUnreadable, what, "Enlarge the terminal, or write a picture with `--png FILE`.")
        })?;
        for piece in pieces {
            codes.push(code(&piece, version)?);
        }
    }
    Ok(codes)
}

/// The smallest code that holds `text`, with as much error correction as there is room for.
fn code(text: &str, version: u8) -> Result<QrCode> {
    let segment = QrSegment::make_bytes(text.as_bytes());
    QrCode::encode_segments_advanced(&[segment], QrCodeEcc::Low, Version::new(1), Version::new(version), None, true)
        .map_err(|error| {
            let what = format!("A QR code could not be made: {error}.");
            Error::new(ErrorKind::Internal, what, "Report this as a bug of claviger.")
        })
}

/// Modules on a side.
fn modules(version: u8) -> usize {
    17 + 4 * usize::from(version)
}

/// Bytes that a code of that version holds with the least error correction (ISO/IEC 18004, table 7, byte mode, level L).
fn capacity(version: u8) -> usize {
    const BYTES: [usize; 40] = [
        17, 32, 53, 78, 106, 134, 154, 192, 230, 271, 321, 367, 425, 458, 520, 586, 644, 718, 792, 858, 929, 1003,
        1091, 1171, 1273, 1367, 1465, 1528, 1628, 1732, 1840, 1952, 2068, 2188, 2303, 2431, 2563, 2699, 2809, 2953,
    ];
    BYTES[usize::from(version.clamp(1, 40)) - 1]
}
