//! Both static keys on hardware, as far as that can be emulated: two virtual cards behind one pcscd, over the private Tor network.

use crate::endpoints::{PATTERNS, through};
use crate::net::{LONG, network, run, start};
use crate::support::{Machine, talk};
use claviger::config::{Pattern, TransportKind};
use claviger::identity::Curve;
use claviger_testkit::cards::{Card, Pcscd, isolated};
use tokio::time::timeout;

/// KK, KK1 and XK between a YubiKey and an OpenPGP card, on both curves; the cards count the operations themselves.
#[test]
fn every_pattern_between_two_cards() {
    isolated(|| {
        let network = network();
        let (host, client) = (start(&network), start(&network));
        let pcscd = Pcscd::start();
        for (curve, serial) in [(Curve::X25519, 0x0700_0010), (Curve::P256, 0x0700_0020)] {
            let (yubikey, openpgp) = (Card::yubikey(&pcscd, serial), Card::openpgp(&pcscd, serial + 1));
            run(async {
                let suites = "ChaChaPoly_BLAKE2s";
                let mut wallet = Machine::new("wallet", Some(yubikey.locator()), curve, suites);
                let mut cosigner = Machine::new("cosigner", Some(openpgp.locator()), curve, suites);
                through(&mut wallet, TransportKind::Tor, &network, &client);
                through(&mut cosigner, TransportKind::Tor, &network, &host);
                wallet.introduce(&mut cosigner);
                let (caller, answerer) = (wallet.endpoint(Pattern::Kk).await, cosigner.endpoint(Pattern::Kk).await);
                assert!(!caller.token().is_software() && !answerer.token().is_software());
                let mut listening = answerer.listen(&cosigner.card.onion_address, 4747).await.unwrap();
                for (pattern, operations) in PATTERNS {
                    let before = [yubikey.operations(), openpgp.operations()];
                    let conversation = async {
                        let calling = caller.connect_peer(&cosigner.card.identifier, Some(pattern.into()));
                        let (session, accepted) = tokio::join!(calling, listening.accept());
                        let (session, accepted) = (session.unwrap(), accepted.unwrap());
                        assert_eq!(session.handshake_hash(), accepted.handshake_hash());
                        assert_eq!(accepted.peer().identifier, wallet.card.identifier);
                        talk(&session, &accepted).await;
                    };
                    timeout(LONG, conversation).await.expect("in time");
                    let after = [yubikey.operations(), openpgp.operations()];
                    assert_eq!([after[0] - before[0], after[1] - before[1]], [operations; 2], "{pattern:?} on {curve}");
                }
            });
        }
    });
}
