use super::super::notice::{Notice, Outcome, Phase, What};
use super::super::{Settings, TokenHandle, TokenStatus};
use super::*;
use crate::error::Error;
use crate::identity::{Curve, Identifier, StaticPublic};
use claviger_hsm::{ErrorKind as Failure, Hints, KeepPin, Locator, NewKey, PinState, PublicKey, Stage, Touch};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};

/// What the token below does.
#[derive(Default)]
struct Script {
    fails: Option<Failure>,
    /// How long another program holds it first.
    held: Duration,
    /// How long it computes, or waits for a finger.
    takes: Duration,
    panics: bool,
}

type Shared = Arc<Mutex<Script>>;

/// A software key that can be pulled, held and touched.
struct Puppet {
    inner: Box<dyn Token>,
    hints: Hints,
    script: Shared,
}

impl Puppet {
    fn failure(&self) -> claviger_hsm::Result<()> {
        match self.script.lock().unwrap().fails {
            Some(kind) => Err(claviger_hsm::Error::new(kind, "It fails.", "Mend it.")),
            None => Ok(()),
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "a token takes its time")]
fn take(time: Duration) {
    std::thread::sleep(time);
}

impl Token for Puppet {
    fn public_key(&self) -> &PublicKey {
        self.inner.public_key()
    }

    fn hints(&self) -> &Hints {
        &self.hints
    }

    fn agree(
        &mut self,
        peer: &PublicKey,
        operation: &mut Operation<'_>,
    ) -> claviger_hsm::Result<claviger_hsm::SharedSecret> {
        let (held, takes) = {
            let script = self.script.lock().unwrap();
            if script.panics {
                drop(script);
                panic!("on purpose");
            }
            (script.held, script.takes)
        };
        operation.enter(Stage::Access);
        take(held);
        operation.enter(if self.hints.touch == Touch::Never { Stage::Device } else { Stage::Touch });
        take(takes);
        self.failure()?;
        self.inner.agree(peer, operation)
    }

    fn look(&mut self) -> claviger_hsm::Result<Presence> {
        self.failure().map(|()| Presence::Ready)
    }

    fn pin_state(&mut self) -> claviger_hsm::Result<PinState> {
        self.inner.pin_state()
    }
}

struct Given;

impl PinEntry for Given {
    fn pin(&mut self, _: &PinRequest<'_>) -> claviger_hsm::Result<Pin> {
        Pin::new("passphrase".into())
    }
}

impl PinPrompt for Given {}

/// A puppet on its thread, and what it tells.
struct Play {
    token: TokenHandle,
    script: Shared,
    notices: Receiver<Notice>,
    _dir: tempfile::TempDir,
}

impl Play {
    fn new(touch: Touch) -> Self {
        Self::with(touch, |_| None, false).unwrap()
    }

    /// `before`: what opening fails with, by the number of the try.
    fn with(
        touch: Touch,
        mut before: impl FnMut(usize) -> Option<Failure> + Send + 'static,
        wait: bool,
    ) -> Result<Self> {
        let dir = tempfile::tempdir().unwrap();
        let locator = Locator::File(dir.path().join("key.pem").into());
        let mut given = Given;
        let mut operation = Operation::within(Duration::from_secs(60), &mut given);
        let (_, key) =
            claviger_hsm::generate(&locator, &NewKey::new(claviger_hsm::Curve::X25519), &mut operation).unwrap();
        let public = StaticPublic::new(Curve::X25519, key.as_bytes()).unwrap();
        let script = Shared::default();
        let (mut tries, puppets) = (0, Arc::clone(&script));
        let open: Open = Box::new(move |operation| {
            tries += 1;
            if let Some(kind) = before(tries) {
                return Err(claviger_hsm::Error::new(kind, "It fails.", "Mend it."));
            }
            let inner = claviger_hsm::open(&locator, None, KeepPin::Once, operation)?;
            let mut hints = inner.hints().clone();
            hints.kind = claviger_hsm::TokenKind::Piv;
            hints.touch = touch;
            hints.label = "Puppet 1".into();
            Ok(Box::new(Puppet { inner, hints, script: Arc::clone(&puppets) }) as Box<dyn Token>)
        });
        let (sender, notices) = channel();
        let sender = Mutex::new(sender);
        let mut settings = Settings::new("cosigner", Given);
        settings.notify = Some(Arc::new(move |notice: &Notice| {
            let _ = sender.lock().unwrap().send(notice.clone());
        }));
        let token = TokenHandle::start("file:key.pem".into(), &public, open, settings, wait)?;
        // Opening asks for the passphrase.
        while !wait && !matches!(notices.recv_timeout(LIMIT).unwrap().phase, Phase::Ended(_)) {}
        Ok(Self { token, script, notices, _dir: dir })
    }

    fn script(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.script.lock().unwrap());
    }

    async fn agree(&self, peer: &str) -> Result<SharedSecret> {
        self.token.agree(self.token.public(), &Reason::answering(&name(peer))).await
    }

