//! `claviger run`: the daemon.
//!
//! What comes before what: the configuration, because it says how to log; the store, because it names the token; then everything that is not needed is given
//! up, on this thread, while there is no other; then the token, which has a thread of its own, and the runtime with its threads.

use crate::cli::Cli;
use crate::logging;
use crate::run::{self, Opener};
use clap::Args;
use claviger::config::{Config, FILE_NAME};
use claviger::daemon::sandbox::{self, Confinement, Place};
use claviger::daemon::{Daemon, activation};
use claviger::endpoint::{self, Endpoint};
use claviger::error::Result;
use claviger::program::{Terminal, prompts_are_over};
use claviger::store::{Machine, Store};
use claviger::token;
use claviger::transport;
use std::path::Path;
use tokio::signal::unix::{Signal, SignalKind, signal};

#[derive(Args)]
pub(crate) struct Run {}

pub(crate) fn run(cli: &Cli, _options: &Run, terminal: &Terminal) -> Result<()> {
    activation::take();
    let (dir, config) = run::configuration(cli)?;
    let set_level = logging::start_daemon(cli, &config.log);
    let mut store = Store::open(&dir)?;
    let machine = store.machine()?;
    endpoint::is_sealed(&store, &config)?;
    let opener = Opener::new(terminal, &config, &machine);
    let confinement = confine(cli, &config, &dir, &machine, &opener)?;
    let token = opener.token(machine.locator(), machine.key(), true)?;
    let runtime = run::runtime()?;
    let patience = config.token.timeout;
    let outcome = runtime.block_on(async {
        let mut stop = Box::pin(run::ended(true));
        let daemon = Daemon::new(machine.card.identifier.clone(), config.clone(), &dir)?;
        daemon.is_confined(confinement);
        daemon.waits_for(&token);
        let sources = run::Sources::of(cli);
        daemon.reads(move || Ok(sources.load()?.1));
        daemon.logs(set_level);
        // From now on the signal does not end the program.
        let hangup = signal(SignalKind::hangup());
        let opening = async {
            run::open_seal(&mut store, &token, true, terminal).await?;
            let former = store.machine()?.former;
            let former = tokio::task::block_in_place(|| former.and_then(|former| opener.former(&former, &token)));
            let transport = transport::open(&config, &dir).await?;
            let endpoint = Endpoint::new(store, token.clone(), transport, config)?;
            former.map_or_else(|| Ok(endpoint.clone()), |former| endpoint.with_former(former))
        };
        let endpoint = tokio::select! {
            opened = opening => opened?,
            stopped = &mut stop => return stopped,
        };
        let reloading = tokio::spawn(reload(daemon.clone(), hangup));
        let outcome = daemon.run(endpoint, async { drop(stop.await) }).await;
        reloading.abort();
        outcome
    });
    // As in `run::network`.
    std::mem::forget(runtime);
    prompts_are_over();
    token.close(patience);
    outcome
}

/// Gives up what is not needed. The locators of a store are read before its seal is: whoever forged one could have the daemon read a file that it may read
/// anyway, and no more.
fn confine(cli: &Cli, config: &Config, dir: &Path, machine: &Machine, opener: &Opener<'_>) -> Result<Confinement> {
    let former = machine.former.as_ref().map(|former| former.token.as_str());
    let locators = [machine.locator()].into_iter().chain(former);
    let tokens = locators.map(token::places).collect::<Result<Vec<_>>>()?;
    let has_pin = tokens.iter().all(|token| token.has_pin);
    let place = Place {
        store: dir.to_owned(),
        config: Some(cli.config.clone().unwrap_or_else(|| dir.join(FILE_NAME))),
        tokens,
        asks_in_a_window: !has_pin && opener.asks_in_a_window(),
    };
    sandbox::enter(config, place)
}

/// Takes over the configuration file whenever SIGHUP asks for it.
async fn reload(daemon: Daemon, hangup: std::io::Result<Signal>) {
    let Ok(mut hangup) = hangup else { return };
    while hangup.recv().await.is_some() {
        // What comes of it is logged, and stands in the status.
        let _ = daemon.reload().await;
    }
}
