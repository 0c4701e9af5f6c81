//! Identifiers and roles: short names that are safe in files, logs, and on the wire.

use super::IdentityError;

/// Longest identifier or role, in bytes.
pub const MAX_NAME_LEN: usize = 63;

fn check(text: &str) -> Result<(), IdentityError> {
    let grammar = (1..=MAX_NAME_LEN).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && text.as_bytes()[0].is_ascii_lowercase()
        && !text.ends_with('-');
    if grammar { Ok(()) } else { Err(IdentityError::Name(text.chars().take(MAX_NAME_LEN + 1).collect())) }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Box<str>);

        impl $name {
            /// The name as text, ASCII.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = IdentityError;

            fn from_str(text: &str) -> Result<Self, IdentityError> {
                check(text)?;
                Ok(Self(text.into()))
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(&self.0)
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }
    };
}

name! {
    /// A machine's identifier: 1 to 63 of `a-z 0-9 -`, beginning with a letter, not ending with a hyphen. Unique in a store.
    Identifier
}

name! {
    /// What a machine is for: `wallet`, `cosigner`, `watchtower`, `coordinator`, or a word of your own. The grammar of [`Identifier`].
    Role
}

name! {
    /// What a machine serves to peers: `cosign`, `watch`, `ssh`. The grammar of [`Identifier`].
    ServiceName
}

impl From<&Identifier> for Role {
    /// The role that has the identifier's text.
    fn from(identifier: &Identifier) -> Self {
        Self(identifier.0.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grammar() {
        for good in ["a", "wallet-2", "cosigner", &"a".repeat(63)] {
            assert!(good.parse::<Identifier>().is_ok(), "{good}");
        }
        for bad in ["", "2wallet", "-a", "a-", "A", "a_b", "a b", "a\n", "ä", "a.b", "../a", &"a".repeat(64)] {
            assert!(bad.parse::<Identifier>().is_err(), "{bad:?}");
        }
    }
}
