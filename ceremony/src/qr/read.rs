//! Codes in pictures: PNG and JPEG, from this program, a screen, a scanner or a camera.

use std::io::Cursor;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use claviger::error::{Error, ErrorKind, Result};
use image::imageops::{FilterType, crop_imm, resize};
use image::{GrayImage, ImageFormat, ImageReader, Limits, Luma};
use rqrr::{DeQRError, Point, PreparedImage};

use super::QUIET;

/// Longest picture file, in bytes.
pub(crate) const MAX_IMAGE_LEN: usize = 32 * 1024 * 1024;

/// Largest width and height, in dots: a camera's 48 million.
const MAX_SIDE: u32 = 8192;

/// Memory for decoding, in bytes: four for each dot.
const MAX_ALLOC: u64 = 4 * 8192 * 8192;

/// How long is looked for codes in one picture.
const TIME: Duration = Duration::from_secs(30);

/// Largest side, in dots, of what is looked at in one go; larger ones are made smaller. A picture full of corners of codes, which somebody made to
/// hold this up, takes memory by its area until the time is up.
const SEARCHED: u32 = 2500;

/// Least side of a code in dots: one of 21 modules.
const LEAST_SIDE: u32 = 21;

/// Least light between two blocks, in dots. No row or column of a code is light throughout.
const LEAST_GAP: u32 = 5;

/// Most blocks that are looked at one by one.
const MAX_BLOCKS: usize = 256;

/// Whether a file begins as a picture that is read here.
pub(crate) fn is_image(bytes: &[u8]) -> bool {
    format(bytes).is_some()
}

fn format(bytes: &[u8]) -> Option<ImageFormat> {
    match bytes {
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some(ImageFormat::Png),
        [0xff, 0xd8, 0xff, ..] => Some(ImageFormat::Jpeg),
        _ => None,
    }
}

fn refused(what: impl Into<String>, hint: &str) -> Error {
    Error::new(ErrorKind::QrUnreadable, what, hint)
}

const AGAIN: &str = "Take the picture again: straight, sharp, near, with light around each code; or carry the file.";

/// The content of each code in a picture, top to bottom; at least one.
///
/// # Errors
/// [`QrUnreadable`](ErrorKind::QrUnreadable): no picture, too large, no code, or one that can not be read.
pub(crate) fn read(bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
    let image = decoded(bytes)?;
    // What looks for codes was made for a camera's many pictures, not for one that somebody made to hold it up: it gets a thread, which ends with the program.
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let _ = sender.send(search(image));
    });
    let found = receiver.recv_timeout(TIME).map_err(|error| match error {
        RecvTimeoutError::Timeout => {
            refused(format!("In {} s no end was found of what looks like QR codes in it.", TIME.as_secs()), AGAIN)
        }
        RecvTimeoutError::Disconnected => refused("The QR codes in it could not be taken apart.", AGAIN),
    })?;
    match found {
        Found { texts, .. } if texts.is_empty() && found.unread == 0 => {
            Err(refused("There is no QR code in it.", AGAIN))
        }
        Found { texts, unread: 0 } => Ok(texts),
        Found { texts, unread } => {
            let all = texts.len() + unread;
            let what = match (all, unread) {
                (1, _) => "The QR code in it can not be read.".into(),
                (_, 1) => format!("One of the {all} QR codes in it can not be read."),
                _ => format!("{unread} of the {all} QR codes in it can not be read."),
            };
            Err(refused(what, AGAIN))
        }
    }
}

/// The picture in shades of grey, on white where it is transparent.
fn decoded(bytes: &[u8]) -> Result<GrayImage> {
    let damaged = |error: image::ImageError| match error {
        image::ImageError::Limits(_) => {
            let what = format!("It is a picture of more than {MAX_SIDE} by {MAX_SIDE} dots.");
            refused(what, "Make the picture smaller.").because(error)
        }
        _ => refused("It is a damaged picture.", "Copy or take it again.").because(error),
    };
    let format = format(bytes).ok_or_else(|| refused("It is neither PNG nor JPEG.", "Save the picture as PNG."))?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_ALLOC);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits);
    let image = reader.decode().map_err(damaged)?.into_luma_alpha8();
    Ok(GrayImage::from_fn(image.width(), image.height(), |x, y| {
        let [light, opaque] = image.get_pixel(x, y).0.map(u16::from);
        Luma([((light * opaque + 255 * (255 - opaque)) / 255) as u8])
    }))
}

