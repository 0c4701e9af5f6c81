//! Smart cards over PC/SC: what the `openpgp` and `piv` backends share.
//!
//! The rules that keep other programs working beside us:
//!
//! - A card is never reset. `pcsc` resets on drop, so a [`Link`] always disconnects with `SCARD_LEAVE_CARD`.
//! - Everything happens inside a transaction; between transactions other programs have the card.
//! - An application is selected only when another one, or none, is: selecting clears PIN states on some cards.
//! - A connection is shared, and kept while the token is open: pcscd turns a card off when nobody is connected, and with it goes every PIN state.
//!
//! Another program's reset shows as [`Fault::Reset`] and is answered by reconnecting and running the transaction's work anew; a pulled card shows as
//! [`Fault::Removed`], also after it was put back, and is answered by looking for it again.

mod apdu;
mod fault;
mod link;
mod search;
mod tlv;

pub(crate) use apdu::{Command, Exchange, send};
pub(crate) use fault::{Fault, held};
#[allow(unused_imports)] // Used by backends that a build may leave out.
pub(crate) use link::Link;
#[allow(unused_imports)] // `Found` is named by one of two backends.
pub(crate) use search::{Found, Search, find};
#[allow(unused_imports)] // Used by backends that a build may leave out.
pub(crate) use tlv::{Tlv, put, tlv};
