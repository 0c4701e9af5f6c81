//! `challenge`, `prove`, `verify-proof`: that a token in the room holds the key on a card.

mod challenge;
mod prove;
mod verify;

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use claviger::ceremony::document::Document;
use claviger::ceremony::log::is_proven;
use claviger::error::{Error, ErrorKind, Result};
use claviger::identity::{Fingerprint, Identifier, KeyPlace, StaticPublic};
use claviger::program::Terminal;
use claviger::store::{Peer, Store};

use crate::cli::{Cli, Output, Proof};
use crate::files::{check_file, failed, read_documents};

pub(super) fn run(cli: &Cli, command: &Proof, terminal: &Terminal) -> Result<()> {
    match command {
        Proof::Challenge(challenge) => challenge::challenge(cli, challenge, terminal),
        Proof::Prove(prove) => prove::prove(cli, prove, terminal),
        Proof::VerifyProof(verify) => verify::verify(cli, verify, terminal),
    }
}

/// The peers' keys by which no proof was verified here, ordered.
pub(super) fn lacking(store: &Store) -> Result<Vec<(Identifier, KeyPlace)>> {
    let log = store.log()?;
    let peers = store.peers()?;
    let lacking = peers.iter().flat_map(|peer| {
        let unproven = keys(peer).filter(|(_, key)| !is_proven(&log, &peer.identifier, &Fingerprint::of_key(key)));
        unproven.map(|(place, _)| (peer.identifier.clone(), place))
    });
    Ok(lacking.collect())
}

fn keys(peer: &Peer) -> impl Iterator<Item = (KeyPlace, &StaticPublic)> {
    let backup = peer.backup.iter().map(|backup| (KeyPlace::Backup, &backup.static_public));
    std::iter::once((KeyPlace::Primary, &peer.static_public)).chain(backup)
}

/// Seconds since 1970 by this machine's clock; one before 1970 is 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Reads files that hold documents of one kind only; each document counts once. `take` tells the kind.
fn read<T: PartialEq>(files: &[PathBuf], wanted: &str, take: fn(&Document) -> Option<T>) -> Result<Vec<T>> {
    let mut all = Vec::new();
    for (from, document) in read_documents(files)? {
        let Some(taken) = take(&document) else {
            let hint = match &document {
                Document::Card(_) | Document::Succession(_) => "Record it with `claviger-ceremony import`.",
                Document::Challenge(_) => "Answer it with `claviger-ceremony prove`.",
                Document::Proof(_) => "Verify it with `claviger-ceremony verify-proof`.",
            };
            let what = document.what();
            let article = if what.starts_with('i') { "an" } else { "a" };
            let why = format!("{from} is refused. It holds {article} {what}, and here only a {wanted} is read.");
            return Err(Error::new(ErrorKind::ProofInvalid, why, hint));
        };
        if !all.contains(&taken) {
            all.push(taken);
        }
    }
    Ok(all)
}

/// Looks at every file that will be written, before anything is changed. A file that `replaceable` knows is overwritten as by `--force`.
fn places(
    output: Output,
    default: PathBuf,
    content: &str,
    replaceable: fn(&[Document], &Identifier) -> bool,
    own: &Identifier,
) -> Result<Output> {
    let elsewhere = output.qr || output.png.is_some() || output.svg.is_some();
    let mut output = output;
    output.file = output.file.or_else(|| (!elsewhere).then_some(default));
    for path in [&output.file, &output.png, &output.svg].into_iter().flatten().filter(|path| *path != Path::new("-")) {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let is_dir = std::fs::metadata(parent).map_err(|error| failed(path, "write", error))?.is_dir();
        if !is_dir {
            return Err(failed(path, "write", std::io::ErrorKind::NotADirectory.into()));
        }
    }
    let file = output.file.clone().filter(|path| path != Path::new("-"));
    if let Some(file) = file {
        let there = read_documents(std::slice::from_ref(&file)).unwrap_or_default();
        let there: Vec<Document> = there.into_iter().map(|(_, document)| document).collect();
        output.force |= !there.is_empty() && replaceable(&there, own);
        check_file(&file, content.as_bytes(), output.force)?;
    }
    Ok(output)
}