/// What was found: contents, and how many codes could not be read.
#[derive(Default)]
struct Found {
    texts: Vec<Vec<u8>>,
    unread: usize,
}

impl Found {
    fn add(&mut self, texts: Vec<Vec<u8>>) {
        for text in texts {
            if !self.texts.contains(&text) {
                self.texts.push(text);
            }
        }
    }
}

/// Codes dark on light, or else light on dark, as on a terminal without colours.
fn search(mut image: GrayImage) -> Found {
    let found = pass(&image);
    if !found.texts.is_empty() {
        return found;
    }
    image::imageops::invert(&mut image);
    let inverted = pass(&image);
    if inverted.texts.is_empty() { found } else { inverted }
}

/// rqrr is at its best with one code at a time: among many it takes the corners of one for those of another (its issue 50). So the picture is cut along the light
/// between codes, as it is in what programs draw; what can not be cut, or read, is looked at as a whole.
fn pass(image: &GrayImage) -> Found {
    let mut found = Found::default();
    let blocks = blocks(image);
    for block in &blocks {
        let (texts, unread) = scan(&cropped(image, *block));
        found.unread += usize::from(unread);
        found.add(texts);
    }
    if blocks.len() != 1 && (found.unread > 0 || found.texts.is_empty()) {
        let before = found.texts.len();
        found.add(scan(image).0);
        found.unread = found.unread.saturating_sub(found.texts.len() - before);
    }
    found
}

/// Looks at a picture as it is, larger, and smaller, until every code in it was read. `true`: one seems to be there that was not.
fn scan(image: &GrayImage) -> (Vec<Vec<u8>>, bool) {
    let (mut all, mut unread) = (Found::default(), false);
    let whole = image.width().max(image.height());
    let side = whole.min(SEARCHED);
    let sides = [Some(side), (side <= 1600).then_some(side * 2), (side >= 1000).then_some(side / 2)];
    for side in sides.into_iter().flatten() {
        let scaled = if side == whole {
            image.clone()
        } else {
            let length = |length: u32| (u64::from(length) * u64::from(side) / u64::from(whole)).max(1) as u32;
            resize(image, length(image.width()), length(image.height()), FilterType::Triangle)
        };
        let (texts, failed) = grids(scaled);
        let done = !texts.is_empty() && !failed;
        all.add(texts);
        if done {
            return (all.texts, false);
        }
        unread |= failed;
    }
    (all.texts, unread)
}

/// Reads the codes that are found, takes them out of the picture, and looks again: with fewer corners there are fewer to confuse. `true`: in the end a code seems to
/// be there that can not be read.
fn grids(mut image: GrayImage) -> (Vec<Vec<u8>>, bool) {
    let (width, height) = (image.width() as usize, image.height() as usize);
    let mut texts = Vec::new();
    loop {
        let dots = image.as_raw();
        let mut prepared = PreparedImage::prepare_from_greyscale(width, height, |x, y| dots[y * width + x]);
        let (mut read, mut failed) = (Vec::new(), false);
        for grid in prepared.detect_grids() {
            let mut text = Vec::new();
            match grid.decode_to(&mut text) {
                Ok(_) => {
                    read.push(grid.bounds);
                    texts.push(text);
                }
                // Three corners that are none of a code show no format.
                Err(DeQRError::FormatEcc | DeQRError::InvalidVersion | DeQRError::InvalidGridSize) => {}
                Err(_) => failed = true,
            }
        }
        if read.is_empty() || texts.len() > MAX_BLOCKS {
            return (texts, failed);
        }
        read.iter().for_each(|corners| erase(&mut image, corners));
    }
}

