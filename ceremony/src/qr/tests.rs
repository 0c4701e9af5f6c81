//! Round trips: texts to pictures, what happens to pictures on the way, and back.

use std::io::Cursor;

use image::codecs::jpeg::JpegEncoder;
use image::imageops::{FilterType, resize, rotate90, rotate180, rotate270};
use image::{DynamicImage, GrayImage, ImageFormat, Luma};

use super::*;

/// Text like that of cards, another for each number.
fn text(number: u64, length: usize) -> String {
    let mut state = number * 7919 + 12345;
    let mut text = format!("claviger text {number}\n");
    while text.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        text.push(char::from(b"abcdefghABCDEFGH0123456789+/:-\n "[(state % 32) as usize]));
    }
    text
}

fn picture(texts: &[&str]) -> GrayImage {
    image::load_from_memory(&png(texts).unwrap()).unwrap().into_luma8()
}

fn as_png(image: &GrayImage) -> Vec<u8> {
    let mut bytes = Vec::new();
    image.write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png).unwrap();
    bytes
}

fn as_jpeg(image: &GrayImage, quality: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, quality).encode_image(&DynamicImage::from(image.clone())).unwrap();
    bytes
}

/// The texts in a picture, put together.
fn together(picture: &[u8]) -> Vec<String> {
    let (mut all, mut parts) = (Vec::new(), parts::Parts::default());
    for text in read(picture).unwrap() {
        let text = String::from_utf8(text).unwrap();
        if parts::is_part(&text) {
            parts.add(&text).unwrap();
        } else {
            all.push(text);
        }
    }
    all.extend(parts.finish().unwrap());
    all
}

#[test]
fn one_code() {
    for length in [20, 300, 600, 1273] {
        let text = text(1, length);
        assert_eq!(together(&png(&[&text]).unwrap()), [&*text], "{length}");
    }
}

#[test]
fn many_codes() {
    // A card with two attestations; the longest card; as many short ones as a plan may have machines at one place.
    let long = text(1, 6_000);
    assert_eq!(together(&png(&[&long]).unwrap()), [&*long]);
    let longest = text(2, claviger::identity::MAX_CARD_LEN);
    assert_eq!(together(&png(&[&longest]).unwrap()), [&*longest]);
    let texts: Vec<String> = (0..13).map(|number| text(number, 590)).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    assert_eq!(together(&png(&texts).unwrap()), texts);
}

#[test]
fn pictures_suffer() {
    let (one, two) = (text(1, 600), text(2, 2_500));
    let all = [&*one, &*two];
    let image = picture(&all);
    for (what, bytes) in [
        ("as it is", as_png(&image)),
        ("JPEG", as_jpeg(&image, 80)),
        ("poor JPEG", as_jpeg(&image, 30)),
        ("turned", as_png(&rotate90(&image))),
        ("upside down", as_jpeg(&rotate180(&image), 80)),
        ("turned and made smaller", as_png(&smaller(&rotate270(&image), 2))),
        ("made smaller", as_jpeg(&smaller(&image, 2), 80)),
        ("inverted", as_png(&inverted(&image))),
    ] {
        let mut read = together(&bytes);
        read.sort_by_key(String::len);
        assert_eq!(read, all, "{what}");
    }
    assert_eq!(together(&as_jpeg(&on_a_table(&picture(&[&one])), 80)), [one]);
}

fn smaller(image: &GrayImage, times: u32) -> GrayImage {
    resize(image, image.width() / times, image.height() / times, FilterType::Triangle)
}

fn inverted(image: &GrayImage) -> GrayImage {
    let mut image = image.clone();
    image::imageops::invert(&mut image);
    image
}

/// Grey paper on something dark.
fn on_a_table(image: &GrayImage) -> GrayImage {
    let mut table = GrayImage::from_fn(image.width() + 300, image.height() + 200, |x, y| Luma([((x * y) % 40) as u8]));
    let paper = GrayImage::from_fn(image.width(), image.height(), |x, y| Luma([40 + image.get_pixel(x, y)[0] / 2]));
    image::imageops::replace(&mut table, &paper, 150, 100);
    table
}

