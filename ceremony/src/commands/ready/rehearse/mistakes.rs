//! What each mistake looks like: made on copies of the machines as they were, and never described but by the program that refuses it.

use claviger::error::{ErrorKind, Result};
use claviger::identity::{Curve, Identifier};
use serde::Serialize;

use super::child::{Run, Seat, write};
use super::place::copy;
use super::play::{Machine, Play, token_in};
use super::runbook::{CHALLENGED, Ceremony, EXPORTED, VERIFIED, kept, words};

mod cards;
mod later;
mod proofs;

/// A mistake as it was seen.
#[derive(Debug, Serialize)]
pub(super) struct Seen {
    /// Names it in scripts: `card-swapped`.
    pub(super) mistake: &'static str,
    /// What happens in the room.
    pub(super) what: String,
    /// The step at which it is found.
    pub(super) step: &'static str,
    pub(super) machine: String,
    pub(super) command: String,
    /// Whether it was refused, and for what it is.
    pub(super) caught: bool,
    pub(super) kind: Option<String>,
    pub(super) message: Option<String>,
    pub(super) hint: Option<String>,
}

/// A mistake that can be made.
pub(super) struct Mistake {
    name: &'static str,
    step: &'static str,
    /// What it is refused for.
    kinds: &'static [ErrorKind],
    make: fn(&Scene<'_>) -> Result<Made>,
}

/// What was made of it.
struct Made {
    what: String,
    seat: Seat,
    run: Run,
}

/// Where a mistake is made: a stick and machines of its own.
struct Scene<'a> {
    play: &'a Play<'a>,
    ceremony: &'a Ceremony,
    name: &'static str,
    /// The machine at which it is found, and the other one.
    here: &'a Machine,
    there: &'a Machine,
    stick: std::path::PathBuf,
}

/// The mistakes that this plan lets people make.
pub(super) fn all(play: &Play<'_>) -> Vec<Mistake> {
    let proofs = if play.plan.rules.proof_of_possession { proofs::ALL } else { &[][..] };
    cards::ALL.iter().chain(proofs).chain(later::ALL).copied().collect()
}
