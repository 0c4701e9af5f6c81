//! One connection through a pair of forwarders.

use super::stream::runtime;
use crate::child::Worker;
use crate::link::{self, BoxStream, Dialler, Kind};
use crate::measure::quantile;
use crate::pairs::{Forwarder, Pair};
use crate::report::{Report, Rounds, Target};
use crate::tls::{Cipher, Provider};
use crate::{Options, Result};
use std::time::Instant;

/// Echoes of one measurement.
const ECHOES: u64 = 300;

const ALL: [Forwarder; 9] = [
    Forwarder::Own(Kind::Session(Cipher::ChaCha)),
    Forwarder::Own(Kind::Session(Cipher::Aes)),
    Forwarder::Own(Kind::Tcp),
    Forwarder::Own(Kind::Tls(Provider::AwsLc, Cipher::ChaCha)),
    Forwarder::Own(Kind::Tls(Provider::AwsLc, Cipher::Aes)),
    Forwarder::Stunnel(Cipher::ChaCha),
    Forwarder::Stunnel(Cipher::Aes),
    Forwarder::Spiped,
    Forwarder::Ssh,
];

fn name(forwarder: Forwarder) -> String {
    match forwarder {
        Forwarder::Own(Kind::Session(cipher) | Kind::Tls(_, cipher)) | Forwarder::Stunnel(cipher) => {
            format!("{}, {}", forwarder.name(), if cipher == Cipher::Aes { "AES" } else { "ChaCha" })
        }
        _ => forwarder.name(),
    }
}

pub(super) fn run(options: &Options, report: &mut Report) -> Result<()> {
    let dir = tempfile::tempdir()?;
    link::make(dir.path())?;
    let path = dir.path().to_str().ok_or("a directory that is not text")?;
    let runtime = runtime()?;
    let address = link::free_port()?;
    let _target = Worker::start(&["answer", Kind::Tcp.argument(), path, &address.to_string()])?;
    let mut running: Vec<(Forwarder, Pair, BoxStream)> = Vec::new();
    for forwarder in ALL {
        options.progress("forward", &format!("starting {}", name(forwarder)));
        let started = Pair::start(forwarder, dir.path(), address).and_then(|pair| {
            let stream = runtime.block_on(async {
                let mut stream = Dialler::new(Kind::Tcp, dir.path(), pair.entry).await?.dial().await?;
                link::echo(&mut stream, 1).await?;
                Ok::<_, crate::Error>(stream)
            })?;
            Ok((forwarder, pair, stream))
        });
        match started {
            Ok(started) => running.push(started),
            Err(error) => report.skipped.push((format!("forward, {}", name(forwarder)), error.to_string())),
        }
    }
    let bytes: u64 = if options.quick { 32 << 20 } else { 256 << 20 };
    let mut values = [(); 3].map(|()| vec![Vec::new(); running.len()]);
    let rounds = options.rounds(11, 3);
    for round in 0..=rounds {
        options.progress("forward", &format!("round {round} of {rounds}"));
        for step in 0..running.len() {
            let at = (round + step) % running.len();
            let (forwarder, _, stream) = &mut running[at];
            let measured = runtime.block_on(async {
                let start = Instant::now();
                link::send(stream, bytes).await?;
                let rate = bytes as f64 / start.elapsed().as_secs_f64() / 1e9;
                let times = link::echo(stream, ECHOES).await?;
                let times: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1e6).collect();
                Ok::<_, crate::Error>([rate, quantile(&times, 0.5), quantile(&times, 0.99)])
            });
            let measured = measured.map_err(|error| format!("{}: {error}", name(*forwarder)))?;
            if round > 0 {
                values.iter_mut().zip(measured).for_each(|(values, value)| values[at].push(value));
            }
        }
    }
    let names: Vec<String> = running.iter().map(|(forwarder, ..)| name(*forwarder)).collect();
    report.note("forward", "throughput", "GB/s", &names, &values[0]);
    report.note("forward", "echo of 1 KiB, p50", "µs", &names, &values[1]);
    report.note("forward", "echo of 1 KiB, p99", "µs", &names, &values[2]);
    let position = |forwarder| running.iter().position(|(running, ..)| *running == forwarder);
    for (cipher, short) in [(Cipher::ChaCha, "ChaCha"), (Cipher::Aes, "AES")] {
        let Some(ours) = position(Forwarder::Own(Kind::Session(cipher))) else { continue };
        let others = [
            (Forwarder::Stunnel(cipher), Some(2.0)),
            (Forwarder::Own(Kind::Tcp), Some(0.9)),
            (Forwarder::Spiped, None),
            (Forwarder::Ssh, None),
        ];
        for (other, bound) in others {
            let Some(theirs) = position(other) else { continue };
            let theirs = Rounds { name: &names[theirs], values: &values[0][theirs] };
            report.compare("forward", short, "GB/s", &values[0][ours], &theirs, bound.map(Target::Ratio));
        }
    }
    Ok(())
}
