//! Where a document goes: a file, stdout, QR codes on the terminal, pictures of them.

use std::path::{Path, PathBuf};

use claviger::error::Result;
use serde::Serialize;

use super::{Written, check_file, write_file};
use crate::cli::Output;
use crate::qr;
use claviger::program::Terminal;

/// What [`deliver`] wrote, for `--json`: `{"file", "outcome", "png", "svg"}`. `outcome`, of the file, is `new` or `already-there`; what was not asked for is `null`,
/// or absent.
#[derive(Serialize, Default)]
pub(crate) struct Delivered {
    file: Option<String>,
    outcome: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    png: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    svg: Option<String>,
    /// Something went to stdout, where no result may follow.
    #[serde(skip)]
    to_stdout: bool,
}

impl Delivered {
    /// Whether the document, or a picture of it, went to stdout, where no result may follow.
    pub(crate) fn to_stdout(&self) -> bool {
        self.to_stdout
    }

    /// The files, a line each, for stdout.
    pub(crate) fn text(&self) -> String {
        [&self.file, &self.png, &self.svg].into_iter().flatten().fold(String::new(), |text, file| text + file + "\n")
    }

    /// For a sentence: `Wrote a.card and a.png`, `Unchanged: a.card`; `None` when nothing was written to a file.
    pub(crate) fn told(&self) -> Option<String> {
        let files: Vec<&str> = [&self.file, &self.png, &self.svg].into_iter().flatten().map(String::as_str).collect();
        let verb = if self.outcome == Some("already-there") && files.len() == 1 { "Unchanged:" } else { "Wrote" };
        match files.as_slice() {
            [] => None,
            [one] => Some(format!("{verb} {one}")),
            [all @ .., last] => Some(format!("{verb} {} and {last}", all.join(", "))),
        }
    }
}

/// Delivers a document's text as the command line says: to `default` when it names no other place. `title` is for people who find a picture. Every place
/// is looked at before the first is written.
pub(crate) fn deliver(
    text: &str,
    title: &str,
    default: impl FnOnce() -> PathBuf,
    output: &Output,
    terminal: &Terminal,
) -> Result<Delivered> {
    let elsewhere = output.qr || output.png.is_some() || output.svg.is_some();
    let file = output.file.clone().or_else(|| (!elsewhere).then(default));
    let mut places: Vec<(&Path, Vec<u8>)> = Vec::new();
    places.extend(file.as_deref().map(|path| (path, text.as_bytes().to_vec())));
    if let Some(path) = &output.png {
        places.push((path, qr::png(&[text])?));
    }
    if let Some(path) = &output.svg {
        places.push((path, qr::svg(&[text], title)?.into_bytes()));
    }
    let is_stdout = |path: &Path| path == Path::new("-");
    for (path, content) in places.iter().filter(|(path, _)| !is_stdout(path)) {
        check_file(path, content, output.force)?;
    }
    let (mut outcome, mut to_stdout) = (None, false);
    for (path, content) in &places {
        if is_stdout(path) {
            terminal.data(content)?;
            to_stdout = true;
        } else {
            let written = write_file(path, content, output.force)?;
            if file.as_deref() == Some(path) {
                outcome = Some(match written {
                    Written::New => "new",
                    Written::AlreadyThere => "already-there",
                });
            }
        }
    }
    if output.qr {
        qr::show(text, terminal)?;
        to_stdout = true;
    }
    let named = |path: &Path| (!is_stdout(path)).then(|| path.display().to_string());
    Ok(Delivered {
        file: file.as_deref().and_then(named),
        outcome,
        png: output.png.as_deref().and_then(named),
        svg: output.svg.as_deref().and_then(named),
        to_stdout,
    })
}
