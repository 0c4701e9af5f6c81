//! The command line of `export` and `import`, and of every command that gives a document away.

use std::path::{Path, PathBuf};

use clap::Args;

#[derive(Args)]
pub(crate) struct Export {
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Where a document goes: a file, unless only other places are named.
#[derive(Args, Clone)]
pub(crate) struct Output {
    /// The file to write [default: one named after this machine, unless --qr, --png or --svg is given]; - is stdout
    pub(crate) file: Option<PathBuf>,
    /// Show it as QR codes, one a screen
    #[arg(long)]
    pub(crate) qr: bool,
    /// Draw its QR codes there, all in one PNG; - is stdout
    #[arg(long, value_name = "FILE")]
    pub(crate) png: Option<PathBuf>,
    /// Draw its QR codes there, all in one SVG; - is stdout
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    /// Overwrite files that hold something else
    #[arg(long)]
    pub(crate) force: bool,
}

impl Output {
    /// What clap can not say: stdout holds one thing.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        let to_stdout = [&self.file, &self.png, &self.svg].into_iter().flatten().filter(|path| *path == Path::new("-"));
        if to_stdout.count() + usize::from(self.qr) > 1 {
            return Err("stdout holds one of the document, its QR codes, a PNG and an SVG: give `-` or --qr once");
        }
        Ok(())
    }
}

#[derive(Args)]
pub(crate) struct Import {
    /// Identity cards and successions, as text, or as PNG or JPEG pictures of their QR codes; - is stdin
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// The fingerprint that the other machine shows: all its words or all its digits; one for each card, in order, those of successions last
    #[arg(long, value_name = "WORDS|HEX")]
    pub(crate) fingerprint: Vec<String>,
    /// Record no card now that does not prove that its keys are in devices
    #[arg(long)]
    pub(crate) require_attestation: bool,
    /// A root certificate, PEM, to believe beside the makers', this time; may be repeated
    #[arg(long, value_name = "FILE")]
    pub(crate) attestation_root: Vec<PathBuf>,
}
