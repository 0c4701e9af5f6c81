//! Who this machine is: its present identity, and the former one while a rotation's overlap lasts.

use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::identity::{Fingerprint, IdentityCard, KeyPlace, StaticPublic};
use crate::secret::ClientAuthSecret;
use crate::store::{FormerIdentity, SealKey, SealState, Store, seal_point};
use crate::token::{Reason, TokenHandle};
use std::sync::Arc;

/// An identity, and the token that holds the key in use.
pub(super) struct Own {
    pub(super) card: IdentityCard,
    /// The key in use.
    pub(super) key: StaticPublic,
    pub(super) place: KeyPlace,
    pub(super) token: TokenHandle,
    /// Opens the descriptors of the services whose machines have recorded the card.
    pub(super) client_auth: Arc<ClientAuthSecret>,
    /// Until when it holds, seconds since 1970; `None`: the present one.
    until: Option<u64>,
}

impl Own {
    pub(super) fn present(store: &Store, token: TokenHandle) -> Result<Self> {
        let machine = store.machine()?;
        let client_auth = Arc::new(store.client_auth_secret()?);
        let key = machine.key().clone();
        Self { card: machine.card, key, place: machine.active, token, client_auth, until: None }.checked()
    }

    pub(super) fn former(former: FormerIdentity, client_auth: ClientAuthSecret, token: TokenHandle) -> Result<Self> {
        let FormerIdentity { card, active, until, .. } = former;
        let key = card.key(active).unwrap_or(&card.static_public).clone();
        let client_auth = Arc::new(client_auth);
        Self { card, key, place: active, token, client_auth, until: Some(until) }.checked()
    }

    pub(super) fn is_former(&self) -> bool {
        self.until.is_some()
    }

    fn checked(self) -> Result<Self> {
        if *self.token.public() == self.key {
            return Ok(self);
        }
        let (former, mend) = match self.until {
            None => ("", "Plug in this machine's token."),
            Some(_) => (" former", "Plug in the token that this machine had before its rotation."),
        };
        Err(Error::new(
            ErrorKind::KeyMismatch,
            format!("{} does not hold the{former} key of `{}`.", self.token.label(), self.card.identifier),
            mend,
        ))
    }
}

/// Opens a store's seal with one operation of the machine's token. Nothing is asked of the token for a store that is not sealed.
///
/// # Errors
/// [`ErrorKind::StoreTampered`] names what was changed outside the tool; the token's errors, and those of [`Store::unlock`].
pub async fn unlock(store: &mut Store, token: &TokenHandle) -> Result<()> {
    if store.seal_state()? == SealState::Unsealed {
        return Ok(());
    }
    let key = token.public().clone();
    let agreed = token.agree(&seal_point(&key), &Reason::UNLOCKING).await?;
    store.unlock(&SealKey { key, agreed })
}

/// Whether the store is sealed; asked before its token is, so that no PIN is given for a store of another machine.
///
/// # Errors
/// [`ErrorKind::KeyMismatch`] when the store's key is not among those of `config`; [`ErrorKind::StoreUnsealed`] when it is not sealed, and `config` does not
/// allow that; the store's errors.
pub fn is_sealed(store: &Store, config: &Config) -> Result<bool> {
    let key = store.machine()?.key().clone();
    if !config.store.allows(&key) {
        return Err(Error::new(
            ErrorKind::KeyMismatch,
            format!(
                "The store's key has the fingerprint {}, which is not among `keys` under [store].",
                Fingerprint::of_key(&key)
            ),
            "If this machine was rotated or goes on with its other token, add that fingerprint to the configuration; if not, somebody exchanged the store.",
        ));
    }
    match store.seal_state()? {
        SealState::Sealed(_) => Ok(true),
        SealState::Unsealed if config.store.allow_unsealed => Ok(false),
        SealState::Unsealed => Err(Error::new(
            ErrorKind::StoreUnsealed,
            "The store is not sealed: whoever can write to it could have changed it, or taken its seal off.",
            "Look at `claviger-ceremony peers` first; then seal it with `claviger-ceremony seal`, or set `allow-unsealed = true` under [store] in the configuration.",
        )),
    }
}

/// Whether an endpoint may be made of the store.
pub(super) fn check_seal(store: &Store, config: &Config) -> Result<()> {
    if !is_sealed(store, config)? {
        tracing::warn!(target: "claviger::store", reason = ErrorKind::StoreUnsealed.as_str(), "the store is not sealed: whoever can write to it can change it unseen");
    } else if !store.is_unlocked() {
        return Err(Error::new(
            ErrorKind::StoreLocked,
            "The store is sealed, and its token was not asked yet.",
            "Open its seal first: `endpoint::unlock`.",
        ));
    }
    Ok(())
}
