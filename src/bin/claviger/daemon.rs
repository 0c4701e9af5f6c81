//! `claviger run`: the daemon.

use crate::cli::Cli;
use crate::run::{self, Opener};
use clap::Args;
use claviger::daemon::{Daemon, activation};
use claviger::endpoint::{self, Endpoint};
use claviger::error::Result;
use claviger::program::{Terminal, prompts_are_over};
use claviger::store::Store;
use claviger::transport;
use tokio::signal::unix::{SignalKind, signal};

#[derive(Args)]
pub(crate) struct Run {}

pub(crate) fn run(cli: &Cli, _options: &Run, terminal: &Terminal) -> Result<()> {
    activation::take();
    let (dir, config) = run::configuration(cli)?;
    let mut store = Store::open(&dir)?;
    let machine = store.machine()?;
    endpoint::is_sealed(&store, &config)?;
    let opener = Opener::new(terminal, &config, &machine);
    let token = opener.token(machine.locator(), machine.key(), true)?;
    let runtime = run::runtime()?;
    let patience = config.token.timeout;
    let outcome = runtime.block_on(async {
        let mut stop = Box::pin(run::ended(true));
        let daemon = Daemon::new(machine.card.identifier.clone(), config.clone(), &dir)?;
        daemon.waits_for(&token);
        let sources = run::Sources::of(cli);
        daemon.reads(move || Ok(sources.load()?.1));
        let opening = async {
            run::open_seal(&mut store, &token, true, terminal).await?;
            let former = store.machine()?.former;
            let former = tokio::task::block_in_place(|| former.and_then(|former| opener.former(&former, &token)));
            let transport = transport::open(&config.transport, &dir).await?;
            let endpoint = Endpoint::new(store, token.clone(), transport, config)?;
            former.map_or_else(|| Ok(endpoint.clone()), |former| endpoint.with_former(former))
        };
        let endpoint = tokio::select! {
            opened = opening => opened?,
            stopped = &mut stop => return stopped,
        };
        let reloading = tokio::spawn(reload(daemon.clone()));
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

/// Takes over the configuration file whenever SIGHUP asks for it.
async fn reload(daemon: Daemon) {
    let Ok(mut hangup) = signal(SignalKind::hangup()) else { return };
    while hangup.recv().await.is_some() {
        // What comes of it is logged, and stands in the status.
        let _ = daemon.reload().await;
    }
}