    async fn until(&self, state: TokenState) -> TokenStatus {
        let mut watch = self.token.watch();
        let seen = tokio::time::timeout(LIMIT, watch.wait_for(|status| status.state == state)).await;
        seen.unwrap_or_else(|_| panic!("it never is {state}, but {:?}", self.token.state())).unwrap().clone()
    }

    fn notice(&self) -> Notice {
        self.notices.recv_timeout(LIMIT).unwrap()
    }
}

const LIMIT: Duration = Duration::from_secs(20);

fn name(name: &str) -> Identifier {
    name.parse().unwrap()
}

fn kind<T>(result: Result<T>) -> Option<ErrorKind> {
    result.err().map(|error: Error| error.kind())
}

#[tokio::test]
async fn a_pulled_token_is_absent_and_comes_back_by_itself() {
    let stage = Play::new(Touch::Never);
    assert_eq!(stage.token.state().state, TokenState::Ready);
    stage.script(|script| script.fails = Some(Failure::TokenAbsent));
    // The idle thread sees it, and nobody had to ask.
    let status = stage.until(TokenState::Absent).await;
    assert_eq!(status.trouble.unwrap().hint, "Mend it.");
    assert_eq!(stage.notice().to_string(), "cosigner: Puppet 1 can not be used: It fails.");
    assert_eq!(kind(stage.agree("wallet").await), Some(ErrorKind::TokenAbsent));
    stage.script(|script| script.fails = None);
    assert_eq!(stage.until(TokenState::Ready).await.trouble, None);
    assert_eq!(stage.notice().what, What::Back);
    assert_eq!(kind(stage.agree("wallet").await), None);
}

#[tokio::test]
async fn a_request_is_a_try_while_the_token_is_lost() {
    let stage = Play::new(Touch::Never);
    stage.script(|script| script.fails = Some(Failure::Busy));
    assert_eq!(kind(stage.agree("wallet").await), Some(ErrorKind::TokenBusy));
    assert_eq!(stage.token.state().state, TokenState::BusyElsewhere);
    stage.script(|script| script.fails = None);
    assert_eq!(kind(stage.agree("wallet").await), None);
    assert_eq!(stage.token.state().state, TokenState::Ready);
}

#[tokio::test]
async fn another_programs_transaction_shows_while_it_lasts() {
    let stage = Play::new(Touch::Never);
    stage.script(|script| script.held = HELD_LONG);
    let agreeing = stage.agree("wallet");
    tokio::pin!(agreeing);
    tokio::select! {
        _ = &mut agreeing => panic!("it does not wait"),
        status = stage.until(TokenState::BusyElsewhere) => assert_eq!(status.trouble, None),
    }
    assert_eq!(kind(agreeing.await), None);
    assert_eq!(stage.token.state().state, TokenState::Ready);
    assert!(stage.notices.try_recv().is_err(), "it is not lost");
}

const HELD_LONG: Duration = Duration::from_millis(900);

#[tokio::test]
async fn a_touch_is_asked_for_with_peer_and_time() {
    let stage = Play::new(Touch::Always);
    stage.script(|script| script.takes = Duration::from_millis(1300));
    let agreeing = stage.agree("wallet-2");
    let (agreed, _) = tokio::join!(agreeing, stage.until(TokenState::WaitingForTouch));
    assert_eq!(kind(agreed), None);
    assert_eq!(stage.notice().to_string(), "cosigner wants to answer wallet-2: touch the token (Puppet 1), 20 s left");
    let Phase::Lasts { begins: false, left } = stage.notice().phase else { panic!("it lasts more than a second") };
    assert!(left < Duration::from_millis(19_100), "{left:?}");
    assert_eq!(stage.notice().phase, Phase::Ended(Outcome::Done));
    assert_eq!(stage.token.state().state, TokenState::Ready);
}

#[tokio::test]
async fn a_cached_touch_is_not_asked_for() {
    let stage = Play::new(Touch::Cached);
    stage.script(|script| script.takes = Duration::from_millis(50));
    assert_eq!(kind(stage.agree("wallet").await), None);
    assert!(stage.notices.try_recv().is_err());
    stage.script(|script| script.takes = Duration::from_millis(700));
    assert_eq!(kind(stage.agree("wallet").await), None);
    assert_eq!(stage.notice().what, What::Touch { perhaps: false });
    assert_eq!(stage.notice().phase, Phase::Ended(Outcome::Done));
}

#[tokio::test]
async fn not_touched_is_told_and_leaves_the_token_ready() {
    let stage = Play::new(Touch::Always);
    stage.script(|script| script.fails = Some(Failure::NotTouched));
    assert_eq!(kind(stage.agree("wallet").await), Some(ErrorKind::TokenNotTouched));
    let status = stage.token.state();
    assert_eq!((status.state, status.trouble.unwrap().kind), (TokenState::Ready, ErrorKind::TokenNotTouched));
    let last = std::iter::from_fn(|| stage.notices.recv_timeout(Duration::from_millis(300)).ok()).last();
    assert!(last.is_none_or(|notice| notice.phase == Phase::Ended(Outcome::Missed)));
}

