//! One agree through a token's thread, beside the bare call: what queue, deadline, states and the way back cost.
//!
//! The two alternate, so that a loaded machine slows both alike; each line is the median of the pairs' times and of their ratios.

// A benchmark that cannot set up its tokens ends, as a test does.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]
#![allow(clippy::disallowed_methods, reason = "sleeping is what a thread does that waits for a token")]

use claviger::identity::{Curve, StaticPublic};
use claviger::token::{PinPrompt, Reason, Settings, TokenHandle};
use claviger_hsm::{KeepPin, Locator, NewKey, Operation, Pin, PinEntry, PinRequest, PublicKey, Purpose};
use claviger_testkit::cards::{self, Card, Pcscd};
use claviger_testkit::token::{PIN, SO_PIN, SoftHsm};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Pairs that are measured, and those before that are not.
const PAIRS: usize = 400;
const WARM_UP: usize = 20;

struct Given(&'static str);

impl PinEntry for Given {
    fn pin(&mut self, request: &PinRequest<'_>) -> claviger_hsm::Result<Pin> {
        Pin::new(match request.purpose {
            Purpose::AdminPin => cards::ADMIN_PIN.into(),
            Purpose::ManagementKey => cards::MANAGEMENT_KEY.map(|byte| format!("{byte:02x}")).concat(),
            _ => self.0.into(),
        })
    }
}

impl PinPrompt for Given {}

fn median<T: PartialOrd + Copy>(values: &mut [T]) -> T {
    values.sort_by(|a, b| a.partial_cmp(b).unwrap());
    values[values.len() / 2]
}

fn compare(name: &str, locator: &Locator, pin: &'static str) {
    let mut people = Given(pin);
    let mut operation = Operation::within(Duration::from_secs(3600), &mut people);
    let new = NewKey::new(claviger_hsm::Curve::P256);
    let (locator, key): (Locator, PublicKey) = claviger_hsm::generate(locator, &new, &mut operation).unwrap();
    let public = StaticPublic::new(Curve::P256, key.as_bytes()).unwrap();
    let mut bare = claviger_hsm::open(&locator, Some(&key), KeepPin::Once, &mut operation).unwrap();
    let token = TokenHandle::open(&locator.to_string(), &public, Settings::new("bench", Given(pin))).unwrap();
    let reason = Reason::calling(&"peer".parse().unwrap());
    // As in an endpoint: the caller is a task of the runtime.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
    let (mut alone, mut through, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let task = async move {
        for at in 0..PAIRS + WARM_UP {
            // Its own key is as good a peer as any.
            let start = Instant::now();
            bare.agree(&key, &mut Operation::within(Duration::from_secs(20), &mut people)).unwrap();
            let first = start.elapsed().as_secs_f64();
            let start = Instant::now();
            token.agree(&public, &reason).await.unwrap();
            let second = start.elapsed().as_secs_f64();
            if at >= WARM_UP {
                alone.push(first);
                through.push(second);
                ratios.push(second / first);
            }
        }
        (median(&mut alone), median(&mut through), median(&mut ratios))
    };
    let (alone, through, ratio) = runtime.block_on(async { tokio::spawn(task).await.unwrap() });
    let (alone, through) = (alone * 1e6, through * 1e6);
    println!("{name:8} bare {alone:8.1} µs   through the thread {through:8.1} µs   ratio {ratio:.3}");
}

/// A thread that is handed something and hands it back, and does nothing else: what no queue can do without.
fn hop() {
    let (sender, jobs) = std::sync::mpsc::channel::<tokio::sync::oneshot::Sender<()>>();
    let thread = std::thread::spawn(move || jobs.iter().for_each(|reply| reply.send(()).unwrap()));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
    let task = async move {
        let mut times = Vec::new();
        for _ in 0..PAIRS {
            std::thread::sleep(Duration::from_micros(500));
            let start = Instant::now();
            let (reply, answer) = tokio::sync::oneshot::channel();
            sender.send(reply).unwrap();
            answer.await.unwrap();
            times.push(start.elapsed().as_secs_f64());
        }
        median(&mut times) * 1e6
    };
    let time = runtime.block_on(async { tokio::spawn(task).await.unwrap() });
    println!("a hop to a thread and back, with nothing to do: {time:.1} µs");
    thread.join().unwrap();
}

fn main() -> ExitCode {
    cards::isolated_main(|| {
        hop();
        let directory = tempfile::tempdir().unwrap();
        compare("software", &Locator::File(directory.path().join("key.pem").into()), PIN);
        let softhsm = SoftHsm::new().init_token("a", SO_PIN, PIN);
        compare("softhsm", &softhsm.uri("key").parse().unwrap(), PIN);
        let pcscd = Pcscd::start();
        for (name, card) in [
            ("yubikey", Card::yubikey(&pcscd, 1)),
            ("piv", Card::piv(&pcscd, 2)),
            ("openpgp", Card::openpgp(&pcscd, 3)),
        ] {
            compare(name, &card.locator().parse().unwrap(), cards::PIN);
        }
    })
}
