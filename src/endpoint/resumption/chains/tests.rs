use super::*;
use crate::identity::{Curve, StaticPublic, Suite};
use crate::secret::CipherKey;
use crate::wire::Pattern;

const MINUTE: Duration = Duration::from_secs(60);

fn key(n: u8) -> StaticPublic {
    let mut bytes = [9; 32];
    bytes[0] = n;
    StaticPublic::new(Curve::X25519, &bytes).unwrap()
}

fn family(peer: &str, is_initiator: bool, token_seen: BootInstant) -> Arc<Family> {
    let protocol =
        Protocol { pattern: Pattern::Kk, kem: None, psk: false, curve: Curve::X25519, suite: Suite::ChaChaPolyBlake2s };
    let origin = Origin { handshake_hash: [1; 32], kind: 1, time_ms: 5, initiator: key(1), responder: key(2) };
    let pair = Pair { peer: peer.parse().unwrap(), own: key(1), as_former: false, theirs: key(2) };
    let onion_address = OnionAddress::from_public_key([3; 32]);
    Arc::new(Family { pair, is_initiator, onion_address, protocol, origin, token_seen })
}

fn link(n: u8) -> Link {
    Link::of(&[n; 32], &CipherKey::new([1; 32]), &CipherKey::new([2; 32])).unwrap()
}

fn chain(family: &Arc<Family>, n: u8) -> Chain {
    Chain::new(Arc::clone(family), link(n), n.into())
}

/// Three a peer, for 15 minutes.
fn chains() -> Arc<Chains> {
    let mut config = Config::default();
    config.limits.sessions_per_peer = 3;
    Arc::new(Chains::new(&config))
}

fn count(chains: &Chains) -> usize {
    chains.lock().values().map(VecDeque::len).sum()
}

fn take(chains: &Arc<Chains>, now: BootInstant) -> Option<Taken> {
    chains.take(&"peer".parse().unwrap(), now, |_, _| true)
}

#[test]
fn the_newest_is_taken_and_the_oldest_makes_room() {
    let (chains, now) = (chains(), BootInstant::now());
    let family = family("peer", true, now);
    for n in 1..=4 {
        chains.keep(chain(&family, n), chains.age(), now);
    }
    assert_eq!(count(&chains), 3);
    let taken: Vec<Taken> = std::iter::from_fn(|| take(&chains, now)).collect();
    assert_eq!(taken.iter().map(Taken::session).collect::<Vec<_>>(), [4, 3, 2]);
    assert_eq!(count(&chains), 0, "nobody else gets what one has");
    for (at, taken) in taken.into_iter().enumerate() {
        if at == 1 { taken.done() } else { drop(taken) }
    }
    assert_eq!(count(&chains), 2, "what did not do its work is given back");
}

#[test]
fn a_link_is_used_once_and_no_more_than_the_other_end_looks_for() {
    let (chains, now) = (chains(), BootInstant::now());
    let family = family("peer", true, now);
    chains.keep(chain(&family, 1), chains.age(), now);
    let mut expected = link(1);
    for _ in 0..WINDOW {
        let mut taken = take(&chains, now).expect("one is left");
        assert_eq!(taken.link().unwrap().id().unwrap(), expected.id().unwrap());
        expected = expected.next().unwrap();
    }
    assert!(take(&chains, now).is_none());
}

