//! The commands.

use crate::cli::{Cli, Command, Connect, Listen};
use crate::pump;
use clap::CommandFactory as _;
use claviger::config::{Config, FILE_NAME};
use claviger::endpoint::{Endpoint, Listening};
use claviger::error::{Error, ErrorKind, Result};
use claviger::program::{Pins, Terminal, completions, interrupts_are_handled, man, prompts_are_over, store_dir};
use claviger::session::Session;
use claviger::store::{self, Store};
use claviger::token::{Notice, Phase, Settings, TokenHandle, What};
use claviger::transport::{self, ServiceState};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

pub(crate) fn run(cli: &Cli, terminal: &Terminal) -> Result<()> {
    match &cli.command {
        Command::Completions { shell } => completions(Cli::command(), *shell, terminal),
        Command::Man { dir } => man(Cli::command(), dir.as_deref(), terminal),
        Command::Listen(options) => {
            network(cli, terminal, async |endpoint, stop| listen(endpoint, stop, options, terminal).await)
        }
        Command::Connect(options) => network(cli, terminal, async |endpoint, stop| {
            tokio::select! {
                outcome = connect(endpoint, options, terminal) => outcome,
                stopped = stop => stopped,
            }
        }),
    }
}

/// Ready when a signal says that this program should end.
type Stop = Pin<Box<dyn Future<Output = Result<()>>>>;

/// Opens store, token and transport, and runs `command` until it is done or interrupted.
fn network(cli: &Cli, terminal: &Terminal, command: impl AsyncFnOnce(Endpoint, Stop) -> Result<()>) -> Result<()> {
    let dir = store_dir(cli.store.as_deref())?;
    let config = configuration(cli, &dir)?;
    let store = Store::open(&dir)?;
    let machine = store.machine()?;
    let token = token(cli, terminal, &config, &machine)?;
    if token.is_software() {
        terminal.warn(&format!("The identity of `{}` is a software key: {}.", machine.card.identifier, token.label()));
    }
    let runtime = Runtime::new().map_err(|error| {
        Error::new(
            ErrorKind::Internal,
            "The async runtime could not be started.",
            "Check the limits on threads and files.",
        )
        .because(error)
    })?;
    let patience = config.token.timeout;
    let held = token.clone();
    let outcome = runtime.block_on(async {
        let transport = transport::open(&config.transport, &dir).await?;
        let endpoint = Endpoint::new(store, token, transport, config)?;
        command(endpoint, Box::pin(ended(matches!(cli.command, Command::Listen(_))))).await
    });
    // A read of stdin can not be cancelled, and arti's tasks panic, twice at once if it so happens, when a runtime is shut down around them.
    // All that must end has ended; the process takes the rest with it.
    std::mem::forget(runtime);
    prompts_are_over();
    held.close(patience);
    outcome
}

/// Opens the machine's token, with the people at the terminal.
fn token(cli: &Cli, terminal: &Terminal, config: &Config, machine: &store::Machine) -> Result<TokenHandle> {
    let pins = Pins::configured(terminal, &config.token);
    let shown = *terminal;
    // What comes and goes is told by events, and a PIN by its prompt.
    let notify = move |notice: &Notice| match (&notice.what, notice.phase) {
        (What::Touch { .. }, Phase::Lasts { begins, .. }) => shown.progress(&notice.to_string(), begins, false),
        (What::Touch { .. }, Phase::Ended(_)) => shown.progress(&notice.to_string(), false, true),
        _ => {}
    };
    let settings = Settings {
        config: config.token.clone(),
        notify: Some(Arc::new(notify)),
        ..Settings::new(machine.card.identifier.as_str(), pins.clone())
    };
    let (locator, key) = (&machine.token, &machine.card.static_public);
    let token = match &cli.command {
        Command::Listen(Listen { wait_for_token: true, .. }) => TokenHandle::open_when_there(locator, key, settings),
        _ => TokenHandle::open(locator, key, settings),
    };
    pins.outcome(token)
}

fn configuration(cli: &Cli, dir: &Path) -> Result<Config> {
    let default = dir.join(FILE_NAME);
    let mut config = match &cli.config {
        Some(path) => Config::load(path)?,
        None if default.exists() => Config::load(&default)?,
        None => Config::default(),
    };
    if let Some(kind) = cli.transport {
        config.transport.kind = kind.into();
    }
    if let Some(port) = cli.port {
        config.transport.port = port;
    }
    Ok(config)
}