fn refusal(bytes: &[u8]) -> String {
    let error = read(bytes).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::QrUnreadable);
    error.to_string()
}

#[test]
fn what_can_not_be_read_is_said() {
    let blank = GrayImage::from_pixel(300, 200, Luma([255]));
    assert_eq!(refusal(&as_png(&blank)), "There is no QR code in it.");
    let noise = GrayImage::from_fn(300, 200, |x, y| Luma([(x * 31 + y * 17 + x * y) as u8]));
    assert_eq!(refusal(&as_png(&noise)), "There is no QR code in it.");
    // One of two is soiled.
    let (one, two) = (text(1, 600), text(2, 600));
    let mut image = picture(&[&one, &two]);
    let (width, height) = image.dimensions();
    for (x, y) in (width / 8..width / 8 * 3).flat_map(|x| (height / 3..height / 2).map(move |y| (x, y))) {
        image.put_pixel(x, y, Luma([255 * u8::from((x / 9 + y / 7) % 2 == 0)]));
    }
    assert_eq!(refusal(&as_png(&image)), "One of the 2 QR codes in it can not be read.");
    let whole = png(&[&one]).unwrap();
    for length in [8, 20, 60, whole.len() / 2] {
        assert_eq!(refusal(&whole[..length]), "It is a damaged picture.", "{length}");
    }
}

/// A PNG that says it is that large, and a JPEG.
#[test]
fn bombs_do_not_go_off() {
    let mut huge = as_png(&GrayImage::new(8, 8));
    huge[16..24].copy_from_slice(&[0, 0, 0xff, 0xff, 0, 0, 0xff, 0xff]);
    let sum = crc(&huge[12..29]);
    huge[29..33].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(refusal(&huge), "It is a picture of more than 8192 by 8192 dots.");
    let mut jpeg = as_jpeg(&GrayImage::new(8, 8), 80);
    let frame = jpeg.windows(2).position(|two| two == [0xff, 0xc0]).unwrap();
    jpeg[frame + 5..frame + 9].copy_from_slice(&[0xff, 0xff, 0xff, 0xff]);
    assert_eq!(refusal(&jpeg), "It is a picture of more than 8192 by 8192 dots.");
}

/// CRC-32 of PNG (W3C, "Portable Network Graphics", annex D), bit by bit.
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 * (crc & 1)))
    })
}

#[test]
fn an_svg_is_the_same_picture() {
    let text = text(1, 2_500);
    let svg = svg(&[&text], "a < b & c").unwrap();
    assert!(svg.contains("<title>a &lt; b &amp; c</title>"), "{svg}");
    let size: Vec<usize> = svg
        .split_once("viewBox=\"0 0 ")
        .unwrap()
        .1
        .split('"')
        .next()
        .unwrap()
        .split(' ')
        .map(|side| side.parse().unwrap())
        .collect();
    let png = picture(&[&text]);
    assert_eq!((png.width() as usize, png.height() as usize), (size[0] * 6, size[1] * 6));
    let mut drawn = GrayImage::from_pixel(size[0] as u32, size[1] as u32, Luma([255]));
    for run in svg.split_once(" d=\"M").unwrap().1.split_once('"').unwrap().0.split('M') {
        let numbers: Vec<u32> =
            run.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect();
        (0..numbers[2]).for_each(|x| drawn.put_pixel(numbers[0] + x, numbers[1], Luma([0])));
    }
    assert!(drawn.enumerate_pixels().all(|(x, y, dot)| png.get_pixel(x * 6, y * 6) == dot));
}

#[test]
fn capacities_are_those_of_the_encoder() {
    for version in 1..=40 {
        let full = "x".repeat(capacity(version));
        assert_eq!(code(&full, version).unwrap().version().value(), version);
        assert!(code(&format!("{full}x"), version).is_err(), "{version}");
    }
}
