//! A member's next card, vouched for by its present key: what `import` does with a succession.

use std::path::PathBuf;

use claviger::ceremony::succession::{MAX_OVERLAP, Succession};
use claviger::error::{Error, ErrorKind, Result};
use claviger::identity::{Identifier, IdentityCard};
use claviger::program::Terminal;
use claviger::store::{Added, Machine, Store};

use super::losses::wrapped;
use super::now;
use crate::attestation::{Proven, demand, logged, roots};
use crate::commands::cards::{compare, confirm};
use crate::commands::opened::OpenToken;
use crate::commands::token::parse;
use crate::report::utc;

/// What [`import_succession`] did.
pub(crate) struct Succeeded {
    pub(crate) added: Added,
    /// What the next card's attestations state.
    pub(crate) proven: Proven,
}

/// Replaces the card of a member by its next one, in a store that is unlocked: verified with `token`, which is in use here, by one agree; attested as any card; and compared by
/// `given` (a fingerprint in full) or by the people at the terminal. `more`: files of roots to believe this time.
///
/// # Errors
/// `SuccessionInvalid`: it does not follow upon the card that is held, is not for this machine, or its MAC does not fit. `PeerRevoked`, `PeerUnknown`, `CardIsOwn`; and those of
/// an import. Nothing was changed.
pub(crate) fn import_succession(
    store: &mut Store,
    token: &mut OpenToken,
    succession: &Succession,
    given: Option<&str>,
    more: &[PathBuf],
    terminal: &Terminal,
) -> Result<Succeeded> {
    let machine = store.machine()?;
    let (card, own) = (&succession.card, &machine.card.identifier);
    let name = &card.identifier;
    if name == own {
        return Err(Error::new(
            ErrorKind::CardIsOwn,
            "The succession is this machine's own; nothing was changed.",
            "Carry it to the other members.",
        ));
    }
    let former = held(store, name)?;
    let roots = roots(&machine.attestation.roots, more)?;
    let plan = store.plan()?;
    if let Some(plan) = &plan {
        plan.check_card(card)?;
    }
    let required = machine.attestation.required || plan.is_some_and(|plan| plan.rules.attestation);
    let proven = demand(card, &roots, required)?;
    if former == *card {
        terminal.note(&format!("\"{name}\" has this card already."));
        return Ok(Succeeded { added: Added::AlreadyThere, proven });
    }
    // Whom it can not be for is found before the token is asked.
    check(succession, &former, &machine)?;
    verified(succession, &former, &machine, token, terminal)?;
    let how = if let Some(given) = given {
        compare(card, given)?;
        "fingerprint given"
    } else {
        terminal.request(&introduction(succession, &former));
        confirm(card, &machine.card.fingerprint(), &roots, terminal)?
    };
    let how = format!("{how}; vouched for by its {} key; {}", succession.by, logged(&proven));
    store.succeed_card(succession, &how)?;
    terminal.note(&format!("\"{name}\" has its next card."));
    Ok(Succeeded { added: Added::New, proven })
}

/// The card of that name.
fn held(store: &Store, name: &Identifier) -> Result<IdentityCard> {
    if let Some(card) = store.cards()?.into_iter().find(|card| card.identifier == *name) {
        return Ok(card);
    }
    if let Some(revoked) = store.revoked()?.iter().find(|revoked| revoked.identifier == *name) {
        return Err(Error::new(
            ErrorKind::PeerRevoked,
            format!("\"{name}\" was revoked here at {} ({}); nothing was changed.", utc(revoked.time), revoked.reason),
            "What was revoked has no successor. If its machine is to come back, meet again and import a card with new keys.",
        ));
    }
    Err(Error::new(
        ErrorKind::PeerUnknown,
        format!("No card of \"{name}\" is held here, so that nothing can succeed it; nothing was changed."),
        format!("Import the card of \"{name}\", comparing fingerprints."),
    ))
}

fn check(succession: &Succession, former: &IdentityCard, machine: &Machine) -> Result<()> {
    let name = &former.identifier;
    let curve = machine.card.curve();
    if former.curve() != curve || succession.card.curve() != curve {
        return Err(Error::new(
            ErrorKind::NoSharedCurve,
            format!(
                "The keys of \"{name}\" are on another curve than this machine's, so that it can not vouch here; nothing was changed."
            ),
            format!(
                "Remove \"{name}\" with `claviger-ceremony remove {name}`, import its present card and compare fingerprints."
            ),
        ));
    }
    if !succession.is_bounded(now()) {
        return Err(Error::new(
            ErrorKind::SuccessionInvalid,
            format!(
                "By the succession the former card of \"{name}\" holds until {}, more than {} days from now by this machine's clock; nothing was changed.",
                utc(succession.until),
                MAX_OVERLAP.as_secs() / (24 * 60 * 60)
            ),
            format!(
                "See that the clocks of both machines are right. If this one's is, remove \"{name}\" with `claviger-ceremony remove {name}`, import its present card and compare fingerprints."
            ),
        ));
    }
    Ok(())
}

/// The MAC, with the key in use here; while a rotation of this machine is under way, with the former one, too: the other side may not have known of the new one.
fn verified(
    succession: &Succession,
    former: &IdentityCard,
    machine: &Machine,
    token: &mut OpenToken,
    terminal: &Terminal,
) -> Result<()> {
    let own = &machine.card.identifier;
    let Some(by) = former.key(succession.by) else {
        return Err(Error::new(
            ErrorKind::SuccessionInvalid,
            format!(
                "The succession is by the {} key of \"{}\", and the card that is held here has none.",
                succession.by, former.identifier
            ),
            "See that the one before it was imported.",
        ));
    };
    if succession.former != former.digest() {
        // Said by the library, which then does not look at what was agreed.
        let nothing = claviger::secret::SharedSecret::new([0; 32]);
        return succession.verify(former, (own, machine.active), &nothing);
    }
    let agreed = token.agree(by, terminal)?;
    let refused = match succession.verify(former, (own, machine.active), &agreed) {
        Err(refused) if refused.kind() == ErrorKind::SuccessionInvalid => refused,
        verified => return verified,
    };
    let Some(previous) = &machine.former else { return Err(refused) };
    let place = previous.active;
    let Some(key) = previous.card.key(place) else { return Err(refused) };
    terminal.note("The present key of this machine can not verify it; the former one is tried.");
    let Ok(mut token) = OpenToken::open_in_turn(&parse(&previous.token)?, Some(key), "the former token", terminal)
    else {
        return Err(refused);
    };
    let agreed = token.agree(by, terminal)?;
    succession.verify(former, (own, place), &agreed)
}

/// Stands above the next card's fingerprint.
fn introduction(succession: &Succession, former: &IdentityCard) -> String {
    let until = if succession.until > now() {
        format!("The former card holds until {}, too.", utc(succession.until))
    } else {
        "The former card does not hold any more.".into()
    };
    let text =
        format!("\"{}\" has a next card, for which its {} key vouches. {until}", former.identifier, succession.by);
    let words = former.fingerprint().words();
    format!("{}\nUntil now its fingerprint had the words\n  {words}\n", wrapped(&text, "", ""))
}
