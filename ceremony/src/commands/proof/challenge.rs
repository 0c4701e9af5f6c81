//! `challenge`.

use std::path::PathBuf;

use claviger::ceremony::document::Document;
use claviger::ceremony::plan::Plan;
use claviger::ceremony::proof::Challenge;
use claviger::error::Result;
use claviger::program::Terminal;
use claviger::store::OpenChallenge;
use data_encoding::HEXLOWER;
use serde::Serialize;

use super::{now, places};
use crate::cli::{self, Cli};
use crate::commands::opened::opened;
use crate::files::{Delivered, deliver};
use crate::report::{Print, utc};

/// `challenge --json`: `{"challenge", "plan", "issued", "expires"}` and where it went. `plan` is the plan's fingerprint, or `null`; times in seconds since 1970.
#[derive(Serialize)]
struct Made {
    challenge: String,
    plan: Option<Print>,
    issued: u64,
    expires: u64,
    #[serde(flatten)]
    delivered: Delivered,
}

pub(super) fn challenge(cli: &Cli, command: &cli::Challenge, terminal: &Terminal) -> Result<()> {
    let mut store = opened(cli, terminal)?.store;
    let card = store.machine()?.card;
    let plan = store.plan()?.as_ref().map(Plan::fingerprint);
    let issued = now();
    let (challenge, secret) = Challenge::new(&card, plan, issued, issued.saturating_add(command.valid.as_secs()))?;
    let text = challenge.to_text();
    let default = PathBuf::from(format!("{}.challenge", card.identifier));
    let output = places(
        command.output.clone(),
        default.clone(),
        &text,
        |there, own| there.iter().all(|there| matches!(there, Document::Challenge(older) if older.verifier == *own)),
        &card.identifier,
    )?;
    store.open_challenge(&OpenChallenge { id: challenge.id, text: text.clone(), secret }, issued)?;
    let title = format!("{}: challenge", card.identifier);
    let delivered = deliver(&text, &title, || default, &output, terminal)?;
    let told = delivered.told().map_or_else(String::new, |told| format!("{told}. "));
    terminal.note(&format!(
        "{told}The challenge holds until {} by this machine's clock. Carry it to the other machines; there, answer it with `claviger-ceremony prove`.",
        utc(challenge.expires)
    ));
    if delivered.to_stdout() {
        return Ok(());
    }
    let made = Made {
        challenge: HEXLOWER.encode(&challenge.id),
        plan: plan.map(Into::into),
        issued,
        expires: challenge.expires,
        delivered,
    };
    terminal.result(&made.delivered.text(), &made)
}
