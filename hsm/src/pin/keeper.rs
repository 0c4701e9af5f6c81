//! One token's PIN between its uses: kept as long as the policy says, and never sent again once it was refused.

use std::path::{Path, PathBuf};

use super::{KeepPin, PinRequest, Tries};
use crate::error::{Error, ErrorKind, Result};
use crate::operation::Operation;
use crate::secret::Pin;

/// The PIN of one open token.
pub(crate) struct Keeper {
    policy: KeepPin,
    /// The locator's `pin-source`.
    source: Option<PathBuf>,
    kept: Option<Pin>,
    /// No try was left, or the last one, and nobody agreed to spend it.
    barred: bool,
    /// The last one that the token refused.
    refused: Option<Pin>,
    /// The token refused the PIN that was sent last.
    wrong: bool,
    /// The tries that were left when a PIN was sent whose answer did not come; it is the kept one.
    unanswered: Option<Tries>,
}

impl Keeper {
    pub(crate) fn new(policy: KeepPin, source: Option<&Path>) -> Self {
        Self {
            policy,
            source: source.map(Path::to_owned),
            kept: None,
            barred: false,
            refused: None,
            wrong: false,
            unanswered: None,
        }
    }

    /// How long the PIN is kept.
    #[allow(dead_code)] // Used by backends that a build may leave out.
    pub(crate) fn policy(&self) -> KeepPin {
        self.policy
    }

    /// Whether the PIN is in memory, and may be sent.
    pub(crate) fn is_held(&self) -> bool {
        self.kept.is_some() && !self.barred
    }

    /// Whether [`unlock`](Self::unlock) would ask nobody, as far as is known without reading the locator's file.
    pub(crate) fn asks_nobody(&self) -> bool {
        self.is_held() || (self.source.is_some() && !self.barred && !self.wrong)
    }

    /// Finds the PIN and has `send` send it, once. `request` says what is known of the tries left; nothing is sent when there is none, or one
    /// that nobody agrees to spend. `send` answers `WrongPin` when the token refuses it: it is then remembered as refused; and `PinRequired` when it
    /// cannot be this token's PIN: it is then forgotten. Any other failure says nothing about the PIN, which is kept for the next call if the policy
    /// keeps it at all; but not if a try is gone by then, which the PIN may have cost before the token was lost.
    pub(crate) fn unlock(
        &mut self,
        request: PinRequest<'_>,
        operation: &mut Operation<'_>,
        send: impl FnOnce(&Pin) -> Result<()>,
    ) -> Result<()> {
        self.unlock_for(request, operation, |pin, _| send(pin))
    }

