//! What a running daemon knows.

use super::step::{Report, Step};
use claviger::daemon::sandbox::State;
use claviger::daemon::status::{Failure, OnionState, Relation, Status};

pub(super) fn steps(status: &Status, report: &mut Report) {
    token(status, report);
    if let Some(trouble) = &status.store.trouble {
        report.push(told("seal", trouble));
    } else if status.store.is_open && status.store.is_sealed == Some(true) {
        report.push(Step::ok("seal", "holds: the daemon opened it with the token"));
    }
    if let Some(refused) = &status.configuration.refused {
        report.push(told("configuration", refused));
    }
    transport(status, report);
    onion(status, report);
    for (about, count) in [("service", status.services.len()), ("forward", status.forwards.len())] {
        let mut troubles = status.troubles.iter().filter(|trouble| trouble.about.starts_with(about)).peekable();
        if troubles.peek().is_none() && count > 0 {
            report.push(Step::ok(format!("{about}s"), format!("{count}, and none failed of late")));
        }
        troubles.for_each(|trouble| report.push(told(trouble.about.clone(), trouble)));
    }
    peers(status, report);
    match &status.log.trouble {
        Some(trouble) => report.push(Step::told("log", &trouble.reason, &trouble.what, &trouble.hint)),
        None if status.log.kept => report.push(Step::ok("log", format!("written, {} entries so far", status.log.last))),
        None => report.push(Step::skipped("log", "none is kept: `connections` under [log] is 0")),
    }
    let partly = status.sandbox.iter().filter(|applied| applied.state != State::Applied);
    let partly: Vec<_> = partly
        .map(|applied| format!("{}: {}", applied.what, applied.why.as_deref().unwrap_or("not applied")))
        .collect();
    match (status.sandbox.is_empty(), partly.is_empty()) {
        (true, _) => report.push(Step::skipped("sandbox", "the daemon does not tell of it")),
        (_, true) => report.push(Step::ok("sandbox", "the daemon gave up what it does not need")),
        _ => report.push(Step::warning(
            "sandbox",
            format!("Not all was given up. {}.", partly.join("; ")),
            "A newer kernel can more; what is switched off is under [sandbox].",
        )),
    }
}

fn told(about: impl Into<std::borrow::Cow<'static, str>>, failure: &Failure) -> Step {
    Step::told(about, &failure.reason, &failure.what, &failure.hint)
}

fn token(status: &Status, report: &mut Report) {
    let Some(token) = &status.token else {
        report.push(Step::skipped("token", "the daemon has not looked for it yet"));
        return;
    };
    match &token.trouble {
        Some(trouble) => report.push(told("token", trouble)),
        None if token.is_software => report.push(Step::warning(
            "token",
            format!("{}: the key can be copied.", token.label),
            "For more than a trial use a hardware token, and `claviger-ceremony rotate` to move to it.",
        )),
        None => report.push(Step::ok("token", format!("{}, {}", token.label, token.state.replace('-', " ")))),
    }
}

fn transport(status: &Status, report: &mut Report) {
    let kind = &status.transport.kind;
    let Some(progress) = &status.transport.progress else {
        report.push(Step::skipped("transport", format!("{kind}; not asked for anything before the store is open")));
        return;
    };
    report.push(super::alone::progress(kind, progress));
}

fn onion(status: &Status, report: &mut Report) {
    let Some(onion) = &status.onion else {
        report.push(Step::skipped("onion", "this machine serves nothing"));
        return;
    };
    if let (Some(false), Some(failure)) = (onion.probe.is_reached(), &onion.probe.failure) {
        report.push(Step::told("onion", &failure.reason, &failure.what, &failure.hint));
        return;
    }
    report.push(match onion.state {
        OnionState::Reachable if onion.probe.is_reached() == Some(true) => {
            let ago = onion.probe.success.as_ref().map_or(0, |success| status.at.saturating_sub(success.time));
            Step::ok("onion", format!("reached from outside {} min ago", ago / 60))
        }
        OnionState::Reachable => Step::ok("onion", "published; not probed from outside yet"),
        OnionState::Starting | OnionState::Publishing => Step::warning(
            "onion",
            "The service is on its way to Tor's directories.",
            "Wait a minute; `claviger status --watch` shows how it goes.",
        ),
        OnionState::Interrupted => Step::told(
            "onion",
            "transport-unavailable",
            format!("Peers can not reach this machine: {}.", onion.why.as_deref().unwrap_or("nobody says why")),
            "It is tried again by itself; mend the transport first, if it fails above.",
        ),
    });
}

fn peers(status: &Status, report: &mut Report) {
    for peer in &status.peers {
        let about = format!("peer {}", peer.name);
        match (peer.relation, &peer.last_error) {
            (Relation::Operational, _) => report.push(Step::ok(about, "there is a session")),
            (Relation::Degraded, _) => report.push(Step::warning(
                about,
                format!("There is a session, but {}.", peer.why.join("; ")),
                "See `claviger status`.",
            )),
            (Relation::Needed | Relation::Interrupted, Some(error)) => report.push(told(about, error)),
            (Relation::Needed | Relation::Interrupted, None) => report.push(Step::warning(
                about,
                "A session is wanted, and there is none yet.",
                "Wait a minute; `claviger status --watch` shows how it goes.",
            )),
            (Relation::Known, Some(error)) => report.push(Step::warning(about, &error.what, &error.hint)),
            (Relation::Known, None) => report.push(Step::ok(about, "no session is wanted now")),
        }
    }
}
