//! Tokens that come and go, want a touch or a PIN, while machines use them: virtual cards behind a real pcscd.

use crate::cli::{Listener, run as program};
use crate::support::{Machine, Pins, pin_file, run, talk};
use claviger::config::{KeepPin, Pattern};
use claviger::identity::{Curve, Identifier};
use claviger::token::{
    Notice, Outcome, Phase, Pin, PinEntry, PinError, PinPrompt, PinRequest, Reason, Settings, TokenHandle, TokenState,
    TokenStatus, What,
};
use claviger::{Error, ErrorKind};
use claviger_hsm::{NewKey, Touch};
use claviger_testkit::cards::{Card, Kind, Options, PIN, Pcscd, isolated};
use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(20);
const SUITE: &str = "ChaChaPoly_BLAKE2s";

fn name(text: &str) -> Identifier {
    text.parse().unwrap()
}

fn kind<T>(result: Result<T, Error>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

async fn until(token: &TokenHandle, state: TokenState) -> TokenStatus {
    let mut watch = token.watch();
    let seen = tokio::time::timeout(LIMIT, watch.wait_for(|status| status.state == state)).await;
    seen.unwrap_or_else(|_| panic!("it never is {state}, but {:?}", token.state())).unwrap().clone()
}

async fn agree(token: &TokenHandle) -> Result<(), Error> {
    token.agree(token.public(), &Reason::answering(&name("wallet"))).await.map(drop)
}

/// Has the machine's notices sent here.
fn notices(machine: &mut Machine) -> Receiver<Notice> {
    let (sender, notices) = channel();
    let sender = Mutex::new(sender);
    machine.notify = Some(Arc::new(move |notice: &Notice| {
        let _ = sender.lock().unwrap().send(notice.clone());
    }));
    notices
}

/// A YubiKey whose key wants a touch for each operation, and waits a second for it; and a machine that has it.
fn touched(pcscd: &Pcscd) -> (Card, Machine) {
    let options = Options { touch_timeout: Some(Duration::from_secs(1)), ..Options::default() };
    let card = Card::with(pcscd, Kind::YubiKey, 7_000_001, &options);
    card.touch_now();
    let mut key = NewKey::new(claviger_hsm::Curve::X25519);
    key.touch = Some(Touch::Always);
    let machine = Machine::with("cosigner", Some(card.locator()), &key, SUITE);
    (card, machine)
}

fn comes_and_goes(card: impl Fn(&Pcscd) -> Card, curve: Curve) {
    let pcscd = Pcscd::start();
    let card = card(&pcscd);
    let mut machine = Machine::new("cosigner", Some(card.locator()), curve, SUITE);
    // Else the PIN by which the key was made would still be verified, and nobody be asked for it.
    card.reset();
    let notices = notices(&mut machine);
    run(async {
        let token = machine.token();
        assert_eq!(token.state().state, TokenState::Ready);
        // They are told by a thread of their own, a moment later.
        let asked = std::iter::from_fn(|| notices.recv_timeout(Duration::from_millis(500)).ok()).count();
        assert!(asked <= 2, "the PIN is asked for once");

        card.pull();
        let status = until(&token, TokenState::Absent).await;
        assert_eq!(status.trouble.unwrap().kind, ErrorKind::TokenAbsent);
        let start = Instant::now();
        assert_eq!(kind(agree(&token).await), Some(ErrorKind::TokenAbsent));
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
        card.insert();
        until(&token, TokenState::Ready).await;
        agree(&token).await.unwrap();

        // A request is a try: it need not wait until the thread has looked.
        card.pull();
        assert_eq!(kind(agree(&token).await), Some(ErrorKind::TokenAbsent));
        card.insert();
        agree(&token).await.unwrap();
        assert_eq!(token.state().state, TokenState::Ready);

        for end in [Pcscd::stop, Pcscd::kill] {
            end(&pcscd);
            until(&token, TokenState::Absent).await;
            assert_eq!(kind(agree(&token).await), Some(ErrorKind::TokenAbsent));
            pcscd.start_again();
            until(&token, TokenState::Ready).await;
            agree(&token).await.unwrap();
        }
        // Whoever is told has heard of every loss and return, and was asked for no PIN again.
        let told: Vec<What> = std::iter::from_fn(|| notices.recv_timeout(Duration::from_millis(200)).ok())
            .map(|notice| notice.what)
            .collect();
        assert!(told.iter().all(|what| matches!(what, What::Gone(_) | What::Back)), "{told:?}");
        assert_eq!(told.iter().filter(|what| **what == What::Back).count(), 4, "{told:?}");
        assert!(token.close(LIMIT));
    });
}

#[test]
fn a_yubikey_comes_and_goes() {
    isolated(|| comes_and_goes(|pcscd| Card::yubikey(pcscd, 7_000_002), Curve::X25519));
}

#[test]
fn an_openpgp_card_comes_and_goes() {
    isolated(|| comes_and_goes(|pcscd| Card::openpgp(pcscd, 0x0700_0003), Curve::P256));
}

#[test]
fn a_touch_is_asked_for_with_peer_and_reason() {
    isolated(|| {
        let pcscd = Pcscd::start();
        let (card, mut cosigner) = touched(&pcscd);
        let mut wallet = Machine::software("wallet");
        wallet.introduce(&mut cosigner);
        let notices = notices(&mut cosigner);
        let next = |wanted: &str| {
            let heard = std::iter::from_fn(|| notices.recv_timeout(LIMIT).ok()).find(|notice| {
                matches!(notice.what, What::Touch { .. }) && !notice.to_string().contains("open its token")
            });
            let heard = heard.unwrap();
            assert!(heard.to_string().starts_with(wanted), "{heard}");
            heard
        };
        run(async {
            let (caller, answerer) = (wallet.endpoint(Pattern::Kk1).await, cosigner.endpoint(Pattern::Kk1).await);
            let mut listening = answerer.listen(&cosigner.card.onion_address, 4747).await.unwrap();
            card.touch_after(Duration::from_millis(500));
            let peer = name("cosigner");
            let (session, accepted) = tokio::join!(caller.connect_peer(&peer, None), listening.accept());
            talk(&session.unwrap(), &accepted.unwrap()).await;
            let notice = next("cosigner wants to answer wallet: touch the token (");
            assert!(matches!(notice.phase, Phase::Lasts { begins: true, .. }));
            assert_eq!(notice.reason, Reason::answering(&name("wallet")));
            assert_eq!(next("cosigner wants to answer wallet").phase, Phase::Ended(Outcome::Done));

            card.touch_never();
            let wallets = caller.listen(&wallet.card.onion_address, 4747).await.unwrap();
            let failed = answerer.connect_peer(&name("wallet"), None).await;
            assert_eq!(kind(failed), Some(ErrorKind::TokenNotTouched));
            drop(wallets);
            next("cosigner wants to call wallet: touch the token (");
            let ended = std::iter::from_fn(|| notices.recv_timeout(LIMIT).ok());
            let ended = ended.map(|notice| notice.phase).find(|phase| matches!(phase, Phase::Ended(_)));
            assert_eq!(ended, Some(Phase::Ended(Outcome::Missed)));
            let status = answerer.token().state();
            assert_eq!(status.state, TokenState::Ready);
            assert_eq!(status.trouble.unwrap().kind, ErrorKind::TokenNotTouched);
        });
    });
}

/// Gives these, one after the other.
struct Given(VecDeque<&'static str>, Arc<Mutex<Vec<String>>>);

impl PinEntry for Given {
    fn pin(&mut self, request: &PinRequest<'_>) -> Result<Pin, PinError> {
        self.1.lock().unwrap().push(request.tries_left.to_string());
        let pin = self.0.pop_front().ok_or_else(|| PinError::pin_required("Nobody is here.", "Come back."))?;
        Pin::new(pin.into())
    }
}

impl PinPrompt for Given {
    fn because(&mut self, reason: &str) {
        self.1.lock().unwrap().push(reason.to_owned());
    }
}

#[test]
fn a_wrong_pin_while_it_runs() {
    isolated(|| {
        let pcscd = Pcscd::start();
        let card = Card::yubikey(&pcscd, 7_000_004);
        let machine = Machine::new("cosigner", Some(card.locator()), Curve::P256, SUITE);
        card.reset();
        let asked = Arc::default();
        let mut settings = Settings::new("cosigner", Given([PIN, "314159", PIN].into(), Arc::clone(&asked)));
        settings.config.keep_pin = KeepPin::NeverKeep;
        run(async {
            let token = TokenHandle::open(&machine.locator, &machine.card.static_public, settings).unwrap();
            agree(&token).await.unwrap();
            card.pull();
            card.insert();
            let status = until(&token, TokenState::Locked).await;
            assert_eq!(status.trouble, None, "nothing went wrong yet");
            let error = agree(&token).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::PinWrong);
            assert!(format!("{error}").contains("2 tries left"), "{error}");
            assert_eq!(token.state().state, TokenState::Locked);
            agree(&token).await.unwrap();
            assert_eq!(token.state().state, TokenState::Ready);
            let asked = asked.lock().unwrap().clone();
            let reason = "cosigner wants to answer wallet";
            assert_eq!(
                asked,
                ["cosigner wants to open its token", "3 tries left", reason, "3 tries left", reason, "2 tries left"]
            );
        });
    });
}

/// A file with a PIN, and whoever agrees to spend the last try.
#[derive(Clone)]
struct File(Arc<Mutex<&'static str>>);

impl PinEntry for File {
    fn credential(&mut self, _: &PinRequest<'_>) -> Result<Option<Pin>, PinError> {
        Pin::new((*self.0.lock().unwrap()).into()).map(Some)
    }

    fn pin(&mut self, _: &PinRequest<'_>) -> Result<Pin, PinError> {
        Err(PinError::pin_required("Nobody is here.", "Come back."))
    }

    fn confirm_last_try(&mut self, _: &PinRequest<'_>) -> bool {
        true
    }
}

impl PinPrompt for File {}

#[test]
fn a_wrong_pin_file_costs_one_try_and_can_be_corrected() {
    isolated(|| {
        let pcscd = Pcscd::start();
        let card = Card::yubikey(&pcscd, 7_000_006);
        let machine = Machine::new("cosigner", Some(card.locator()), Curve::P256, SUITE);
        let file = File(Arc::new(Mutex::new("314159")));
        card.pull();
        run(async {
            let settings = Settings::new("cosigner", file.clone());
            let token = TokenHandle::open_when_there(&machine.locator, &machine.card.static_public, settings).unwrap();
            card.insert();
            until(&token, TokenState::Locked).await;
            for _ in 0..3 {
                let error = agree(&token).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::PinWrong);
                assert!(format!("{error}").contains("not sent again (2 tries left)"), "{error}");
            }
            *file.0.lock().unwrap() = PIN;
            agree(&token).await.unwrap();
            assert_eq!(token.state().state, TokenState::Ready);
        });
    });
}

/// By another program, while this one holds the PIN: no look calls the token ready.
#[test]
fn a_pin_that_others_block_stays_blocked() {
    isolated(|| {
        let pcscd = Pcscd::start();
        let card = Card::yubikey(&pcscd, 7_000_008);
        let mut machine = Machine::new("cosigner", Some(card.locator()), Curve::P256, SUITE);
        let notices = notices(&mut machine);
        run(async {
            let token = machine.token();
            agree(&token).await.unwrap();
            card.reset();
            for wrong in ["314159", "271828", "161803"] {
                let mut other = File(Arc::new(Mutex::new(wrong)));
                let mut operation = claviger_hsm::Operation::within(LIMIT, &mut other);
                let locator = machine.locator.parse().unwrap();
                let opened = claviger_hsm::open(&locator, None, claviger_hsm::KeepPin::Once, &mut operation);
                assert_eq!(opened.err().unwrap().kind(), claviger_hsm::ErrorKind::WrongPin);
            }
            assert_eq!(kind(agree(&token).await), Some(ErrorKind::PinLocked));
            assert_eq!(token.state().state, TokenState::Blocked);
            let mut watch = token.watch();
            let other = watch.wait_for(|status| status.state != TokenState::Blocked);
            assert!(tokio::time::timeout(Duration::from_secs(3), other).await.is_err(), "{:?}", token.state());
            let back = std::iter::from_fn(|| notices.try_recv().ok()).any(|notice| notice.what == What::Back);
            assert!(!back, "it is not back");
        });
    });
}

#[test]
fn a_hundred_requests_of_one_peer_and_one_of_another() {
    isolated(|| {
        let pcscd = Pcscd::start();
        let card = Card::openpgp(&pcscd, 0x0700_0005);
        let machine = Machine::new("cosigner", Some(card.locator()), Curve::X25519, SUITE);
        run(async {
            let token = machine.token();
            let before = card.operations();
            let order = Arc::new(Mutex::new(Vec::new()));
            let mut many = tokio::task::JoinSet::new();
            let ask = |peer: &'static str| {
                let (token, order) = (token.clone(), Arc::clone(&order));
                async move {
                    let outcome = token.agree(token.public(), &Reason::answering(&name(peer))).await;
                    if outcome.is_ok() {
                        order.lock().unwrap().push(peer);
                    }
                    outcome.map(drop)
                }
            };
            // All ask while the card works on the first.
            card.hang(Duration::from_millis(1500));
            for _ in 0..100 {
                many.spawn(ask("wallet"));
            }
            while token.operations() == 0 {
                tokio::task::yield_now().await;
            }
            let one = tokio::spawn(ask("watchtower"));
            let outcomes = many.join_all().await;
            one.await.unwrap().unwrap();
            let order = order.lock().unwrap().clone();
            // After the operation that ran, and one more; the answers themselves race a little.
            let at = order.iter().position(|peer| *peer == "watchtower").unwrap();
            assert!(at <= 4 && order.len() >= 8, "{order:?}");
            let refused = outcomes.into_iter().filter_map(kind).collect::<Vec<_>>();
            assert!(refused.iter().all(|kind| *kind == ErrorKind::TokenBusy) && refused.len() >= 90, "{refused:?}");
            assert_eq!(card.operations() - before, token.operations());
        });
    });
}

