//! Claviger: a small, known set of machines reach each other over Tor onion services, authenticated by keys that never leave a
//! hardware token.
//!
//! A machine's [`store`] holds its own identity and its peers, exchanged once, in person, in a ceremony (`claviger-ceremony`). An [`Endpoint`]
//! ties the store to a [`token`] and a [`transport`], and gives [`Session`]s, which carry streams and exist only between machines
//! that hold the tokens whose keys the other recorded.
//!
//! ```no_run
//! # async fn example(pins: impl claviger::token::PinPrompt + 'static) -> claviger::Result<()> {
//! use claviger::token::{Settings, TokenHandle};
//! use claviger::{Endpoint, config::Config, endpoint, store::Store, transport};
//!
//! let dir = std::path::Path::new("/var/lib/claviger");
//! let config = Config::default();
//! let mut store = Store::open(dir)?;
//! let machine = store.machine()?;
//! let name = machine.card.identifier.as_str();
//! let token = TokenHandle::open(machine.locator(), machine.key(), Settings::new(name, pins))?;
//! endpoint::unlock(&mut store, &token).await?;
//! let transport = transport::open(&config, dir).await?;
//! let port = config.transport.port;
//! let endpoint = Endpoint::new(store, token, transport, config)?;
//!
//! let mut listening = endpoint.listen(&machine.card.onion_address, port).await?;
//! while let Some(session) = listening.accept().await {
//!     println!("{} is here", session.peer().identifier);
//!     while let Ok(stream) = session.accept().await {
//!         println!("it asks for {}", stream.service());
//!     }
//! }
//! # Ok(()) }
//! ```
//!
//! # Features
//! - `net` (default): transports, sessions, endpoint. Without it this crate has no async runtime and no socket; that is what the
//!   ceremony is built on.
//! - `arti` (default): Tor in this process. Without it the Tor transport is a tor daemon's.
//! - `cli` (default): the `claviger` program. `program` is what the programs of this house share.

pub mod ceremony;
pub mod config;
#[cfg(feature = "net")]
pub mod daemon;
#[cfg(feature = "net")]
pub mod endpoint;
pub mod error;
pub mod identity;
pub mod noise;
pub mod policy;
#[cfg(feature = "program")]
#[doc(hidden)]
pub mod program;
pub mod secret;
#[cfg(feature = "net")]
pub mod session;
pub mod store;
pub mod token;
#[cfg(feature = "net")]
pub mod transport;
#[cfg(test)]
mod vectors;
pub mod wire;

#[cfg(feature = "net")]
pub use endpoint::Endpoint;
pub use error::{Error, ErrorKind, ExitCode, Result};
#[cfg(feature = "net")]
pub use session::Session;