#[test]
fn only_the_end_that_began_it_takes_and_only_the_other_finds() {
    let (chains, now) = (chains(), BootInstant::now());
    let (mine, theirs) = (family("peer", true, now), family("peer", false, now));
    chains.keep(chain(&mine, 1), chains.age(), now);
    chains.keep(chain(&theirs, 2), chains.age(), now);
    let find =
        |pair: &Pair, n| chains.find(pair, &link(n).id().unwrap(), now, |_, _| Ok(())).map(|found| found.session);
    assert_eq!(find(&mine.pair, 1).unwrap_err().kind(), ErrorKind::ResumptionRefused);
    assert_eq!(take(&chains, now).unwrap().session(), 1);
    let others = [
        Pair { peer: "other".parse().unwrap(), ..theirs.pair.clone() },
        Pair { own: key(3), ..theirs.pair.clone() },
        Pair { theirs: key(3), ..theirs.pair.clone() },
        Pair { as_former: true, ..theirs.pair.clone() },
    ];
    for other in others {
        assert_eq!(find(&other, 2).unwrap_err().kind(), ErrorKind::ResumptionRefused, "{other:?}");
    }
    assert_eq!(find(&theirs.pair, 2).unwrap(), 2);
    assert_eq!(find(&theirs.pair, 2).unwrap_err().kind(), ErrorKind::ResumptionRefused, "a link that was used");
}

#[test]
fn a_message_that_does_not_open_moves_nothing() {
    let (chains, now) = (chains(), BootInstant::now());
    let family = family("peer", false, now);
    chains.keep(chain(&family, 1), chains.age(), now);
    let third = link(1).next().unwrap().next().unwrap();
    let find = |link: &Link, opens: bool| {
        let bad = || Error::new(ErrorKind::HandshakeFailed, "No.", "None.");
        let opens = |_: &_, _: &_| opens.then_some(()).ok_or_else(bad);
        chains.find(&family.pair, &link.id().unwrap(), now, opens).map(drop).map_err(|error| error.kind())
    };
    assert_eq!(find(&third, false), Err(ErrorKind::HandshakeFailed));
    assert_eq!(find(&link(1), false), Err(ErrorKind::HandshakeFailed));
    assert_eq!(find(&third, true), Ok(()));
    assert_eq!(find(&link(1), true), Err(ErrorKind::ResumptionRefused), "it was passed by");
    assert_eq!(find(&third.next().unwrap(), true), Ok(()));
}

#[test]
fn time_and_changes_wipe() {
    let (chains, now) = (chains(), BootInstant::now());
    let family = family("peer", true, now);
    chains.keep(chain(&family, 1), chains.age(), now);
    assert!(take(&chains, now.later(15 * MINUTE)).is_none(), "its time is over");
    chains.expire(now.later(14 * MINUTE));
    assert_eq!(count(&chains), 1);
    chains.expire(now.later(15 * MINUTE));
    assert_eq!(count(&chains), 0);
    chains.keep(chain(&family, 1), chains.age(), now.later(15 * MINUTE));
    assert_eq!(count(&chains), 0, "too late to be kept");

    let age = chains.age();
    chains.keep(chain(&family, 1), age, now);
    chains.keep(chain(&family, 2), age, now);
    let taken = take(&chains, now).unwrap();
    assert!(chains.allow(&taken, now) && !chains.allow(&taken, now.later(15 * MINUTE)));
    chains.changed(|_| true);
    assert!(!chains.allow(&taken, now));
    assert_eq!(count(&chains), 1);
    drop(taken);
    assert_eq!(count(&chains), 1, "in use while something changed");
    chains.keep(chain(&family, 3), age, now);
    assert_eq!(count(&chains), 1, "begun before something changed");
    chains.changed(|_| false);
    assert_eq!(count(&chains), 0);

    let mut config = Config::default();
    config.session.resume_for = Duration::ZERO;
    let never = Chains::new(&config);
    never.keep(chain(&family, 1), never.age(), now);
    assert_eq!(count(&never), 0);
}

fn answering(family: &Arc<Family>, n: u8, session: u64, answer: u64) -> Chain {
    Chain::answering(Arc::clone(family), link(n), session, answer)
}

fn find(chains: &Chains, family: &Family, link: &Link, now: BootInstant) -> Option<u64> {
    let found = chains.find(&family.pair, &link.id().unwrap(), now, |_, _| Ok(()));
    found.ok().map(|found| found.session)
}

