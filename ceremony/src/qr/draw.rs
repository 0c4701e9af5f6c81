//! Codes as pictures: all in one, row by row.

use std::fmt::Write as _;

use claviger::error::{Error, ErrorKind, Result};
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};
use qrcodegen::QrCode;

use super::{LARGEST, QUIET, codes, modules};

/// Most codes of one picture: it stays within what [`read`](super::read()) takes.
const MOST: usize = 64;

/// Dots of a PNG for a module: a code of some 120 modules is 7 cm wide in print at 254 dots per inch.
const DOTS: usize = 6;

/// Light between codes, in modules, beside the quiet zones of both.
const BETWEEN: usize = 4;

/// Codes side by side in columns of one width.
struct Sheet {
    codes: Vec<QrCode>,
    columns: usize,
    /// Modules of the largest code.
    side: usize,
}

impl Sheet {
    fn new(texts: &[&str]) -> Result<Self> {
        let codes = codes(texts.iter().copied(), LARGEST)?;
        if codes.len() > MOST {
            let what = format!("{} QR codes are too many for one picture, which holds {MOST}.", codes.len());
            return Err(Error::new(ErrorKind::QrUnreadable, what, "Carry it as a file."));
        }
        let side = codes.iter().map(|code| modules(code.version().value())).max().unwrap_or_default();
        let columns = (1..).find(|columns| columns * columns >= codes.len()).unwrap_or(1);
        Ok(Self { codes, columns, side })
    }

    /// Width and height, in modules.
    fn size(&self) -> (usize, usize) {
        let length = |count: usize| 2 * QUIET + count * (self.side + 2 * QUIET + BETWEEN) - (2 * QUIET + BETWEEN);
        (length(self.columns), length(self.codes.len().div_ceil(self.columns)))
    }

    /// The dark modules, as runs: column, row, and length.
    fn runs(&self) -> impl Iterator<Item = (usize, usize, usize)> {
        let step = self.side + 2 * QUIET + BETWEEN;
        self.codes.iter().enumerate().flat_map(move |(at, code)| {
            let (left, top) = (QUIET + at % self.columns * step, QUIET + at / self.columns * step);
            (0..code.size()).flat_map(move |y| runs(code, y).map(move |(x, n)| (left + x, top + y as usize, n)))
        })
    }
}

/// The dark runs of a row: where, and how long.
fn runs(code: &QrCode, y: i32) -> impl Iterator<Item = (usize, usize)> {
    let mut x = 0;
    std::iter::from_fn(move || {
        let start = (x..code.size()).find(|x| code.get_module(*x, y))?;
        x = (start..code.size()).find(|x| !code.get_module(*x, y)).unwrap_or(code.size());
        Some((start as usize, (x - start) as usize))
    })
}

/// All texts' codes in one PNG.
pub(crate) fn png(texts: &[&str]) -> Result<Vec<u8>> {
    let sheet = Sheet::new(texts)?;
    let (width, height) = sheet.size();
    let mut dots = vec![255; width * height * DOTS * DOTS];
    for (x, y, length) in sheet.runs() {
        for row in 0..DOTS {
            let start = ((y * DOTS + row) * width + x) * DOTS;
            dots[start..start + length * DOTS].fill(0);
        }
    }
    let mut file = Vec::new();
    PngEncoder::new(&mut file)
        .write_image(&dots, (width * DOTS) as u32, (height * DOTS) as u32, ExtendedColorType::L8)
        .map_err(|error| {
            let what = format!("A PNG could not be made: {error}.");
            Error::new(ErrorKind::Internal, what, "Report this as a bug of claviger.").because(error)
        })?;
    Ok(file)
}

/// The same in SVG, with a title for people; a module is one unit, and a millimetre in print.
pub(crate) fn svg(texts: &[&str], title: &str) -> Result<String> {
    let sheet = Sheet::new(texts)?;
    let (width, height) = sheet.size();
    let title = title.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}mm\" height=\"{height}mm\" viewBox=\"0 0 {width} {height}\">\n\
         <title>{title}</title>\n<rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>\n<path d=\""
    );
    for (x, y, length) in sheet.runs() {
        let _ = write!(text, "M{x} {y}h{length}v1h-{length}z");
    }
    text.push_str("\"/>\n</svg>\n");
    Ok(text)
}
