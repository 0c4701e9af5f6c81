//! Cards that prove that their key is in a device, and cards that do not.

use claviger::identity::{Attestation, AttestationFormat, IdentityCard, TokenKind};
use claviger_testkit::attestation::{Signer, Template};
use claviger_testkit::cards::{self, Card, PIN, Pcscd};

use crate::lab::{Lab, snapshot};

/// An organisation that loads attestation keys of its own into its devices.
struct Maker {
    root: Signer,
    device: Signer,
}

impl Maker {
    fn new() -> Self {
        let root = Signer::root("Example Attestation Root");
        let device = root.below("Example Device", Some(0));
        Self { root, device }
    }

    /// The card in `file`, as if its key were in a device; `proof` makes the statement about that key.
    fn card(&self, lab: &Lab, file: &str, proof: impl FnOnce(&[u8]) -> Option<Template>) -> String {
        let mut card = IdentityCard::from_text(&lab.read(file)).unwrap();
        card.token = TokenKind::Hardware;
        card.attestation = proof(card.static_public.as_bytes()).map(|template| {
            let chain = vec![self.device.sign(&template), self.device.der.clone()];
            Attestation::new(AttestationFormat::YubicoPiv, chain).unwrap()
        });
        lab.write(file, card.to_text());
        card.fingerprint().words()
    }
}

#[test]
fn import() {
    let lab = Lab::new();
    let maker = Maker::new();
    lab.write("root.pem", maker.root.pem());
    lab.write("other.pem", Signer::root("Other Root").pem());
    lab.write("text.pem", "no certificate");
    for name in ["plain", "software", "proven", "liar", "late"] {
        lab.machine(name, "x25519", &[]);
    }
    // One that believes the organisation, one that believes it and demands, one that knows only the makers.
    lab.machine("open", "x25519", &["--attestation-root", "root.pem"]);
    lab.machine("strict", "x25519", &["--require-attestation", "--attestation-root", "root.pem"]);
    lab.machine("wallet", "x25519", &[]);
    let plain = maker.card(&lab, "plain.card", |_| None);
    let software = lab.words("software");
    let proven = maker.card(&lab, "proven.card", |key| Some(Template::piv(0x9d, key)));
    let late = maker.card(&lab, "late.card", |key| Some(Template::piv(0x9d, key)));
    let liar = maker.card(&lab, "liar.card", |_| Some(Template::piv(0x9d, &[7; 32])));
    let words = [&plain, &software, &proven, &late, &liar];
    let hide = |text: String| words.iter().fold(text, |text, words| text.replace(*words, "WORDS"));
    let import = |store: &str, card: &str, words: &str, more: &[&str]| {
        let file = format!("{card}.card");
        let arguments = [&["--store", store, "import", &file, "--fingerprint", words], more].concat();
        lab.transcript(&[&arguments])
    };
    let refused = |store: &str, card: &str, words: &str, more: &[&str]| {
        let file = format!("{card}.card");
        lab.fails(4, &[&["--store", store, "import", &file, "--fingerprint", words], more].concat())
    };

    let mut text = import("open", "plain", &plain, &[]);
    text += &import("open", "software", &software, &[]);
    text += &import("open", "proven", &proven, &[]);
    text += &import("open", "proven", &proven, &["--json"]);
    text += &import("strict", "proven", &proven, &[]);
    text += &import("wallet", "proven", &proven, &["--attestation-root", "root.pem", "--require-attestation"]);
    text += &lab.transcript(&[
        &["--store", "open", "peers"],
        &["--store", "open", "show", "proven"],
        &["--store", "open", "show", "proven", "--json"],
        &["--store", "open", "show", "plain"],
        &["--store", "open", "log"],
        &["--store", "strict", "show"],
        // The root counted for one call.
        &["--store", "wallet", "peers"],
        &["--store", "wallet", "show", "proven"],
        &["--store", "wallet", "log"],
    ]);
    snapshot("attested", &hide(text));

    let mut text = refused("open", "liar", &liar, &[]);
    text += &refused("wallet", "late", &late, &[]);
    text += &refused("wallet", "late", &late, &["--attestation-root", "other.pem"]);
    text += &refused("wallet", "late", &late, &["--attestation-root", "text.pem"]);
    text += &refused("strict", "plain", &plain, &[]);
    text += &refused("strict", "software", &software, &["--json"]);
    text += &refused("wallet", "plain", &plain, &["--require-attestation"]);
    // One that does not hold among others: nothing is recorded.
    let two = ["late.card", "liar.card", "--fingerprint", &late, "--fingerprint", &liar];
    text += &lab.fails(4, &[&["--store", "open", "import"], &two[..]].concat());
    lab.write("old.card", lab.read("plain.card").replace("identity card 4", "identity card 2"));
    text += &lab.fails(4, &["--store", "open", "import", "old.card"]);
    let token = lab.token("new");
    lab.ok(&["token", "generate", "--curve", "x25519", &token.uri_with_pin("noise")]);
    let locator = token.uri_with_pin("noise");
    let init = ["--store", "new", "init", "--name", "new", "--role", "x", "--token", &locator];
    text += &lab.fails(4, &[&init[..], &["--attestation-root", "text.pem"]].concat());
    text += &lab.fails(1, &[&init[..], &["--attestation-root", "absent.pem"]].concat());
    snapshot("attestation-refused", &hide(text));
}

#[test]
fn init() {
    cards::isolated(|| {
        let lab = Lab::new();
        let pcscd = Pcscd::start();
        let card = Card::yubikey(&pcscd, 12_345_678);
        let pin = lab.write("card.pin", format!("{PIN}\n"));
        let locator = format!("{}?pin-source=file:{pin}", card.locator());
        lab.ok(&["token", "generate", "--curve", "x25519", &locator]);
        lab.write("root.pem", std::fs::read(card.attestation_root()).unwrap());
        let init = |store: &str, more: &[&str]| {
            let first = ["--store", store, "init", "--name", store, "--role", "cosigner", "--token", &locator];
            lab.transcript(&[&[&first[..], more].concat()])
        };
        // The virtual maker is none of the makers, and one who was told of it may believe it.
        let mut text = init("unknown", &[]);
        text += &init("private", &["--no-attestation", "--attestation-root", "root.pem"]);
        text += &init("proven", &["--attestation-root", "root.pem"]);
        text += &lab.transcript(&[&["--store", "proven", "show", "--json"]]);
        lab.ok(&["--store", "proven", "export"]);
        lab.machine("wallet", "x25519", &["--require-attestation", "--attestation-root", "root.pem"]);
        let words = lab.words("proven");
        let import = ["--store", "wallet", "import", "proven.card", "--fingerprint", &words];
        text += &lab.transcript(&[&import]).replace(&words, "WORDS");
        snapshot("attested-init", &text);
        for (store, line) in [("unknown", "attestation: none\n"), ("private", "attestation: none\n")] {
            lab.ok(&["--store", store, "export"]);
            assert!(lab.read(&format!("{store}.card")).contains(line), "{store}");
        }
        assert!(lab.read("proven.card").contains("attestation: yubico-piv MII"));
    });
}
