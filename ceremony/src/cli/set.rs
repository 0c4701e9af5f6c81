//! The command line of `phrase`, `confirm` and `witness`.

use clap::{Args, Subcommand};

/// Longest name of a person, in bytes.
const MAX_PERSON: usize = 64;

#[derive(Subcommand)]
pub(crate) enum Set {
    /// Show the phrase over the plan and all cards, to read aloud; every machine of the ceremony shows the same
    #[command(after_help = "\
Example:
  claviger-ceremony phrase

Needs every member's card. One key, role or address that differs on one machine gives that machine another phrase; the members' fingerprints, which are shown \
above it, then say whose card it is. The token is asked, so that what is read aloud is what the seal protects.")]
    Phrase,
    /// Record that this machine's phrase was read aloud and agreed
    #[command(after_help = "\
Examples:
  claviger-ceremony confirm --by 'Ada Lovelace' --witness 'Charles Babbage'
  claviger-ceremony confirm --by 'Ada Lovelace' \\
      --phrase 'tumble ocean …'

Checks first that all that the plan demands was done, and names what is missing. Then two words of the phrase, others on each machine, are left out; \
type them as somebody at another machine reads them aloud. --phrase gives it in full and asks nothing; a plan that demands spoken words forbids it.")]
    Confirm(Confirm),
    /// Record somebody who watched, after the phrase was confirmed
    #[command(after_help = "Example:\n  claviger-ceremony witness 'Grace Hopper'")]
    Witness {
        /// The name
        #[arg(value_parser = person)]
        name: String,
    },
}

#[derive(Args)]
pub(crate) struct Confirm {
    /// Who confirms
    #[arg(long, value_name = "NAME", value_parser = person)]
    pub(crate) by: String,
    /// Who watched; may be repeated
    #[arg(long, value_name = "NAME", value_parser = person)]
    pub(crate) witness: Vec<String>,
    /// The phrase as another machine shows it, all twelve words
    #[arg(long, value_name = "WORDS")]
    pub(crate) phrase: Option<String>,
}

/// A person's name: 1 to 64 bytes, nothing that a terminal would act on.
fn person(text: &str) -> Result<String, String> {
    let name = text.trim();
    let hidden = |c: char| {
        // Marks that reorder or hide what stands beside them (Unicode, UAX 9 and category Cf).
        c.is_control()
            || matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    if (1..=MAX_PERSON).contains(&name.len()) && !name.contains(hidden) {
        Ok(name.to_owned())
    } else {
        Err(format!("a name has 1 to {MAX_PERSON} bytes and no control characters"))
    }
}

#[cfg(test)]
mod tests {
    use super::person;

    #[test]
    fn names_of_people() {
        assert_eq!(person(" Ada Lovelace ").as_deref(), Ok("Ada Lovelace"));
        assert_eq!(person("Müller-Lüdenscheidt; 石川").as_deref(), Ok("Müller-Lüdenscheidt; 石川"));
        assert!(person(&"a".repeat(64)).is_ok());
        for bad in ["", " ", &"a".repeat(65), &"ä".repeat(33), "a\nb", "a\u{1b}[2J", "a\u{202e}b", "a\u{200b}b"] {
            assert!(person(bad).is_err(), "{bad:?}");
        }
    }
}