/// Waits for a signal. SIGTERM is how a listener is told that it is done; anything else is an interruption.
async fn ended(listener: bool) -> Result<()> {
    let failed = |error| {
        Error::new(ErrorKind::Internal, "Signals can not be handled here.", "Check the sandbox this program runs in.")
            .because(error)
    };
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    interrupts_are_handled();
    let name = tokio::select! {
        _ = interrupt.recv() => "SIGINT",
        _ = terminate.recv() => "SIGTERM",
    };
    if listener && name == "SIGTERM" {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Interrupted, format!("Ended by {name}."), "Run the command again to go on."))
}

async fn connect(endpoint: Endpoint, options: &Connect, terminal: &Terminal) -> Result<()> {
    terminal.note(&format!("Connecting to {} as {}…", options.peer, endpoint.identity().identifier));
    let pattern = options.pattern.map(|pattern| claviger::config::Pattern::from(pattern).into());
    let session = endpoint.connect_peer(&options.peer, pattern).await?;
    let peer = session.peer();
    terminal.note(&format!(
        "Connected to {}, role {}, by {} with {} token operations.",
        peer.identifier,
        peer.role,
        peer.protocol.name(),
        peer.operations
    ));
    pump::stdio(session).await
}

async fn listen(endpoint: Endpoint, stop: Stop, options: &Listen, terminal: &Terminal) -> Result<()> {
    let card = endpoint.identity().clone();
    let port = endpoint.config().transport.port;
    let listening = endpoint.listen(&card.onion_address, port).await?;
    let mut state = listening.state();
    let transport = endpoint.transport_name();
    terminal.note(&format!("{} listens on port {port} of its onion address, through {transport}.", card.identifier));
    let service = async {
        loop {
            show(&card.identifier.to_string(), &mut state, terminal);
            if state.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        outcome = serve(listening, stop, options, terminal) => outcome,
        () = service => Ok(()),
    }
}

fn show(name: &str, state: &mut watch::Receiver<ServiceState>, terminal: &Terminal) {
    match &*state.borrow_and_update() {
        ServiceState::Starting => terminal.note("Connecting to the Tor network…"),
        ServiceState::Publishing => terminal.note("Publishing the onion service…"),
        ServiceState::Reachable => terminal.note(&format!("{name} is reachable.")),
        ServiceState::Interrupted(why) => terminal.warn(&format!("{name} is not reachable: {why}; trying again.")),
    }
}

async fn serve(mut listening: Listening, mut stop: Stop, options: &Listen, terminal: &Terminal) -> Result<()> {
    let stdio = !options.echo && options.exec.is_none();
    let command: Option<Arc<str>> = options.exec.as_deref().map(Into::into);
    let mut sessions = JoinSet::new();
    loop {
        let session = tokio::select! {
            session = listening.accept() => session,
            Some(ended) = sessions.join_next() => {
                report(ended, terminal);
                continue;
            }
            stopped = &mut stop => {
                // Sessions and their commands end here, not whenever the process does.
                sessions.shutdown().await;
                return stopped;
            }
        };
        let Some(session) = session else {
            return Err(Error::new(
                ErrorKind::TransportUnavailable,
                "The onion service has ended.",
                "Look at the messages above and start it again.",
            ));
        };
        terminal.note(&format!("{} is here.", session.peer().identifier));
        if stdio || options.once {
            // Nobody else is let in to wait for an answer that will not come.
            drop(listening);
            let serving = async { if stdio { pump::stdio(session).await } else { one(session, command).await.1 } };
            return tokio::select! {
                outcome = serving => outcome,
                stopped = stop => stopped,
            };
        }
        let serving = one(session, command.clone());
        sessions.spawn(serving);
    }
}

async fn one(session: Session, command: Option<Arc<str>>) -> (String, Result<()>) {
    let name = session.peer().identifier.to_string();
    let outcome = match command {
        Some(command) => pump::exec(session, &command).await,
        None => pump::echo(session).await,
    };
    (name, outcome)
}

/// One session's end is not the listener's.
fn report(ended: std::result::Result<(String, Result<()>), tokio::task::JoinError>, terminal: &Terminal) {
    match ended {
        Ok((name, Ok(()))) => terminal.note(&format!("{name} has left.")),
        Ok((name, Err(error))) => terminal.warn(&format!("The session of {name} ended: {error} {}", error.hint())),
        Err(_) => terminal.warn("A session ended by a fault of this program. Please report this."),
    }
}