/// The program starts without its token, opens it when it comes, says what it waits for, and goes on when it was away.
#[test]
fn a_listener_waits_for_its_token() {
    isolated(|| {
        let pcscd = Pcscd::start();
        let (card, mut cosigner) = touched(&pcscd);
        let mut wallet = Machine::software("wallet");
        wallet.introduce(&mut cosigner);
        let pin = cosigner.dir.path().join("pin");
        std::fs::write(&pin, Pins::of(&cosigner.locator).0).unwrap();
        std::fs::set_permissions(&pin, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let passphrase = wallet.dir.path().join("passphrase");
        std::fs::write(&passphrase, Pins::of(&wallet.locator).0).unwrap();
        std::fs::set_permissions(&passphrase, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let file = |path: &std::path::Path| format!("[token]\npin-file = \"{}\"", path.display());
        let store = cosigner.configure(&file(&pin));
        let wallets = wallet.configure(&file(&passphrase));
        let (store, wallets) = (store.to_str().unwrap(), wallets.to_str().unwrap());

        card.pull();
        let refused = program(&["--store", store, "listen", "--echo"], b"");
        assert_eq!(refused.status.code(), Some(6), "{}", String::from_utf8_lossy(&refused.stderr));
        let listener = Listener::start(&["--store", store, "listen", "--echo", "--wait-for-token"]);
        listener.says("state=absent");
        listener.says("cosigner is reachable.");
        let connect = || program(&["--store", wallets, "connect", "cosigner", "--pattern", "kk1"], b"hello");
        assert_eq!(connect().status.code(), Some(10));
        listener.says("reason=\"token-absent\"");
        card.insert();
        listener.says("is back");
        card.touch_after(Duration::from_millis(300));
        let answered = connect();
        assert_eq!(answered.stdout, b"hello", "{}", String::from_utf8_lossy(&answered.stderr));
        let asked = listener.says("cosigner wants to answer wallet: touch the token (");
        assert!(asked.ends_with(" s left"), "{asked}");
        listener.says("the token answered");
        card.touch_never();
        assert_eq!(connect().status.code(), Some(10));
        // Two threads tell of it.
        let mut missing = vec!["the token was not touched", "reason=\"token-not-touched\""];
        while !missing.is_empty() {
            let line = listener.says("not");
            missing.retain(|wanted| !line.contains(wanted));
        }
        assert_eq!(listener.stop(), Some(0));
    });
}

/// A sealed store opens with the token alone: until that is there, nothing is published.
#[test]
fn nothing_is_published_before_the_seal_is_open() {
    isolated(|| {
        let pcscd = Pcscd::start();
        let card = Card::yubikey(&pcscd, 7_000_011);
        let mut cosigner = Machine::new("cosigner", Some(card.locator()), Curve::X25519, SUITE);
        let mut wallet = Machine::software("wallet");
        wallet.introduce(&mut cosigner);
        let (store, wallets) = (cosigner.configure(&pin_file(&cosigner)), wallet.configure(&pin_file(&wallet)));
        let (store, wallets) = (store.to_str().unwrap(), wallets.to_str().unwrap());
        let connect = || program(&["--store", wallets, "connect", "cosigner"], b"hello");
        card.pull();
        let listener = Listener::start(&["--store", store, "listen", "--echo", "--wait-for-token"]);
        listener.says("The store is sealed: waiting for its token (");
        assert_eq!(connect().status.code(), Some(9), "nobody listens");
        card.insert();
        listener.says("cosigner is reachable.");
        let answered = connect();
        assert_eq!(answered.stdout, b"hello", "{}", String::from_utf8_lossy(&answered.stderr));
        // From now on a token that goes is a state.
        card.pull();
        listener.says("state=absent");
        assert_eq!(connect().status.code(), Some(10));
        card.insert();
        listener.says("is back");
        assert_eq!(connect().stdout, b"hello");
        assert_eq!(listener.stop(), Some(0));
    });
}
