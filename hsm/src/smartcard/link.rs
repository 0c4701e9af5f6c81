//! A connection to a card.

use std::ffi::{CStr, CString};

use pcsc::{Context, Disposition, Protocol, Protocols, ShareMode};
use zeroize::Zeroizing;

use super::apdu::for_t0;
use super::{Exchange, Fault};

/// How often a transaction is begun anew when other programs reset the card.
const TRIES: usize = 3;

/// A shared connection to one card. The card is left as it is when this is dropped.
pub(crate) struct Link {
    /// `None` only while it is dropped.
    card: Option<pcsc::Card>,
    reader: CString,
    /// The card speaks T=0.
    t0: bool,
}

impl Drop for Link {
    fn drop(&mut self) {
        // pcsc's own drop resets the card. A disconnect that fails has no card behind it any more.
        if let Some(card) = self.card.take() {
            let _ = card.disconnect(Disposition::LeaveCard);
        }
    }
}

impl Link {
    pub(super) fn connect(context: &Context, reader: &CStr) -> std::result::Result<Self, Fault> {
        let card = context.connect(reader, ShareMode::Shared, Protocols::ANY)?;
        let t0 = speaks_t0(&card);
        Ok(Self { card: Some(card), reader: reader.to_owned(), t0 })
    }

    /// The reader's name, for people.
    pub(crate) fn reader(&self) -> String {
        self.reader.to_string_lossy().escape_debug().to_string()
    }

    /// Whether the card is still the one that was connected, without waiting for anybody. [`Fault::Reset`]: it is, and was reset.
    pub(crate) fn look(&self) -> std::result::Result<(), Fault> {
        let card = self.card.as_ref().ok_or(Fault::Removed)?;
        card.status2_owned().map(drop).map_err(Fault::from)
    }

    /// Runs `work` in a transaction: nobody else reaches the card meanwhile. Waits until other programs have ended theirs, however long that takes.
    ///
    /// When the card was reset by others, before or while `work` runs, it runs again, at most [`TRIES`] times in all; nothing is then selected or
    /// verified.
    pub(crate) fn transact<T>(
        &mut self,
        mut work: impl FnMut(&mut dyn Exchange) -> std::result::Result<T, Fault>,
    ) -> std::result::Result<T, Fault> {
        let card = self.card.as_mut().ok_or(Fault::Removed)?;
        for _ in 0..TRIES {
            let outcome = match card.transaction() {
                Ok(transaction) => {
                    let mut exchange = InTransaction { transaction: &transaction, t0: self.t0 };
                    work(&mut exchange)
                    // Dropped here: SCardEndTransaction with SCARD_LEAVE_CARD.
                }
                Err(error) => Err(error.into()),
            };
            match outcome {
                Err(Fault::Reset) => {
                    card.reconnect(ShareMode::Shared, Protocols::ANY, Disposition::LeaveCard)?;
                    self.t0 = speaks_t0(card);
                }
                outcome => return outcome,
            }
        }
        Err(Fault::Reset)
    }
}

/// Where it cannot be told, the first transaction fails, too.
fn speaks_t0(card: &pcsc::Card) -> bool {
    card.status2_owned().is_ok_and(|status| status.protocol2() == Some(Protocol::T0))
}

struct InTransaction<'a, 'card> {
    transaction: &'a pcsc::Transaction<'card>,
    t0: bool,
}

impl Exchange for InTransaction<'_, '_> {
    fn transmit(&mut self, command: &[u8]) -> std::result::Result<Zeroizing<Vec<u8>>, Fault> {
        let mut buffer = Zeroizing::new([0; pcsc::MAX_BUFFER_SIZE]);
        let adapted = self.t0.then(|| for_t0(command));
        let command = adapted.as_deref().map_or(command, Vec::as_slice);
        let answer = self.transaction.transmit(command, &mut *buffer)?;
        if answer.is_empty() {
            // A card that is pulled in the middle of a command gives this before PC/SC notices that it is gone.
            return Err(Fault::Removed);
        }
        Ok(Zeroizing::new(answer.to_vec()))
    }
}