#[test]
fn until_it_is_confirmed_either_chain_may_be_the_other_ends() {
    let (chains, now) = (chains(), BootInstant::now());
    let family = family("peer", false, now);
    let peer = &family.pair.peer;
    let kept = |chain| assert!(chains.keep(chain, chains.age(), now));
    let confirm = |answer| chains.confirm(peer, answer, || Ok(())).map_err(|error| error.kind());
    kept(chain(&family, 1));
    // The answer was lost: it comes once more, by the same chain, and means the same session.
    assert_eq!(find(&chains, &family, &link(1), now), Some(1));
    kept(answering(&family, 2, 1, 2));
    assert_eq!(find(&chains, &family, &link(1).next().unwrap(), now), Some(1));
    assert_eq!(count(&chains), 1, "nobody has what the lost answer left");
    assert_eq!(confirm(2), Err(ErrorKind::ResumptionRefused), "it has come back since");
    // The confirmation was: it comes by the other chain, and still means that session.
    kept(answering(&family, 3, 1, 3));
    assert_eq!(find(&chains, &family, &link(3), now), Some(1));
    assert_eq!(count(&chains), 1, "it would not come by the old one");
    assert_eq!(confirm(3), Err(ErrorKind::ResumptionRefused));
    kept(answering(&family, 4, 1, 4));
    let full = chains.confirm(peer, 4, || Err(Error::new(ErrorKind::SessionLimit, "No.", "None.")));
    assert_eq!(full.unwrap_err().kind(), ErrorKind::SessionLimit);
    assert_eq!(count(&chains), 2, "it may come again");
    assert_eq!(confirm(4), Ok(()));
    assert_eq!(count(&chains), 1);
    assert_eq!(find(&chains, &family, &link(4), now), Some(4), "it is the new session's");
    kept(answering(&family, 5, 4, 5));
    chains.forget(peer, 4);
    assert_eq!(count(&chains), 0, "a session that was closed is not resumed by what an answer left");
    assert_eq!(confirm(5), Err(ErrorKind::ResumptionRefused));
}

/// With as many sessions as there may be, as with fewer.
#[test]
fn what_is_being_resumed_is_not_pushed_out() {
    let (chains, now) = (chains(), BootInstant::now());
    let family = family("peer", false, now);
    for n in 1..=3 {
        chains.keep(chain(&family, n), chains.age(), now);
    }
    let mut last = link(1);
    for by in 4..12 {
        assert_eq!(find(&chains, &family, &last, now), Some(1));
        chains.keep(answering(&family, by as u8, 1, by), chains.age(), now);
        last = last.next().unwrap();
        assert_eq!(count(&chains), 4);
    }
    // Nor is there ever more than twice of what there may be.
    for by in 12..30 {
        let n = by as u8;
        chains.keep(chain(&family, n), chains.age(), now);
        assert_eq!(find(&chains, &family, &link(n), now), Some(by));
        chains.keep(answering(&family, n + 100, by, by + 100), chains.age(), now);
        assert!(count(&chains) <= 6);
    }
    // What makes room goes with what else there is of its session.
    for n in 40..43 {
        chains.keep(chain(&family, n), chains.age(), now);
    }
    assert_eq!(count(&chains), 3);
}

#[test]
fn who_was_answered_goes_on_by_the_new_chain() {
    let (chains, now) = (chains(), BootInstant::now());
    let family = family("peer", true, now);
    chains.keep(chain(&family, 1), chains.age(), now);
    for _ in 0..WINDOW - 1 {
        take(&chains, now).unwrap().link().unwrap();
    }
    let mut taken = take(&chains, now).unwrap();
    taken.link().unwrap();
    taken.answered(link(2));
    drop(taken);
    let mut taken = take(&chains, now).expect("the window is the new chain's");
    assert_eq!((taken.session(), taken.link().unwrap().id().unwrap()), (1, link(2).id().unwrap()));
}
