//! A succession is written around the change that it tells of.

use std::path::{Path, PathBuf};

use claviger::ceremony::succession::Succession;
use claviger::error::{Error, Result};
use claviger::identity::Fingerprint;
use claviger::program::Terminal;
use serde::Serialize;

use crate::cli::Output;
use crate::files::{Delivered, deliver};

/// What was written, for `--json`.
#[derive(Serialize)]
pub(super) struct Written {
    /// `None` when it went to stdout alone.
    #[serde(flatten)]
    files: Option<Delivered>,
    #[serde(skip)]
    to_stdout: bool,
}

impl Written {
    /// Whether stdout was used, where no result may follow.
    pub(super) fn to_stdout(&self) -> bool {
        self.to_stdout
    }

    /// For a sentence: `Wrote a.succession`.
    pub(super) fn told(&self) -> Option<String> {
        self.files.as_ref().and_then(Delivered::told)
    }

    pub(super) fn text(&self) -> String {
        self.files.as_ref().map(Delivered::text).unwrap_or_default()
    }
}

/// Writes the files, changes the store, and shows what was wanted on stdout. Files come first, because nobody could follow a machine whose succession could not be written, and
/// are taken away again when the change fails; stdout comes last, because what was shown can not be taken back.
pub(super) fn around(
    succession: &Succession,
    output: &Output,
    terminal: &Terminal,
    change: impl FnOnce() -> Result<()>,
) -> Result<Written> {
    let name = &succession.card.identifier;
    let text = succession.to_text();
    let title = format!("Next card of {name}: {}", succession.card.fingerprint().words());
    let is_stdout = |path: &PathBuf| path == Path::new("-");
    let elsewhere = output.qr || output.png.is_some() || output.svg.is_some();
    let file = output.file.clone().or_else(|| (!elsewhere).then(|| PathBuf::from(format!("{name}.succession"))));
    let split = |path: &Option<PathBuf>, stdout: bool| path.clone().filter(|path| is_stdout(path) == stdout);
    let part = |stdout: bool| Output {
        file: split(&file, stdout),
        qr: output.qr && stdout,
        png: split(&output.png, stdout),
        svg: split(&output.svg, stdout),
        force: output.force,
    };
    let named = |part: &Output| part.qr || [&part.file, &part.png, &part.svg].into_iter().any(Option::is_some);
    let (files, shown) = (part(false), part(true));
    let new: Vec<&PathBuf> =
        [&files.file, &files.png, &files.svg].into_iter().flatten().filter(|path| !path.exists()).collect();
    let unused = || PathBuf::from("-");
    let written = if named(&files) { Some(deliver(&text, &title, unused, &files, terminal)?) } else { None };
    change().inspect_err(|_| {
        for path in new {
            // Best effort: the error that is reported is the store's.
            let _ = std::fs::remove_file(path);
        }
    })?;
    let to_stdout = named(&shown);
    if to_stdout {
        deliver(&text, &title, unused, &shown, terminal).map_err(|error| {
            let what = format!("{error} The change that the succession tells of was made.");
            Error::new(error.kind(), what, "Write it again with `claviger-ceremony rotate --again FILE`.")
        })?;
    }
    Ok(Written { files: written, to_stdout })
}

/// What the people at the other machines are to hear.
pub(super) fn carry(written: &Written, members: &[String], words: &Fingerprint, terminal: &Terminal) {
    if let Some(told) = written.told() {
        terminal.note(&format!("{told}."));
    }
    if !members.is_empty() {
        terminal.note(&format!(
            "Carry it to {}; there, `claviger-ceremony import FILE`, comparing these words:\n  {}",
            super::losses::names(members),
            words.words()
        ));
    }
}
