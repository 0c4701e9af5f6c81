//! The command line of `psk`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use claviger::identity::Identifier;

use super::parsed;

#[derive(Subcommand)]
pub(crate) enum Psk {
    /// Make a pre-shared key: 32 random bytes in a file for two machines
    #[command(after_help = "\
Examples:
  claviger-ceremony psk new /media/stick/pair.psk
  claviger-ceremony psk new - | age -p > pair.psk.age

A second lock beside the tokens. Handshakes of the two machines mix it in, so whoever breaks the curve, and ML-KEM with it, still needs it; and a pair \
of which a machine offers no ML-KEM is post-quantum by it.

The file is the secret: who reads it holds the second lock. Write it to a medium that goes from one machine to the other by hand, record it on both with \
`claviger-ceremony psk record`, and destroy the medium. One key is for one pair. The file is mode 0600.")]
    New(NewKey),
    /// Record a pre-shared key with a peer: every handshake with it then needs it
    #[command(after_help = "\
Examples:
  claviger-ceremony psk record cosigner /media/stick/pair.psk
  age -d pair.psk.age | claviger-ceremony psk record cosigner -

Both machines need the same key: while one alone has it, the two can not connect. Compare the check value that is printed; it is public. Then destroy the \
medium. In a sealed store the key is wrapped by the tokens. It stays when a machine is rotated, and goes when the peer is removed or revoked. Another key is \
recorded only when the present one was removed.")]
    Record(RecordKey),
    /// Forget the pre-shared key with a peer
    #[command(after_help = "\
Examples:
  claviger-ceremony psk remove cosigner
  claviger-ceremony psk remove cosigner --confirm cosigner

Until the peer forgets it, too, the two can not connect.")]
    Remove {
        /// The peer
        #[arg(value_parser = parsed::<Identifier>)]
        name: Identifier,
        /// Its name again: do not ask to type it
        #[arg(long, value_name = "NAME", value_parser = parsed::<Identifier>)]
        confirm: Option<Identifier>,
    },
    /// List the peers with which a pre-shared key is held, and the check values
    #[command(after_help = "\
Examples:
  claviger-ceremony psk list
  claviger-ceremony psk list --json | jq -r '.preshared_keys[].peer'

The other machine shows the same check value for this pair. No key is shown, ever.")]
    List,
}

#[derive(Args)]
pub(crate) struct NewKey {
    /// Where to; - is stdout
    pub(crate) file: PathBuf,
    /// Overwrite a file that holds something else
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Args)]
pub(crate) struct RecordKey {
    /// The peer
    #[arg(value_parser = parsed::<Identifier>)]
    pub(crate) name: Identifier,
    /// The key, as `psk new` wrote it; - is stdin
    pub(crate) file: PathBuf,
}
