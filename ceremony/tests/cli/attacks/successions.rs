//! A next card that is swapped, forged or replayed.

use claviger::ceremony::succession::Succession;
use claviger::identity::KeyPlace;

use super::{Caught, Room};

fn invalid<'a>(says: &'a [&'a str]) -> Caught<'a> {
    Caught { code: 4, kind: "succession-invalid", says }
}

fn import<'a>(file: &'a str, words: &'a str) -> [&'a str; 4] {
    ["import", file, "--fingerprint", words]
}

#[test]
fn successions_are_forged() {
    let room = Room::enter();
    let lab = room.confirmed.copy();
    lab.at("cosigner", &["rotate", "--token", &room.next, "--confirm", "cosigner", "cosigner.succession"]);
    let good = Succession::from_text(&lab.read("cosigner.succession")).unwrap();
    let his = lab.card_of("mallory.card");
    let words = good.card.fingerprint().words();

    // The attacker's card, or a part of it, under what the cosigner's token said; and with the time made longer, or for another machine.
    let of = |name: &str, succession: &Succession| {
        succession.macs.iter().find(|mac| mac.peer.as_str() == name).unwrap().clone()
    };
    let made = |change: &dyn Fn(&mut Succession)| {
        let mut forged = good.clone();
        change(&mut forged);
        forged
    };
    let vouch = &["The present key of \"cosigner\" does not vouch for this succession"][..];
    let follow = &["does not follow upon the card of \"cosigner\""][..];
    let cases: [(Succession, &[&str]); 7] = [
        (made(&|one| one.card = his.clone()), vouch),
        (made(&|one| one.card.static_public = his.static_public.clone()), vouch),
        (made(&|one| one.card.onion_address = his.onion_address), vouch),
        (made(&|one| one.until += 3600), vouch),
        (made(&|one| one.by = KeyPlace::Backup), vouch),
        (made(&|one| one.former = his.digest()), follow),
        (
            made(&|one| {
                let other = of("watchtower", one).mac;
                one.macs.iter_mut().filter(|mac| mac.peer.as_str() == "wallet").for_each(|mac| mac.mac = other);
            }),
            vouch,
        ),
    ];
    for (forged, says) in cases {
        lab.write("forged.succession", forged.to_text());
        let shown = forged.card.fingerprint().words();
        lab.caught("wallet", &import("forged.succession", &shown), invalid(says));
    }
    let without = made(&|one| one.macs.retain(|mac| mac.peer.as_str() != "wallet"));
    lab.write("forged.succession", without.to_text());
    lab.caught("wallet", &import("forged.succession", &words), invalid(&["is not for the primary key of \"wallet\""]));
    // Another's name on the card, which the plan knows with another role.
    let renamed = made(&|one| one.card.identifier = "auditor".parse().unwrap());
    lab.write("forged.succession", renamed.to_text());
    let shown = renamed.card.fingerprint().words();
    let by = Caught { code: 4, kind: "plan-mismatch", says: &["\"auditor\""] };
    lab.caught("wallet", &import("forged.succession", &shown), by);

    // His own machine vouches for its next card, with the cosigner's name.
    lab.import_unread("mallory", &["wallet.card", "watchtower.card", "auditor.card"]);
    lab.at("mallory", &["rotate", "--token", &room.spare, "--confirm", "cosigner", "his.succession"]);
    let vouched = Succession::from_text(&lab.read("his.succession")).unwrap();
    let shown = vouched.card.fingerprint().words();
    lab.caught("wallet", &import("his.succession", &shown), invalid(follow));
    let follows = Succession { former: good.former, ..vouched };
    lab.write("his.succession", follows.to_text());
    lab.caught("wallet", &import("his.succession", &shown), invalid(vouch));

    // The words, where the token itself was stolen.
    let by = Caught { code: 4, kind: "fingerprint-mismatch", says: &["of this card of \"cosigner\""] };
    lab.caught("wallet", &import("cosigner.succession", &his.fingerprint().words()), by);

    // Replayed: after the next one, and after the machine was revoked.
    lab.at("wallet", &import("cosigner.succession", &words));
    lab.at("cosigner", &["rotate", "--finish", "--confirm", "cosigner"]);
    lab.at("cosigner", &["rotate", "--token", &room.spare, "--confirm", "cosigner", "second.succession"]);
    lab.at("wallet", &import("second.succession", &lab.words("cosigner")));
    lab.caught("wallet", &import("cosigner.succession", &words), invalid(follow));
    lab.at("wallet", &["revoke", "cosigner", "--reason", "stolen", "--confirm", "cosigner"]);
    let by = Caught { code: 4, kind: "peer-revoked", says: &["\"cosigner\" was revoked here", "stolen"] };
    lab.caught("wallet", &import("second.succession", &lab.words("cosigner")), by);
    lab.write("former.card", good.card.to_text());
    lab.caught("wallet", &import("former.card", &words), Caught { code: 4, kind: "peer-revoked", says: &["cosigner"] });
}