    /// The same, where sending the PIN and the operation that needs it are one step: `send` sees the operation's stages and its deadline, which
    /// asking has moved.
    pub(crate) fn unlock_for(
        &mut self,
        request: PinRequest<'_>,
        operation: &mut Operation<'_>,
        send: impl FnOnce(&Pin, &mut Operation<'_>) -> Result<()>,
    ) -> Result<()> {
        let what = request.what;
        let source = self.source.clone();
        let request = request.with_source(source.as_deref());
        match request.tries_left {
            Tries::None => {
                // Whoever unlocks it sets a new one.
                (self.kept, self.barred) = (None, true);
                return Err(locked(what));
            }
            Tries::Last => self.barred = !operation.ask(|pins| pins.confirm_last_try(&request)),
            _ => self.barred = false,
        }
        if self.barred {
            return Err(last(what));
        }
        let unanswered = self.unanswered.take();
        let pin = match self.kept.take() {
            Some(_) if unanswered.is_some_and(|then| request.tries_left.fewer_than(then)) => {
                return Err(Error::new(
                    ErrorKind::WrongPin,
                    format!(
                        "{what} was lost while it had the PIN, and a try is gone ({}); it was not sent again.",
                        request.tries_left
                    ),
                    "Make sure of the PIN, and give it anew.",
                ));
            }
            Some(pin) => pin,
            None => self.find(&request, operation)?,
        };
        if operation.was_refused(&pin) || self.refused.as_ref().is_some_and(|refused| refused.is(&pin)) {
            return Err(Error::new(
                ErrorKind::WrongPin,
                format!("{what} refused this PIN before; it was not sent again ({}).", request.tries_left),
                "Give another PIN: a credential or file is read again at the next try. If this one has become right meanwhile, restart what uses the token.",
            ));
        }
        match send(&pin, operation) {
            Ok(()) => (self.refused, self.wrong) = (operation.remember(None), false),
            Err(error) if error.kind() == ErrorKind::WrongPin => {
                self.wrong = true;
                self.refused = operation.remember(Some(pin));
                return Err(error);
            }
            Err(error) if error.kind() == ErrorKind::PinRequired => return Err(error),
            Err(error) => {
                use ErrorKind::{Busy, Device, ServiceAbsent, TokenAbsent};
                let lost = matches!(error.kind(), TokenAbsent | ServiceAbsent | Busy | Device);
                let counted = matches!(request.tries_left, Tries::Left(_) | Tries::Last);
                self.unanswered = (lost && counted).then_some(request.tries_left);
                self.keep(pin);
                return Err(error);
            }
        }
        self.keep(pin);
        Ok(())
    }

    fn keep(&mut self, pin: Pin) {
        self.kept = (self.policy == KeepPin::Once).then_some(pin);
    }

    /// In this order: a credential, the locator's file, somebody.
    fn find(&self, request: &PinRequest<'_>, operation: &mut Operation<'_>) -> Result<Pin> {
        if let Some(pin) = operation.ask(|pins| pins.credential(request))? {
            return Ok(pin);
        }
        match request.source {
            Some(path) => Pin::from_file(path),
            None => operation.ask(|pins| pins.pin(request)),
        }
    }
}

/// No try is left.
pub(crate) fn locked(what: &str) -> Error {
    Error::new(
        ErrorKind::PinLocked,
        format!("{what} has locked its PIN; no try is left."),
        "Unlock it with its SO PIN, admin PIN or PUK and its maker's tool.",
    )
}

/// Right before a PIN is sent: whether that may still be done, if `told` was what people were told of when they gave it. Answering takes time, and
/// other programs may use up tries meanwhile.
///
/// # Errors
/// `PinLocked`, `PinLast`.
#[allow(dead_code)] // Used by backends that a build may leave out.
pub(crate) fn still(what: &str, told: Tries, now: Tries) -> Result<()> {
    match now {
        Tries::None => Err(locked(what)),
        Tries::Last if told != Tries::Last => Err(last(what)),
        _ => Ok(()),
    }
}

/// One try is left, and nobody said that it may be spent.
pub(crate) fn last(what: &str) -> Error {
    Error::new(
        ErrorKind::PinLast,
        format!("{what} has ONE try left before it locks; nothing was sent."),
        "Make sure of the PIN, then run the command where it can ask you, and agree to spend the last try.",
    )
}

#[cfg(test)]
mod tests {
    use super::super::{PinEntry, Purpose};
    use super::*;
    use std::time::Duration;

