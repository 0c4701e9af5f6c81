//! The command line of `plan` and `add`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use claviger::identity::{Identifier, Role};

use super::{Import, parsed};

#[derive(Subcommand)]
pub(crate) enum Plan {
    /// Plan a ceremony: who takes part, who may connect to whom, what is demanded
    #[command(subcommand)]
    Plan(PlanFile),
    /// Record members that join later: a plan that only gains members and edges, and their cards
    #[command(after_help = "\
Examples:
  claviger-ceremony add cosigner-4.card --plan vault-plan.toml
  claviger-ceremony add cosigner-4.card --plan vault-plan.toml \\
      --fingerprint 'tumble ocean …'

Run it on every machine that is there already, and `init --plan` with the new plan on the one that joins. A plan that takes away or \
changes anything is refused here: record it with `claviger-ceremony plan record`. The cards are recorded as `import` does.")]
    Add(Add),
}

#[derive(Subcommand)]
pub(crate) enum PlanFile {
    /// Write a plan to begin with, with every key and what it means
    #[command(after_help = "\
Examples:
  claviger-ceremony plan new                         plan.toml, for two machines
  claviger-ceremony plan new --example vault vault.toml
  claviger-ceremony plan new -

A file that holds anything else is not overwritten without --force.")]
    New(New),
    /// Check a plan: what is wrong with it, or what it says, and the words that everybody compares
    #[command(after_help = "\
Examples:
  claviger-ceremony plan check vault-plan.toml
  claviger-ceremony plan check vault-plan.toml --json | jq -r .fingerprint.words

Comments, order and grouping of the file do not count: two files with the same words say the same. Needs no store and no token.")]
    Check {
        /// The plan; - is stdin
        file: PathBuf,
    },
    /// Print the runbook: a page for each role, one for who leads, one for the witnesses
    #[command(after_help = "\
Examples:
  claviger-ceremony plan print vault-plan.toml | lpr
  claviger-ceremony plan print vault-plan.toml --format markdown --out runbook.md
  claviger-ceremony plan print vault-plan.toml --out pages
  claviger-ceremony plan print vault-plan.toml --member manager-1

Text is 78 columns wide, at most 60 lines a page, with form feeds between pages. With --out and a directory that is there, every page is a file.")]
    Print(Print),
    /// Record a plan in this machine's store, or another in its place, after comparing its words
    #[command(after_help = "\
Examples:
  claviger-ceremony plan record vault-plan.toml
  claviger-ceremony plan record smaller.toml --fingerprint 'tumble ocean …'

What differs from the recorded plan is shown first, and what this machine loses by it. No plan is recorded, not even one that only takes \
members or edges away, unless its words are typed, or given with --fingerprint. `init --plan` records a plan, too.")]
    Record(Record),
    /// Show the recorded plan, and how far the ceremony is: whose card is here, who proved, whether the phrase is confirmed
    #[command(after_help = "\
Examples:
  claviger-ceremony plan show
  claviger-ceremony plan show --json | jq -r '.members[] | select(.card == null).identifier'
  claviger-ceremony plan show --toml > plan.toml")]
    Show {
        /// Write the plan itself, in its canonical text
        #[arg(long)]
        toml: bool,
    },
}

/// Plans to begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Example {
    /// Two machines, one of which connects to the other
    Pair,
    /// 3 stakeholders, 2 managers, 3 co-signing servers, 3 watchtowers, 1 coordinator
    Vault,
}

#[derive(Args)]
pub(crate) struct New {
    /// Where to; - is stdout
    #[arg(default_value = "plan.toml")]
    pub(crate) file: PathBuf,
    /// Which plan
    #[arg(long, value_enum, default_value = "pair")]
    pub(crate) example: Example,
    /// Overwrite a file that holds something else
    #[arg(long)]
    pub(crate) force: bool,
}

/// Forms of the runbook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Text,
    Markdown,
}

#[derive(Args)]
pub(crate) struct Print {
    /// The plan; - is stdin
    pub(crate) file: PathBuf,
    /// The form
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: Format,
    /// Only the page of this role
    #[arg(long, value_parser = parsed::<Role>, conflicts_with = "member")]
    pub(crate) role: Option<Role>,
    /// Only this member's page, with its name in every command
    #[arg(long, value_name = "NAME", value_parser = parsed::<Identifier>)]
    pub(crate) member: Option<Identifier>,
    /// A file for all pages, or a directory that is there for a file each; without it, stdout
    #[arg(long, value_name = "FILE|DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Overwrite files that hold something else
    #[arg(long, requires = "out")]
    pub(crate) force: bool,
}

#[derive(Args)]
pub(crate) struct Record {
    /// The plan; - is stdin
    pub(crate) file: PathBuf,
    /// The plan's fingerprint, as the others have it: all its words or all its digits
    #[arg(long, value_name = "WORDS|HEX")]
    pub(crate) fingerprint: Option<String>,
}

#[derive(Args)]
pub(crate) struct Add {
    #[command(flatten)]
    pub(crate) import: Import,
    /// The plan with the new members; - is not taken here
    #[arg(long, value_name = "FILE")]
    pub(crate) plan: PathBuf,
    /// The plan's fingerprint, as the others have it: all its words or all its digits
    #[arg(long, value_name = "WORDS|HEX")]
    pub(crate) plan_fingerprint: Option<String>,
}
