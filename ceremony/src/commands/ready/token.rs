//! A token as the ceremony will want it.

use claviger::ceremony::plan::Plan;
use claviger::error::Result;
use claviger::identity::{Curve, Fingerprint, KeyPlace, StaticPublic};
use claviger::program::{Terminal, one_line};
use claviger::token::from_hsm;
use claviger_hsm::{Hints, PinPolicy, PinState, Touch, Tries};

use super::checklist::Checklist;
use crate::commands::opened::OpenToken;
use crate::commands::token::static_public;

/// A token that is to be looked at.
pub(super) struct Wanted<'a> {
    pub(super) place: KeyPlace,
    pub(super) locator: &'a str,
    /// The key that the store records; without a store none is expected.
    pub(super) key: Option<&'a StaticPublic>,
    /// The curve that the plan gives this machine.
    pub(super) curve: Option<Curve>,
    pub(super) plan: Option<&'a Plan>,
}

/// A token that opened, and its key.
pub(super) struct Found {
    pub(super) token: OpenToken,
    pub(super) key: StaticPublic,
}

/// Opens the token, and says what to expect of it. `None`: it failed.
///
/// # Errors
/// An interrupt.
pub(super) fn look(wanted: &Wanted<'_>, list: &mut Checklist, terminal: &Terminal) -> Result<Option<Found>> {
    let (check, pin_check, touch_check) = match wanted.place {
        KeyPlace::Primary => ("token", "PIN", "touch"),
        KeyPlace::Backup => ("backup", "backup PIN", "backup touch"),
    };
    let Some(mut token) = list.take(check, OpenToken::open(wanted.locator, wanted.key, terminal))? else {
        return Ok(None);
    };
    let Some(key) = list.take(check, static_public(token.token.public_key()))? else { return Ok(None) };
    let hints = token.token.hints().clone();
    let label = one_line(&hints.label);
    let print = Fingerprint::of_key(&key);
    if let Some(curve) = wanted.curve.filter(|curve| *curve != key.curve()) {
        let what = format!("The key of the {label} is on {}, and the plan says {curve}.", key.curve());
        let hint = format!(
            "Make one with `claviger-ceremony token generate --curve {curve}`, or let everybody agree on another plan."
        );
        list.fail(check, what, hint);
    } else {
        let known = if wanted.key.is_some() { ", the one in the store" } else { "" };
        list.ok(check, format!("The {label} opens. Its key, on {}{known}:\n{print}", key.curve()));
    }
    software(check, &hints, wanted.plan, list);
    let state = token.token.pin_state().map_err(from_hsm);
    if let Some(state) = list.take(pin_check, state)? {
        pin(pin_check, state, &hints, list);
    }
    touch(touch_check, wanted, hints.touch, list);
    Ok(Some(Found { token, key }))
}

fn software(check: &'static str, hints: &Hints, plan: Option<&Plan>, list: &mut Checklist) {
    if hints.hardware {
        return;
    }
    if plan.is_some_and(|plan| plan.rules.attestation) {
        list.fail(
            check,
            "The plan wants every key attested by its device, and this is a SOFTWARE key.",
            "Use a token that attests its keys, a YubiKey; or let everybody agree on a plan without `attestation`.",
        );
    } else {
        let hint = "Go on only if everybody knows it: the card says `software`, too.";
        list.warn(check, "It is a SOFTWARE key: it can be copied, and a copy is not missed.", hint);
    }
}

fn pin(check: &'static str, state: PinState, hints: &Hints, list: &mut Checklist) {
    let policy = match hints.pin {
        PinPolicy::Never if state.tries_left == Tries::Unlimited => "a passphrase",
        PinPolicy::Never => "the device does not ask for it",
        PinPolicy::Once => "asked for once after it was plugged in",
        PinPolicy::Always => "asked for before every operation",
        #[allow(unreachable_patterns)] // Reached when that crate learns a policy first.
        _ => "of a policy that is unknown here",
    };
    let tries = state.tries_left;
    if !state.set {
        list.warn(
            check,
            "No PIN is set: whoever has the token has the use of the key.",
            "Set one with its maker's tool.",
        );
    } else if matches!(tries, Tries::None | Tries::Last) {
        let hint = "Unlock it with its PUK, admin PIN or SO PIN and its maker's tool before the ceremony.";
        list.fail(check, format!("The PIN has no try to lose: {tries}."), hint);
    } else if tries == Tries::Low {
        let hint = "Make sure of the PIN; the right one gives the tries back.";
        list.warn(check, format!("Set, {policy}; {tries}."), hint);
    } else {
        list.ok(check, format!("Set, {policy}; {tries}."));
    }
}

fn touch(check: &'static str, wanted: &Wanted<'_>, touch: Touch, list: &mut Checklist) {
    let times = wanted.plan.map(|plan| operations(wanted.place, plan, wanted.key.is_none()));
    let ahead = |touches: &str| match times {
        Some(times) => format!("{touches} {times} in the ceremony of this plan"),
        None => format!("{touches} two for each command that changes the store"),
    };
    match touch {
        Touch::Never => list.ok(check, "None is wanted."),
        Touch::Always => list.ok(check, format!("One for each operation: {}.", ahead("about"))),
        Touch::Cached => list.ok(check, format!("One for operations within 15 s: {}.", ahead("at most"))),
        _ => list.ok(check, "The device does not tell whether it wants one; touch it when it blinks."),
    }
}

/// How often the key is used until the ceremony of `plan` is over: each command that changes the store opens its token and its seal. Of a backup key: when it is
/// recorded, and for the proofs.
fn operations(place: KeyPlace, plan: &Plan, before_init: bool) -> usize {
    let others = plan.members.len().saturating_sub(1);
    let init = if before_init { 2 } else { 0 };
    let proofs = plan.rules.proof_of_possession;
    match place {
        // import, confirm; challenge, prove with an agree for each challenge, verify-proof.
        KeyPlace::Primary => init + 2 + 2 + if proofs { 2 + 2 + others + 2 } else { 0 },
        KeyPlace::Backup => init + if proofs { 1 + others } else { 0 },
    }
}