    /// Gives these, last first.
    struct Given(Vec<&'static str>, bool);

    impl PinEntry for Given {
        fn pin(&mut self, _: &PinRequest<'_>) -> Result<Pin> {
            let pin = self.0.pop().ok_or_else(|| Error::pin_required("Nobody is here.", "Come back."))?;
            Pin::new(pin.into())
        }

        fn confirm_last_try(&mut self, _: &PinRequest<'_>) -> bool {
            self.1
        }
    }

    fn wrong() -> Error {
        Error::new(ErrorKind::WrongPin, "It refuses the PIN.", "Try another.")
    }

    /// What was sent, and the outcome, with `right` as the only right PIN.
    fn unlock(keeper: &mut Keeper, pins: &mut Given, tries: Tries, right: &str) -> (Vec<String>, Option<ErrorKind>) {
        let mut sent = Vec::new();
        let mut operation = Operation::within(Duration::from_secs(1), pins);
        let outcome = keeper.unlock(PinRequest::new("It", Purpose::UserPin, tries), &mut operation, |pin| {
            sent.push(pin.expose().to_owned());
            if pin.expose() == right { Ok(()) } else { Err(wrong()) }
        });
        (sent, outcome.err().map(|error| error.kind()))
    }

    #[test]
    fn a_right_pin_is_kept_as_the_policy_says() {
        for (policy, held) in [(KeepPin::Once, true), (KeepPin::Always, false), (KeepPin::Never, false)] {
            let mut keeper = Keeper::new(policy, None);
            let mut pins = Given(vec!["1", "1"], false);
            assert_eq!(unlock(&mut keeper, &mut pins, Tries::Left(3), "1"), (vec!["1".into()], None));
            assert_eq!(keeper.is_held(), held);
            unlock(&mut keeper, &mut pins, Tries::Left(3), "1");
            assert_eq!(pins.0.len(), usize::from(held));
        }
    }

    #[test]
    fn a_refused_pin_is_not_sent_again() {
        let mut keeper = Keeper::new(KeepPin::Once, None);
        let mut pins = Given(vec!["3", "2", "1", "1"], false);
        assert_eq!(unlock(&mut keeper, &mut pins, Tries::Left(3), "3"), (vec!["1".into()], Some(ErrorKind::WrongPin)));
        assert_eq!(unlock(&mut keeper, &mut pins, Tries::Left(2), "3"), (vec![], Some(ErrorKind::WrongPin)));
        assert_eq!(unlock(&mut keeper, &mut pins, Tries::Left(2), "3"), (vec!["2".into()], Some(ErrorKind::WrongPin)));
        assert_eq!(unlock(&mut keeper, &mut pins, Tries::Last, "3"), (vec![], Some(ErrorKind::PinLast)));
        assert_eq!(unlock(&mut keeper, &mut pins, Tries::None, "3"), (vec![], Some(ErrorKind::PinLocked)));
        pins.1 = true;
        assert_eq!(unlock(&mut keeper, &mut pins, Tries::Last, "3"), (vec!["3".into()], None));
    }

    #[test]
    fn a_refused_pin_is_remembered_across_openings() {
        let mut refused = crate::RefusedPin::default();
        let mut sent = Vec::new();
        for (given, right) in [("1", false), ("1", false), ("2", true), ("1", true)] {
            let mut pins = Given(vec![given], false);
            let mut operation = Operation::within(Duration::from_secs(1), &mut pins).remembering(&mut refused);
            let outcome = Keeper::new(KeepPin::Once, None).unlock(
                PinRequest::new("It", Purpose::UserPin, Tries::Left(3)),
                &mut operation,
                |pin| {
                    sent.push(pin.expose().to_owned());
                    if pin.expose() == "2" || sent.len() > 2 { Ok(()) } else { Err(wrong()) }
                },
            );
            assert_eq!(outcome.is_ok(), right);
        }
        // A right one in between ends what was remembered.
        assert_eq!(sent, ["1", "2", "1"]);
    }

    #[test]
    fn a_pin_that_can_not_be_sent_is_not_held() {
        let mut keeper = Keeper::new(KeepPin::Once, None);
        let mut pins = Given(vec!["2", "1"], false);
        unlock(&mut keeper, &mut pins, Tries::Left(3), "1");
        // Other programs used the tries up, and nobody agrees to spend the last.
        assert_eq!(unlock(&mut keeper, &mut pins, Tries::Last, "1"), (vec![], Some(ErrorKind::PinLast)));
        assert!(!keeper.is_held());
        // Somebody gave the tries back.
        assert_eq!(unlock(&mut keeper, &mut pins, Tries::Left(3), "1"), (vec!["1".into()], None));
        assert!(keeper.is_held());
        assert_eq!(unlock(&mut keeper, &mut pins, Tries::None, "1"), (vec![], Some(ErrorKind::PinLocked)));
        assert!(!keeper.is_held());
        // Unlocked, with a new PIN: the old one costs no try.
        assert_eq!(unlock(&mut keeper, &mut pins, Tries::Left(3), "2"), (vec!["2".into()], None));
    }

    #[test]
    fn a_file_asks_nobody_until_it_was_wrong() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut keeper = Keeper::new(KeepPin::Never, Some(file.path()));
        assert!(keeper.asks_nobody());
        std::fs::write(file.path(), "1").unwrap();
        let mut nobody = Given(vec![], false);
        assert_eq!(
            unlock(&mut keeper, &mut nobody, Tries::Left(3), "2"),
            (vec!["1".into()], Some(ErrorKind::WrongPin))
        );
        assert!(!keeper.asks_nobody());
        std::fs::write(file.path(), "2").unwrap();
        assert_eq!(unlock(&mut keeper, &mut nobody, Tries::Left(2), "2"), (vec!["2".into()], None));
        assert!(keeper.asks_nobody());
    }

