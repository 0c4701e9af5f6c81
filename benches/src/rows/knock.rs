//! How long a listener takes to find the caller among its peers.

use crate::measure::{Subject, alternate, median, thread_time};
use crate::report::{Report, Rounds, Target};
use crate::{Options, Result};
use claviger::identity::{Curve, StaticPublic};
use claviger::noise::knock::{Doorkeeper, key, packet};
use claviger::wire::Pattern;

const BEGIN: u64 = 1_800_000_000_000;
const WINDOW: u64 = 120_000;
const PEERS: [u32; 4] = [10, 100, 1_000, 10_000];

fn public(number: u32) -> StaticPublic {
    let mut bytes = [9; 32];
    bytes[..4].copy_from_slice(&number.to_le_bytes());
    StaticPublic::new(Curve::X25519, &bytes).unwrap()
}

pub(super) fn run(options: &Options, report: &mut Report) -> Result<()> {
    let local = public(1);
    // XK's first message: an ephemeral key and a tag.
    let message = [7; 48];
    let mut subjects = Vec::new();
    for count in PEERS {
        let peers: Vec<StaticPublic> = (2..2 + count).map(public).collect();
        let mut door = Doorkeeper::new(&local, &peers, WINDOW, BEGIN - WINDOW);
        let caller = key(&peers[peers.len() - 1], &local);
        let mut now = BEGIN;
        let admit = move || {
            // A knock is good once: each is made anew, a second after the one before.
            now += 1_000;
            let packet = packet(&caller, Pattern::Xk.into(), now, &message);
            let start = thread_time();
            let admitted = door.admit(&packet, now);
            let spent = thread_time() - start;
            match admitted {
                Ok(admitted) if admitted.peer == count as usize - 1 => Ok(spent * 1e3),
                other => Err(format!("not admitted: {other:?}").into()),
            }
        };
        subjects.push(Subject::new(format!("{count} peers"), admit));
    }
    options.progress("knock", "callers among 10 to 10 000 peers");
    let values = alternate(&mut subjects, options.rounds(200, 40))?;
    let names: Vec<String> = subjects.iter().map(|subject| subject.name.clone()).collect();
    report.note("knock", "caller found among", "ms", &names, &values);
    report.verdicts.push(crate::report::Verdict {
        row: "knock".into(),
        what: "found among 10 000 peers".into(),
        ours: median(&values[3]),
        theirs: None,
        against: String::new(),
        unit: "ms".into(),
        ratio: None,
        target: Some(Target::Below(5.0)),
    });
    // Linear: ten times the peers cost ten times the time, or less.
    let theirs = Rounds { name: "1 000 peers", values: &values[2] };
    report.compare("knock", "ten times the peers", "ms", &values[3], &theirs, Some(Target::RatioBelow(10.5)));
    Ok(())
}
