//! What a plan demands before its set is confirmed, and what of it is missing.

use claviger::error::Result;
use claviger::identity::{Attestation, IdentityCard, KeyPlace, StaticPublic};
use claviger::store::Store;

use super::Whole;
use crate::attestation::roots;
use crate::commands::proof::lacking;

/// What is missing, each for a sentence. `witnesses`: how many are named.
pub(super) fn missing(whole: &Whole, store: &Store, witnesses: usize) -> Result<Vec<String>> {
    let Some(plan) = &whole.plan else { return Ok(Vec::new()) };
    let mut missing = Vec::new();
    if plan.rules.backup_token {
        let bare = whole.cards.iter().filter(|card| card.backup.is_none());
        missing.extend(bare.map(|card| format!("a backup key on the card of \"{}\"", card.identifier)));
    }
    if plan.rules.attestation {
        let roots = roots(&store.machine()?.attestation.roots, &[])?;
        for card in &whole.cards {
            for (place, key, attestation) in keys(card) {
                let holds = attestation.is_some_and(|attestation| roots.verify(attestation, key).is_ok());
                if !holds {
                    missing.push(format!("an attestation that holds of the {place} key of \"{}\"", card.identifier));
                }
            }
        }
    }
    if plan.rules.proof_of_possession {
        let lacking = lacking(store)?;
        missing.extend(lacking.iter().map(|(name, place)| format!("a proof by the {place} key of \"{name}\"")));
    }
    let demanded = usize::from(plan.rules.witnesses);
    if witnesses < demanded {
        missing.push(match demanded - witnesses {
            1 => "a witness".to_owned(),
            more => format!("{more} witnesses"),
        });
    }
    Ok(missing)
}

fn keys(card: &IdentityCard) -> impl Iterator<Item = (KeyPlace, &StaticPublic, Option<&Attestation>)> {
    let backup = card.backup.iter();
    let backup = backup.map(|backup| (KeyPlace::Backup, &backup.static_public, backup.attestation.as_ref()));
    std::iter::once((KeyPlace::Primary, &card.static_public, card.attestation.as_ref())).chain(backup)
}
