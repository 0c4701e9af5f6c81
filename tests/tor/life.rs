//! After a ceremony, over the private Tor network: the roll call, and a rotation's overlap with two addresses of one process.

use crate::endpoints::through;
use crate::net::{LONG, network, run, start};
use crate::support::{Machine, now, talk};
use claviger::ceremony::plan::Plan;
use claviger::ceremony::succession::Succession;
use claviger::config::{Pattern, TransportKind};
use claviger::endpoint::rollcall::{Outcome, RollCall};
use claviger::identity::KeyPlace;
use claviger::transport::ServiceState;
use tokio::time::timeout;

const PLAN: &str = r#"
plan = 1
name = "three"
[[member]]
name = "cosigner"
role = "cosigner"
[[member]]
name = "tower"
role = "tower"
[[member]]
name = "wallet"
role = "wallet"
[[edge]]
from = "wallet"
to = ["cosigner", "tower"]
service = "sign"
[[edge]]
from = "cosigner"
to = "wallet"
service = "report"
[[edge]]
from = "tower"
to = "cosigner"
service = "watch"
"#;

#[test]
fn the_roll_is_called_along_every_edge() {
    let network = network();
    let tor = start(&network);
    run(async {
        let plan = Plan::from_toml(PLAN).unwrap();
        let mut machines = ["cosigner", "tower", "wallet"].map(|name| Machine::planned(name, &plan));
        let cards = machines.each_ref().map(|machine| machine.card.clone());
        let kinds = [TransportKind::Tor, TransportKind::Arti, TransportKind::Arti];
        for (machine, kind) in machines.iter_mut().zip(kinds) {
            through(machine, kind, &network, &tor);
            for card in cards.iter().filter(|card| **card != machine.card) {
                machine.store().add_card(card, "test").unwrap();
            }
        }
        let mut calls = Vec::new();
        for machine in &mut machines {
            calls.push(RollCall::new(&machine.endpoint(Pattern::Kk).await, None).unwrap());
        }
        let [first, second, third] = calls.as_mut_slice() else { unreachable!() };
        let calling =
            async { tokio::join!(first.run(LONG, |_| {}), second.run(LONG, |_| {}), third.run(LONG, |_| {})) };
        let (a, b, c) = calling.await;
        a.and(b).and(c).unwrap();
        let mut words = Vec::new();
        for call in &calls {
            for edge in call.edges() {
                let Some(Outcome::Present { pattern, operations: 2, words: said }) = &edge.outcome else {
                    panic!("{edge:?}");
                };
                assert_eq!(*pattern, claviger::wire::Pattern::Kk);
                println!("{:?} {} {}: {said} in {:.1?}", edge.direction, edge.peer, edge.service, edge.took);
                words.push(said.clone());
            }
        }
        words.sort();
        assert_eq!(words.len(), 8);
        assert!(words.chunks(2).all(|ends| ends[0] == ends[1]), "each edge's words are said twice: {words:?}");
    });
}

#[test]
fn two_addresses_of_one_process() {
    let network = network();
    let (host, client) = (start(&network), start(&network));
    run(async {
        for kind in [TransportKind::Arti, TransportKind::Tor] {
            let mut vault = Machine::software("vault");
            let (mut told, mut untold) = (Machine::software("told"), Machine::software("untold"));
            vault.introduce(&mut told);
            vault.introduce(&mut untold);
            let until = now() + 3600;
            let former = vault.card.clone();
            vault.rotate(until);
            let succession = Succession::new(&former, KeyPlace::Primary, vault.card.clone(), until);
            told.store().succeed_card(&succession, "test").unwrap();
            through(&mut vault, kind, &network, &host);
            for machine in [&mut told, &mut untold] {
                through(machine, TransportKind::Tor, &network, &client);
            }
            let endpoint = vault.endpoint(Pattern::Kk).await;
            let mut listening = endpoint.listen(&vault.card.onion_address, 4747).await.unwrap();
            for state in [listening.state(), listening.former_state().expect("it listens at the former address")] {
                let mut state = state;
                let reachable = state.wait_for(|state| *state == ServiceState::Reachable);
                timeout(LONG, reachable).await.expect("reachable in time").unwrap();
            }
            for (caller, as_former) in [(&mut told, false), (&mut untold, true)] {
                let caller = caller.endpoint(Pattern::Kk).await;
                let name = vault.card.identifier.clone();
                let meeting = async { tokio::join!(caller.connect_peer(&name, None), listening.accept()) };
                let (session, accepted) = timeout(LONG, meeting).await.expect("in time");
                let (session, accepted) = (session.unwrap(), accepted.unwrap());
                assert_eq!(accepted.peer().as_former, as_former);
                talk(&session, &accepted).await;
            }
        }
    });
}
