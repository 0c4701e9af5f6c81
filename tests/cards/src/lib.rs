//! What the virtual cards have in common: vpcd's wire, APDUs, a finger, and the control of a card over standard input.
//!
//! A card program is an [`Applet`] given to [`run`]. It connects to vpcd (the reader driver of Debian's `vsmartcard-vpcd`) on
//! loopback, prints `ready`, and then obeys one command a line, each answered by one line, `ok` or `error …`:
//!
//! | command | effect |
//! |---|---|
//! | `pull` | the card leaves the reader, at once, also in the middle of an operation; what a card holds in RAM is lost |
//! | `insert` | it is put back |
//! | `reset` | it loses what it holds in RAM, without the reader noticing |
//! | `touch now`, `touch after MS`, `touch never` | what the finger does from now on when the card asks for a touch, also if it is asking already |
//! | `garbage on`, `garbage off` | every APDU is answered with pseudo-random bytes, see [`garbage`] |
//! | `hang MS` | the next APDU takes that long |
//! | `pull-during` | the next APDU but SELECT is not answered: the card is pulled in the middle of it |
//! | `asking` | answers `ok true` while the card waits for a touch, else `ok false` |
//! | `operations` | answers `ok N`: the private-key operations that succeeded since the start |
//!
//! End of standard input ends the program.

pub mod apdu;
pub mod control;
pub mod garbage;
pub mod host;
pub mod options;
mod runner;
pub mod tlv;
mod wire;

pub use apdu::{Applet, Command, Status};
pub use control::Control;
pub use runner::run;
