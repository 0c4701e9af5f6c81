//! The command line of `transcript`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Subcommand)]
pub(crate) enum Transcript {
    /// Write down what was done on this machine, or compare what several tell
    #[command(
        args_conflicts_with_subcommands = true,
        subcommand_help_heading = "Commands",
        after_help = "\
Examples:
  claviger-ceremony transcript | lpr
  claviger-ceremony transcript wallet.transcript --json
  claviger-ceremony transcript wallet.transcript --json \\
      --sign 'piv:serial=12345678;slot=9c'

The text is for paper, with lines for witnesses. The JSON tells the same, and is what `transcript verify` reads. A transcript names machines, people and devices; it \
holds no secret.

--sign has a card's signing key sign it: slot 9c of a PIV card, or an OpenPGP card's signature key, on P-256 or Ed25519. It is another key than \
the one that this machine is known by. The signature is over the log as it is before; that it was made is the log's next entry."
    )]
    Transcript(Export),
}

impl Transcript {
    /// What clap can not say.
    pub(super) fn check(&self, json: bool) -> Result<(), &'static str> {
        let Self::Transcript(export) = self;
        if export.sign.is_some() && !json {
            return Err("--sign is for the JSON form, which `transcript verify` reads: give --json, too");
        }
        Ok(())
    }
}

#[derive(Args)]
pub(crate) struct Export {
    #[command(subcommand)]
    pub(crate) verb: Option<Verb>,
    /// Where to [default: -]; - is stdout
    pub(crate) file: Option<PathBuf>,
    /// The key that signs it: piv:…;slot=9c or openpgp:…; with --json
    #[arg(long, value_name = "LOCATOR")]
    pub(crate) sign: Option<String>,
    /// Overwrite a file that holds something else
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Check transcripts, and whether the machines held the same ceremony
    #[command(after_help = "\
Examples:
  claviger-ceremony transcript verify *.transcript
  claviger-ceremony transcript verify old.transcript new.transcript
  claviger-ceremony transcript verify wallet.transcript \\
      --head 'abandon ability able about above absent absorb abstract'

Needs no store and no token. Give the transcripts of all machines, as `transcript FILE --json` writes them: compared are the plan, the card of \
each member, the phrase, proofs, attestations, witnesses and releases. Of two transcripts of one machine the later one must go on where the \
earlier one ends: else an older store was restored.

--head is a log's head from paper. One of the logs must have passed it: a store that was restored, or a log that was written anew, has not. \
Ends with 4 when something differs.")]
    Verify(Verify),
}

#[derive(Args)]
pub(crate) struct Verify {
    /// Transcripts in JSON; - is stdin
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// A head on paper: all its words or all its digits; may be repeated
    #[arg(long, value_name = "WORDS|HEX")]
    pub(crate) head: Vec<String>,
}
