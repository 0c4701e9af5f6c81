//! OpenSC's module.

use claviger_hsm::{Curve, NewKey, pkcs11};
use claviger_testkit::cards::{self, Card, Pcscd};

use crate::backend::{Given, open, soon};

const MODULE: &str = "/usr/lib/x86_64-linux-gnu/opensc-pkcs11.so";

#[test]
fn probe() {
    cards::isolated(|| {
        let pcscd = Pcscd::start();
        let card = Card::openpgp(&pcscd, 0x1234);
        for curve in [Curve::P256, Curve::X25519] {
            let mut new = NewKey::new(curve);
            let _ = &mut new;
            if curve == Curve::X25519 {
                card.reset();
                let old = open(&card.locator().parse().unwrap(), None, &mut Given::new(cards::PIN)).unwrap();
                new.replace = Some(old.public_key().clone());
            }
            let (l, p) = claviger_hsm::generate(&card.locator().parse().unwrap(), &new, &mut soon(&mut Given::new(cards::PIN))).unwrap();
            println!("{l} {p:?}");
            card.reset();
            let out = std::process::Command::new("pkcs11-tool").args(["--module", MODULE, "-L", "-O", "-M", "--login", "--pin", cards::PIN]).output().unwrap();
            println!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
            for d in pkcs11::list(std::path::Path::new(MODULE)).unwrap() {
                println!("{d:#?}");
                for key in d.keys {
                    let Some(l) = key.locator else { continue };
                    println!("{l}");
                    match open(&l, None, &mut Given::new(cards::PIN)) {
                        Ok(t) => println!("{:?} {:?}", t.public_key(), t.hints()),
                        Err(e) => println!("{e:?}"),
                    }
                }
            }
        }
        panic!("look");
    });
}
