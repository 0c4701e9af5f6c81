//! `token`: what it says of tokens that need no reader.

use crate::lab::{Lab, snapshot};

#[test]
fn a_key_is_tried() {
    let lab = Lab::new();
    let token = lab.token("cosigner");
    lab.ok(&["token", "generate", "--curve", "x25519", &token.uri_with_pin("noise")]);
    let key = token.uri_with_pin("noise");
    let shown = lab.transcript(&[&["token", "test", &key], &["token", "test", &key, "--json"]]);
    snapshot("token-test", &shown);
    let report = lab.json(&["token", "test", &key]);
    let times: Vec<f64> =
        report["operations_ms"].as_array().unwrap().iter().map(|time| time.as_f64().unwrap()).collect();
    let ordered = |a: &str, b: &str| report[a].as_f64().unwrap() <= report[b].as_f64().unwrap();
    assert!(times.len() == 10 && ordered("min_ms", "median_ms") && ordered("median_ms", "max_ms"), "{report}");
    assert_eq!(report["passed"], true);
}

#[test]
fn keys_are_explained() {
    let lab = Lab::new();
    let token = lab.machine("cosigner", "x25519", &[]);
    let text = lab.transcript(&[
        &["token", "explain", "file:key.pem"],
        &["token", "explain", &token.uri("noise"), "--store", "cosigner"],
    ]);
    snapshot("token-explain", &text);
    // Whatever is plugged in where this runs, every family is explained.
    let all = lab.json(&["token", "explain"]);
    let families = all["families"].as_array().unwrap().iter().map(|family| family["backend"].as_str().unwrap());
    assert_eq!(families.collect::<Vec<_>>(), ["openpgp", "piv", "pkcs11", "tpm", "software"]);
}

#[test]
fn what_can_not_be_done_is_refused() {
    let lab = Lab::new();
    let token = lab.token("cosigner");
    let key = token.uri_with_pin("noise");
    lab.ok(&["token", "generate", "--curve", "x25519", &key]);
    let generate = ["token", "generate", "--curve", "x25519"];
    let mut text = String::new();
    for (code, more) in [
        (2, &["--slot", "9c", "piv:serial=7"][..]),
        (2, &["--slot", "82", &key]),
        (2, &["piv:serial=7"]),
        (2, &["--pin-policy", "sometimes", "piv:serial=7;slot=9d"]),
        (6, &["--pin-policy", "once", &token.uri_with_pin("new")]),
        (6, &["--touch-policy", "always", "file:key.pem"]),
        (6, &["--replace", "0f1e2d3c4b5a69788796a5b4c3d2e1f0", &key]),
    ] {
        text += &lab.fails(code, &[&generate[..], more].concat());
    }
    text += &lab.fails(2, &["token", "list", "--backend", "file"]);
    text += &lab.fails(2, &["token", "test"]);
    text += &lab.fails(6, &["token", "test", &token.uri_with_pin("other")]);
    text += &lab.fails(7, &["token", "test", &token.uri("noise")]);
    text += &lab.fails(6, &["token", "explain", &token.uri("noise").replace("cosigner", "wallet")]);
    text += &lab.fails(2, &["token", "explain", "9d"]);
    snapshot("token-misused", &text);
}