    #[test]
    fn another_failure_says_nothing_about_the_pin() {
        let mut keeper = Keeper::new(KeepPin::Once, None);
        let mut pins = Given(vec!["1"], false);
        let mut operation = Operation::within(Duration::from_secs(1), &mut pins);
        let request = PinRequest::new("It", Purpose::UserPin, Tries::Left(3));
        let absent = Error::new(ErrorKind::TokenAbsent, "It is gone.", "Plug it in.");
        assert!(keeper.unlock(request, &mut operation, |_| Err(absent)).is_err());
        assert!(keeper.is_held());
    }

    /// Loses the token while it has the PIN.
    fn lose(keeper: &mut Keeper, pins: &mut Given, tries: Tries, kind: ErrorKind) {
        let mut operation = Operation::within(Duration::from_secs(1), pins);
        let request = PinRequest::new("It", Purpose::UserPin, tries);
        let lost = keeper.unlock(request, &mut operation, |_| Err(Error::new(kind, "It is gone.", "Look for it.")));
        assert_eq!(lost.unwrap_err().kind(), kind);
    }

    #[test]
    fn a_pin_whose_answer_was_lost_with_a_try_is_not_sent_again() {
        let mut keeper = Keeper::new(KeepPin::Once, None);
        let mut pins = Given(vec!["3", "1"], false);
        lose(&mut keeper, &mut pins, Tries::Left(3), ErrorKind::TokenAbsent);
        assert_eq!(unlock(&mut keeper, &mut pins, Tries::Left(2), "3"), (vec![], Some(ErrorKind::WrongPin)));
        assert!(!keeper.is_held());
        assert_eq!(unlock(&mut keeper, &mut pins, Tries::Left(2), "3"), (vec!["3".into()], None));
        // No try is gone; or the token had answered.
        lose(&mut keeper, &mut pins, Tries::Left(3), ErrorKind::TokenAbsent);
        assert_eq!(unlock(&mut keeper, &mut pins, Tries::Left(3), "3"), (vec!["3".into()], None));
        lose(&mut keeper, &mut pins, Tries::Left(3), ErrorKind::NotTouched);
        assert_eq!(unlock(&mut keeper, &mut pins, Tries::Left(2), "3"), (vec!["3".into()], None));
        lose(&mut keeper, &mut pins, Tries::Unknown, ErrorKind::TokenAbsent);
        assert_eq!(unlock(&mut keeper, &mut pins, Tries::Left(3), "3"), (vec!["3".into()], None));
    }

    #[test]
    fn tries_that_others_used_up_stop_a_pin() {
        let stopped = |told, now| still("It", told, now).err().map(|error| error.kind());
        assert_eq!(stopped(Tries::Left(3), Tries::Left(2)), None);
        assert_eq!(stopped(Tries::Last, Tries::Last), None);
        assert_eq!(stopped(Tries::Unknown, Tries::Last), Some(ErrorKind::PinLast));
        assert_eq!(stopped(Tries::Left(3), Tries::Last), Some(ErrorKind::PinLast));
        assert_eq!(stopped(Tries::Last, Tries::None), Some(ErrorKind::PinLocked));
    }

    #[test]
    fn what_cannot_be_a_pin_is_not_kept() {
        let mut keeper = Keeper::new(KeepPin::Once, None);
        lose(&mut keeper, &mut Given(vec!["1"], false), Tries::Left(3), ErrorKind::PinRequired);
        assert!(!keeper.is_held());
    }
}
