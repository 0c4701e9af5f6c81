//! The checks of the fuzz targets, without a fuzzer: over the committed seeds and some thousand changes of them, about a second each.
//! `scripts/fuzz` runs the same checks under libFuzzer.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, missing_docs, unreachable_pub)]

#[path = "../fuzz/checks/attestation.rs"]
mod attestation;
#[path = "../fuzz/checks/card.rs"]
mod card;
#[path = "../fuzz/checks/control.rs"]
mod control;
#[cfg(feature = "net")]
#[path = "../fuzz/checks/datagrams.rs"]
mod datagrams;
#[path = "../fuzz/checks/document.rs"]
mod document;
#[path = "../fuzz/checks/knock.rs"]
mod knock;
#[path = "../fuzz/checks/locator.rs"]
mod locator;
#[path = "../fuzz/checks/openpgp.rs"]
mod openpgp;
#[path = "../fuzz/checks/packet_header.rs"]
mod packet_header;
#[path = "../fuzz/checks/piv.rs"]
mod piv;
#[path = "../fuzz/checks/plan.rs"]
mod plan;
#[path = "../fuzz/checks/transcript.rs"]
mod transcript;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;

/// Longest input, in bytes: longer than the longest of every target's limits, but for a plan's, which its unit tests try.
const MAX_INPUT: usize = 40_000;

/// Xorshift64* (Vigna, 2014): the same changes in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize) % limit.max(1)
    }

    fn byte(&mut self) -> u8 {
        const TELLING: &[u8] = b"\0\x01\x7f\x80\xff\n\r %:;&=?/.-_aA0";
        if self.below(2) == 0 { TELLING[self.below(TELLING.len())] } else { self.below(256) as u8 }
    }

    /// A range of `len` bytes, mostly a short one.
    fn range(&mut self, len: usize) -> std::ops::Range<usize> {
        let start = self.below(len + 1);
        let limit = if self.below(8) == 0 { len } else { 8 };
        start..(start + self.below(limit + 1)).min(len)
    }

    fn change(&mut self, input: &mut Vec<u8>, other: &[u8]) {
        let at = self.below(input.len());
        match self.below(7) {
            0 if !input.is_empty() => input[at] ^= 1 << self.below(8),
            1 if !input.is_empty() => input[at] = self.byte(),
            2 => input.insert(at, self.byte()),
            3 => drop(input.drain(self.range(input.len()))),
            4 => {
                let piece = input[self.range(input.len())].to_vec();
                let limit = if self.below(8) == 0 { 400 } else { 3 };
                let times = 1 + self.below(limit);
                input.splice(at..at, piece.repeat(times));
            }
            5 => {
                let piece = other[self.range(other.len())].to_vec();
                let place = self.range(input.len());
                input.splice(place, piece);
            }
            _ => input.truncate(at),
        }
        input.truncate(MAX_INPUT);
    }
}

/// `changes`: about a second of them without optimization. A number and not a time, so that every run tries the same.
fn run(target: &str, check: fn(&[u8]), changes: usize) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut seeds: Vec<Vec<u8>> = files.iter().map(|file| std::fs::read(file).unwrap()).collect();
    assert!(!seeds.is_empty(), "no seed in {}", folder.display());
    seeds.push(Vec::new());
    let tried = |input: &[u8]| {
        catch_unwind(AssertUnwindSafe(|| check(input))).unwrap_or_else(|failure| {
            eprintln!("the check of `{target}` fails on \"{}\"", input.escape_ascii());
            resume_unwind(failure)
        });
    };
    seeds.iter().for_each(|seed| tried(seed));
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..changes {
        let mut input = seeds[random.below(seeds.len())].clone();
        for _ in 0..=random.below(4) {
            let other = random.below(seeds.len());
            random.change(&mut input, &seeds[other]);
        }
        tried(&input);
    }
}

#[test]
fn attestation() {
    run("attestation", attestation::check, 1_500);
}

#[test]
fn card() {
    run("card", card::check, 25_000);
}

#[test]
fn control() {
    run("control", control::check, 50_000);
}

#[cfg(feature = "net")]
#[test]
fn datagrams() {
    run("datagrams", datagrams::check, 50_000);
}

#[test]
fn document() {
    run("document", document::check, 5_000);
}

#[test]
fn knock() {
    run("knock", knock::check, 2_000);
}

#[test]
fn locator() {
    run("locator", locator::check, 15_000);
}

#[test]
fn openpgp() {
    run("openpgp", openpgp::check, 20_000);
}

#[test]
fn packet_header() {
    run("packet_header", packet_header::check, 100_000);
}

#[test]
fn piv() {
    run("piv", piv::check, 5_000);
}

#[test]
fn plan() {
    run("plan", plan::check, 15_000);
}

#[test]
fn transcript() {
    run("transcript", transcript::check, 1_000);
}