/// Makes as light as its lightest dot what is between four corners, which are in the order of a walk around them.
fn erase(image: &mut GrayImage, corners: &[Point; 4]) {
    let within = |values: [i32; 4], length: u32| {
        let limit = |value: Option<i32>| value.unwrap_or(0).clamp(0, length as i32);
        limit(values.into_iter().min())..limit(values.into_iter().max())
    };
    let (columns, rows) =
        (within(corners.map(|at| at.x), image.width()), within(corners.map(|at| at.y), image.height()));
    let inside = |(x, y): &(i32, i32)| {
        let side = |at: usize| {
            let (from, to) = (corners[at], corners[(at + 1) % 4]);
            i64::from(to.x - from.x) * i64::from(y - from.y) - i64::from(to.y - from.y) * i64::from(x - from.x)
        };
        (0..4).all(|at| side(at) >= 0) || (0..4).all(|at| side(at) <= 0)
    };
    let dots: Vec<(i32, i32)> = rows.flat_map(|y| columns.clone().map(move |x| (x, y))).filter(inside).collect();
    let light = dots.iter().map(|(x, y)| *image.get_pixel(*x as u32, *y as u32)).max_by_key(|dot| dot[0]);
    for (x, y) in dots {
        image.put_pixel(x as u32, y as u32, light.unwrap_or(Luma([255])));
    }
}

/// Left, top, right and bottom; the last two are outside.
type Block = [u32; 4];

/// The picture cut along rows and columns that are light throughout, then each piece again, until none can be cut.
fn blocks(image: &GrayImage) -> Vec<Block> {
    let dark = threshold(image);
    let whole = [0, 0, image.width(), image.height()];
    let (mut done, mut open) = (Vec::new(), vec![(whole, true, 0)]);
    while let Some((block, rows, uncut)) = open.pop() {
        let pieces = cut(image, dark, block, rows);
        if done.len() + open.len() + pieces.len() > MAX_BLOCKS {
            return vec![whole];
        }
        if pieces.len() == 1 && uncut == 1 {
            done.push(pieces[0]);
            continue;
        }
        let uncut = if pieces.len() == 1 { uncut + 1 } else { 0 };
        // The first is taken up first.
        open.extend(pieces.into_iter().rev().map(|piece| (piece, !rows, uncut)));
    }
    done
}

/// The pieces of a block between its light rows, or columns; those too small for a code are left out.
fn cut(image: &GrayImage, dark: u8, [left, top, right, bottom]: Block, rows: bool) -> Vec<Block> {
    let (start, end) = if rows { (top, bottom) } else { (left, right) };
    let light = |line: u32| match rows {
        true => (left..right).all(|x| image.get_pixel(x, line)[0] > dark),
        false => (top..bottom).all(|y| image.get_pixel(line, y)[0] > dark),
    };
    let mut pieces: Vec<(u32, u32)> = Vec::new();
    for line in (start..end).filter(|line| !light(*line)) {
        match pieces.last_mut() {
            Some((_, last)) if line - *last <= LEAST_GAP => *last = line,
            _ => pieces.push((line, line)),
        }
    }
    let pieces = pieces.into_iter().filter(|(first, last)| last - first + 1 >= LEAST_SIDE);
    pieces
        .map(|(first, last)| match rows {
            true => [left, first, right, last + 1],
            false => [first, top, last + 1, bottom],
        })
        .collect()
}

/// The shade that best separates dark from light (Otsu, 1979).
fn threshold(image: &GrayImage) -> u8 {
    let mut counts = [0u64; 256];
    for shade in image.as_raw() {
        counts[usize::from(*shade)] += 1;
    }
    let sum =
        |counts: &[u64], first: u64| (first..).zip(counts).map(|(shade, count)| shade * count).sum::<u64>() as f64;
    let total = image.as_raw().len() as f64;
    let (mut best, mut most) = (127, -1.0);
    for at in 0..255 {
        let below = counts[..=at].iter().sum::<u64>() as f64;
        let above = total - below;
        if below > 0.0 && above > 0.0 {
            let apart = sum(&counts[..=at], 0) / below - sum(&counts[at + 1..], at as u64 + 1) / above;
            let between = below * above * apart * apart;
            if between > most {
                (best, most) = (at as u8, between);
            }
        }
    }
    best
}

/// A block with light around it.
fn cropped(image: &GrayImage, [left, top, right, bottom]: Block) -> GrayImage {
    let (width, height) = (right - left, bottom - top);
    let margin = (width.max(height) / LEAST_SIDE * QUIET as u32).max(LEAST_GAP);
    let mut block = GrayImage::from_pixel(width + 2 * margin, height + 2 * margin, Luma([255]));
    let view = crop_imm(image, left, top, width, height).to_image();
    image::imageops::replace(&mut block, &view, margin.into(), margin.into());
    block
}
