//! The control connection that is there for dialling: it gives tor the client-authorization secrets.

use super::auth::{authenticate, sentence};
use super::control::Control;
use crate::config;
use crate::error::{Error, ErrorKind, Result};
use crate::identity::OnionAddress;
use crate::secret::{ClientAuthSecret, SecretString};
use data_encoding::BASE64;
use tokio::sync::Mutex;

/// The connection, made when it is needed, and again when tor was restarted.
pub(super) struct Line {
    config: config::Tor,
    /// Taken out while it is asked: a question whose asker has gone must not be answered to the next one.
    idle: Mutex<Option<Control>>,
}

impl Line {
    pub(super) fn new(config: config::Tor) -> Self {
        Self { config, idle: Mutex::default() }
    }

    /// Has tor use `secret` for the descriptor of `onion`. Before every dial: tor forgets it when it ends, and other programs of this machine may have given it
    /// theirs for the same address.
    ///
    /// # Errors
    /// `TransportUnavailable`, `ControlRefused`.
    pub(super) async fn authorize(&self, onion: &OnionAddress, secret: &ClientAuthSecret) -> Result<()> {
        let command = command(onion, secret);
        let mut idle = self.idle.lock().await;
        let asked = match idle.take() {
            Some(mut control) => control.ask(&command).await.ok().map(|reply| (control, reply)),
            None => None,
        };
        let (control, reply) = match asked {
            Some(asked) => asked,
            None => {
                let mut control = Control::connect(&self.config.control).await?;
                authenticate(&mut control, &self.config).await?;
                let reply = control.ask(&command).await?;
                (control, reply)
            }
        };
        *idle = Some(control);
        // control-spec, section 3.30: 251, it replaces what tor had for the address; 252, a descriptor that was there could be opened.
        if matches!(reply.status, 250..=252) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::ControlRefused,
            format!("tor did not take the client-authorization key: {}", sentence(reply.message())),
            "See tor's log with `journalctl -u tor@default`; a filter before the control port must let ONION_CLIENT_AUTH_ADD pass.",
        ))
    }
}

/// `ONION_CLIENT_AUTH_ADD` (control-spec, section 3.30), without the flag `Permanent`: nothing is written to tor's disk.
fn command(onion: &OnionAddress, secret: &ClientAuthSecret) -> SecretString {
    // Reserved whole: a buffer that grows would leave a copy of the secret behind.
    let mut command = SecretString::new(String::with_capacity(160));
    command.push_str("ONION_CLIENT_AUTH_ADD ");
    command.push_str(&onion.label());
    command.push_str(" x25519:");
    BASE64.encode_append(secret.expose(), &mut command);
    command.push_str("\r\n");
    command
}