#[tokio::test]
async fn failures_have_their_states() {
    let stage = Play::new(Touch::Never);
    for (failure, kind_, state) in [
        (Failure::WrongPin, ErrorKind::PinWrong, TokenState::Locked),
        (Failure::PinLast, ErrorKind::PinLocked, TokenState::Locked),
        (Failure::PinLocked, ErrorKind::PinLocked, TokenState::Blocked),
        (Failure::ServiceAbsent, ErrorKind::TokenAbsent, TokenState::Absent),
        (Failure::KeyMismatch, ErrorKind::KeyMismatch, TokenState::Failed),
    ] {
        stage.script(|script| script.fails = Some(failure));
        assert_eq!(kind(stage.agree("wallet").await), Some(kind_));
        assert_eq!(stage.token.state().state, state);
    }
    stage.script(|script| script.panics = true);
    assert_eq!(kind(stage.agree("wallet").await), Some(ErrorKind::TokenFailed));
    stage.until(TokenState::Failed).await;
    assert!(stage.token.close(LIMIT));
}

#[tokio::test]
async fn a_token_can_be_waited_for() {
    let absent_twice = |at| (at < 3).then_some(Failure::TokenAbsent);
    assert_eq!(kind(Play::with(Touch::Never, absent_twice, false)), Some(ErrorKind::TokenAbsent));
    let stage = Play::with(Touch::Never, absent_twice, true).unwrap();
    assert_eq!(stage.token.state().state, TokenState::Absent);
    assert_eq!(stage.token.label(), "file:key.pem");
    stage.until(TokenState::Ready).await;
    assert_eq!(stage.token.label(), "Puppet 1");
    assert_eq!(kind(stage.agree("wallet").await), None);
    assert_eq!(kind(Play::with(Touch::Never, |_| Some(Failure::KeyMismatch), true)), Some(ErrorKind::KeyMismatch));
}

#[tokio::test]
async fn a_token_that_nobody_touched_is_not_absent() {
    let untouched = |at| Some(if at == 1 { Failure::TokenAbsent } else { Failure::NotTouched });
    let stage = Play::with(Touch::Always, untouched, true).unwrap();
    assert_eq!(stage.until(TokenState::Failed).await.trouble.unwrap().kind, ErrorKind::TokenNotTouched);

    let stage = Play::new(Touch::Always);
    stage.script(|script| script.fails = Some(Failure::TokenAbsent));
    stage.until(TokenState::Absent).await;
    stage.script(|script| script.fails = Some(Failure::NotTouched));
    assert_eq!(kind(stage.agree("wallet").await), Some(ErrorKind::TokenNotTouched));
    assert_eq!(stage.token.state().state, TokenState::Ready);
    let told = std::iter::from_fn(|| stage.notices.recv_timeout(Duration::from_millis(300)).ok());
    assert_eq!(told.filter(|notice| notice.what == What::Back).count(), 1);
}

#[tokio::test]
async fn a_caller_that_gave_up_costs_no_operation() {
    let stage = Play::new(Touch::Never);
    stage.script(|script| script.takes = Duration::from_millis(300));
    let (first, second) = (stage.agree("wallet"), stage.agree("wallet"));
    let impatient = tokio::time::timeout(Duration::from_millis(50), second);
    let (first, second) = tokio::join!(first, impatient);
    assert!(first.is_ok() && second.is_err());
    assert_eq!(kind(stage.agree("other").await), None);
    assert_eq!(stage.token.operations(), 2);
}

#[tokio::test]
async fn a_hundred_requests_of_one_peer_delay_another_by_one() {
    let stage = Play::new(Touch::Never);
    stage.script(|script| script.takes = Duration::from_millis(100));
    let many = futures::future::join_all((0..100).map(|_| stage.agree("many")));
    let one = async {
        tokio::task::yield_now().await;
        let agreed = stage.agree("one").await;
        (agreed, stage.token.operations())
    };
    let (many, (one, after)) = tokio::join!(many, one);
    assert_eq!(kind(one), None);
    // The one that ran, one more, its own; and the next may have begun.
    assert!(after <= 4, "{after} operations before it was told");
    let busy = many.into_iter().filter_map(kind).filter(|kind| *kind == ErrorKind::TokenBusy).count();
    assert!((91..=92).contains(&busy), "{busy} were refused");
}

#[tokio::test]
async fn closing_lets_the_token_go() {
    let stage = Play::new(Touch::Never);
    assert!(stage.token.close(LIMIT));
    assert!(stage.token.close(LIMIT));
    assert_eq!(kind(stage.agree("wallet").await), Some(ErrorKind::TokenFailed));
}
