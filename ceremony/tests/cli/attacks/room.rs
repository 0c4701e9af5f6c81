//! The ceremony that is attacked, held once for all tests that run at the same time; each attack works on a copy.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use claviger_testkit::token::TestToken;

use crate::lab::Lab;

/// Edges join the wallet to the cosigner and the auditor, and the cosigner to the watchtower; the watchtower's card is only held at the wallet. That
/// proofs are not demanded lets people skip them.
pub(super) const PLAN: &str = "plan = 1\nname = \"quartet\"\n[rules]\nwitnesses = 1\n\
    [[member]]\nname = \"wallet\"\nrole = \"signer\"\n[[member]]\nname = \"cosigner\"\nrole = \"cosigner\"\n\
    [[member]]\nname = \"watchtower\"\nrole = \"watchtower\"\n[[member]]\nname = \"auditor\"\nrole = \"auditor\"\n\
    [[edge]]\nfrom = \"wallet\"\nto = [\"cosigner\", \"auditor\"]\nservice = \"sign\"\n\
    [[edge]]\nfrom = \"cosigner\"\nto = \"watchtower\"\nservice = \"watch\"\n";

pub(super) const NAMES: [&str; 4] = ["wallet", "cosigner", "watchtower", "auditor"];

/// A ceremony as it was after three of its steps. Stores are in the directories of their names; `mallory` is the attacker's, a machine with the cosigner's name, role and
/// curve under the same plan, and a backup token as the cosigner has one.
pub(super) struct Room {
    /// Identities are made, cards and challenges on the table.
    pub(super) exported: Lab,
    /// All cards are recorded, and proofs of all keys made.
    pub(super) imported: Lab,
    /// Proofs are verified, the phrase is confirmed, transcripts are written.
    pub(super) confirmed: Lab,
    /// What everybody confirmed.
    pub(super) phrase: String,
    /// The locators of two keys on no card.
    pub(super) next: String,
    pub(super) spare: String,
    _tokens: Vec<TestToken>,
}

impl Room {
    pub(super) fn enter() -> Arc<Self> {
        static ROOM: Mutex<Weak<Room>> = Mutex::new(Weak::new());
        let mut room = ROOM.lock().unwrap_or_else(PoisonError::into_inner);
        room.upgrade().unwrap_or_else(|| {
            let held = Arc::new(Self::hold());
            *room = Arc::downgrade(&held);
            held
        })
    }

    fn hold() -> Self {
        let lab = Lab::new();
        lab.write("plan.toml", PLAN);
        let mut tokens = Vec::new();
        let mut key = |label: &str| {
            let (token, locator) = lab.key(label, "x25519");
            tokens.push(token);
            locator
        };
        for (store, name) in NAMES.map(|name| (name, name)).into_iter().chain([("mallory", "cosigner")]) {
            let locator = key(store);
            let mut init = vec!["init", "--name", name, "--plan", "plan.toml", "--token", &locator];
            let backup = (name == "cosigner").then(|| key(&format!("{store}-backup")));
            backup.iter().for_each(|backup| init.extend(["--backup-token", backup]));
            lab.at(store, &init);
            lab.at(store, &["export", &format!("{store}.card")]);
            lab.at(store, &["challenge", &format!("{store}.challenge")]);
        }
        let (next, spare) = (key("next"), key("spare"));
        let exported = lab.copy();

        for at in NAMES {
            let others = NAMES.into_iter().filter(|name| *name != at).map(|name| format!("{name}.card"));
            lab.import_unread(at, &others.collect::<Vec<_>>().iter().map(String::as_str).collect::<Vec<_>>());
        }
        let challenges = NAMES.map(|name| format!("{name}.challenge"));
        let [one, two, three, four] = challenges.each_ref().map(String::as_str);
        for at in NAMES {
            lab.at(at, &["prove", one, two, three, four]);
        }
        lab.at("cosigner", &["prove", "--backup", one, two, three, four]);
        let imported = lab.copy();

        let phrase = lab.phrase("wallet");
        for at in NAMES {
            let proofs =
                ["wallet.proofs", "cosigner.proofs", "cosigner.backup.proofs", "watchtower.proofs", "auditor.proofs"];
            let others = proofs.into_iter().filter(|file| !file.starts_with(at));
            lab.at(at, &[&["verify-proof"], &others.collect::<Vec<_>>()[..]].concat());
            lab.at(at, &["confirm", "--by", "Ada", "--witness", "Grace", "--phrase", &phrase]);
            lab.at(at, &["transcript", &format!("{at}.transcript")]);
        }
        let (output, report) = lab.compared(&[]);
        assert!(output.status.success() && report["same"] == true, "{report}");
        Self { exported, imported, confirmed: lab, phrase, next, spare, _tokens: tokens }
    }
}
