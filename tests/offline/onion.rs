//! `claviger onion`: files for a tor that takes no orders.

use crate::cli::{run, snapshot, text};
use crate::support::{Machine, now, pin_file};
use claviger::store::Peer;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

fn tree(dir: &Path) -> Vec<(String, u32)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let mode = path.metadata().unwrap().permissions().mode() & 0o777;
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            found.extend(tree(&path).into_iter().map(|(inner, mode)| (format!("{name}/{inner}"), mode)));
        }
        found.push((name, mode));
    }
    found.sort();
    found
}

#[test]
fn files_for_tor() {
    let (mut wallet, mut cosigner) = (Machine::software("wallet"), Machine::software("cosigner"));
    wallet.introduce(&mut cosigner);
    // Entered by key alone, and expired.
    let (bare, past) = (Machine::software("bare"), Machine::software("past"));
    let mut store = wallet.store();
    let bare = Peer { onion_address: None, client_auth: None, token: None, ..Peer::from_card(&bare.card) };
    store.add_peer(&bare, "test").unwrap();
    store.add_peer(&Peer { expires: None, ..Peer::from_card(&past.card) }, "test").unwrap();
    store.set_expiry(&past.card.identifier, Some(now() + 1)).unwrap();
    drop(store);
    let dir = wallet.dir.path().join("tor");
    std::fs::create_dir(&dir).unwrap();
    let (service, auth) = (dir.join("service"), dir.join("auth"));
    let home = wallet.dir.path().to_str().unwrap().to_owned();
    let pin = pin_file(&wallet);
    let store = wallet.configure(&pin);
    let mut seen = String::new();
    let mut asked = |arguments: &[&str]| {
        let output = run(&[&["--store", text(&store)], arguments].concat(), b"");
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(&home, "[DIR]");
        seen.push_str(&format!(
            "$ claviger {}\n[stdout]\n{}[stderr]\n{}[exit {}]\n\n",
            arguments.join(" ").replace(&home, "[DIR]"),
            said(&output.stdout),
            said(&output.stderr),
            output.status.code().unwrap()
        ));
        output.status.code()
    };
    assert_eq!(asked(&["onion", "service", text(&service)]), Some(3));
    assert!(!service.exists());
    wallet
        .configure(&format!("{pin}\n[transport.tor]\nservice = \"torrc\"\nlisten = \"unix:/run/claviger/onion.sock\""));
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert_eq!(asked(&["onion", "service", text(&service)]), Some(0));
    let name = |name: &str| (name.to_owned(), if name == "authorized_clients" { 0o700 } else { 0o600 });
    let files =
        ["authorized_clients", "authorized_clients/cosigner.auth", "authorized_clients/wallet.auth", "hostname"];
    let keys = ["hs_ed25519_public_key", "hs_ed25519_secret_key"];
    assert_eq!(tree(&service), files.iter().chain(&keys).map(|file| name(file)).collect::<Vec<_>>());
    assert_eq!(service.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    // Who is a peer no more is let in no more.
    wallet.store().remove_peer(&cosigner.card.identifier).unwrap();
    assert_eq!(asked(&["onion", "service", text(&service), "--json"]), Some(0));
    assert!(!service.join("authorized_clients/cosigner.auth").exists());
    // Another machine's.
    let before = std::fs::read(service.join("hostname")).unwrap();
    std::fs::write(service.join("hostname"), format!("{}\n", cosigner.card.onion_address)).unwrap();
    assert_eq!(asked(&["onion", "service", text(&service)]), Some(1));
    std::fs::write(service.join("hostname"), before).unwrap();
    assert_eq!(asked(&["onion", "service", text(&service), "--former"]), Some(6));
    assert_eq!(asked(&["onion", "client-auth", text(&auth)]), Some(0));
    assert_eq!(tree(&auth), [name("past.auth_private")]);
    assert_eq!(asked(&["onion", "client-auth", "/nonexistent/below"]), Some(1));
    assert_eq!(asked(&["onion"]), Some(2));
    snapshot("onion", &seen);
}
