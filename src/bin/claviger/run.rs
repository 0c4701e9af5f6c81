//! The commands.

use crate::cli::{Cli, Command, Connect, Listen};
use crate::{config as config_command, daemon, doctor, log, onion, policy, pump, rollcall, status};
use clap::CommandFactory as _;
use claviger::config::{self, Config, FILE_NAME};
use claviger::endpoint::{self, Endpoint, Listening};
use claviger::error::{Error, ErrorKind, Result};
use claviger::identity::StaticPublic;
use claviger::program::{Pins, Terminal, completions, interrupts_are_handled, man, prompts_are_over, store_dir};
use claviger::session::{Reset, Session, Stream, WeakSession, Why};
use claviger::store::{self, FormerIdentity, Store};
use claviger::token::{Notice, Phase, Settings, TokenHandle, What};
use claviger::transport::{self, ServiceState};
use std::cell::RefCell;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinSet, block_in_place};

/// How long sessions may take to end when the program does.
const PARTING: Duration = Duration::from_secs(3);

pub(crate) fn run(cli: &Cli, terminal: &Terminal) -> Result<()> {
    match &cli.command {
        Command::Completions { shell } => completions(Cli::command(), *shell, terminal),
        Command::Run(options) => daemon::run(cli, options, terminal),
        Command::Status(options) => status::run(cli, options, terminal),
        Command::Reload(options) => status::reload(cli, options, terminal),
        Command::Doctor(options) => doctor::run(cli, options, terminal),
        Command::Log(options) => log::run(cli, options, terminal),
        Command::Config(options) => config_command::run(cli, options, terminal),
        Command::Policy(options) => policy::run(cli, options, terminal),
        Command::Onion(options) => onion::run(cli, options, terminal),
        Command::Man { dir } => man(Cli::command(), dir.as_deref(), terminal),
        Command::Listen(options) => {
            network(cli, terminal, async |endpoint, stop| listen(endpoint, stop, options, terminal).await)
        }
        Command::Rollcall(options) => {
            network(cli, terminal, async |endpoint, stop| rollcall::run(endpoint, stop, options, terminal).await)
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
pub(crate) type Stop = Pin<Box<dyn Future<Output = Result<()>>>>;

/// Opens token, store and transport, and runs `command` until it is done or interrupted.
pub(crate) fn network(
    cli: &Cli,
    terminal: &Terminal,
    command: impl AsyncFnOnce(Endpoint, Stop) -> Result<()>,
) -> Result<()> {
    let (dir, config) = configuration(cli)?;
    let mut store = Store::open(&dir)?;
    let machine = store.machine()?;
    let is_sealed = endpoint::is_sealed(&store, &config)?;
    let opener = Opener::new(terminal, &config, &machine);
    let token = opener.token(machine.locator(), machine.key(), cli.waits_for_token())?;
    if token.is_software() {
        terminal.warn(&format!("The identity of `{}` is a software key: {}.", machine.card.identifier, token.label()));
    }
    if !is_sealed {
        terminal.warn(
            "the store is not sealed: whoever can write to it can change it unseen. Look at `claviger-ceremony peers` first; then seal it with `claviger-ceremony seal`.",
        );
    }
    let runtime = runtime()?;
    let patience = config.token.timeout;
    let held = RefCell::new(vec![token.clone()]);
    let outcome = runtime.block_on(async {
        let mut stop: Stop = Box::pin(ended(matches!(cli.command, Command::Listen(_))));
        let opening = async {
            open_seal(&mut store, &token, cli.waits_for_token(), terminal).await?;
            // Its locator is not believed before the seal holds. It may ask for a PIN, and blocks.
            let former = store.machine()?.former;
            let former = block_in_place(|| former.and_then(|former| opener.former(&former, &token)));
            held.borrow_mut().extend(former.clone());
            let transport = transport::open(&config, &dir).await?;
            let endpoint = Endpoint::new(store, token, transport, config)?;
            former.map_or_else(|| Ok(endpoint.clone()), |former| endpoint.with_former(former))
        };
        let endpoint = tokio::select! {
            opened = opening => opened?,
            stopped = &mut stop => return stopped,
        };
        command(endpoint, stop).await
    });
    // A read of stdin can not be cancelled, and arti's tasks panic, twice at once if it so happens, when a runtime is shut down around them.
    // All that must end has ended; the process takes the rest with it.
    std::mem::forget(runtime);
    prompts_are_over();
    for token in held.into_inner() {
        token.close(patience);
    }
    outcome
}

/// Opens the store's seal; waits for the token if it may.
pub(crate) async fn open_seal(store: &mut Store, token: &TokenHandle, waits: bool, terminal: &Terminal) -> Result<()> {
    let mut told = false;
    loop {
        let error = match endpoint::unlock(store, token).await {
            Err(error) if waits => error,
            outcome => return outcome,
        };
        match error.kind() {
            ErrorKind::TokenAbsent | ErrorKind::TokenBusy => {
                if !std::mem::replace(&mut told, true) {
                    terminal.note(&format!(
                        "The store is sealed: waiting for its token ({}) before anything is published.",
                        token.label()
                    ));
                }
                // Ends only with the token's thread, and then so does the next try.
                let _ = token.watch().wait_for(|status| !status.state.is_lost()).await;
            }
            ErrorKind::TokenNotTouched | ErrorKind::TokenTimeout => terminal.warn(&error.to_string()),
            _ => return Err(error),
        }
    }
}

/// Opens tokens, with the people at the terminal.
pub(crate) struct Opener<'a> {
    terminal: &'a Terminal,
    config: config::Token,
    machine: &'a str,
    pins: Pins,
}

impl<'a> Opener<'a> {
    pub(crate) fn new(terminal: &'a Terminal, config: &Config, machine: &'a store::Machine) -> Self {
        Self {
            terminal,
            config: config.token.clone(),
            machine: machine.card.identifier.as_str(),
            pins: Pins::configured(terminal, &config.token),
        }
    }

    /// Whether a window would be opened for a PIN.
    pub(crate) fn asks_in_a_window(&self) -> bool {
        self.pins.asks_in_a_window()
    }

    pub(crate) fn token(&self, locator: &str, key: &StaticPublic, waits: bool) -> Result<TokenHandle> {
        let shown = *self.terminal;
        // What comes and goes is told by events, and a PIN by its prompt.
        let notify = move |notice: &Notice| match (&notice.what, notice.phase) {
            (What::Touch { .. }, Phase::Lasts { begins, .. }) => shown.progress(&notice.to_string(), begins, false),
            (What::Touch { .. }, Phase::Ended(_)) => shown.progress(&notice.to_string(), false, true),
            _ => {}
        };
        let settings = Settings {
            config: self.config.clone(),
            notify: Some(Arc::new(notify)),
            ..Settings::new(self.machine, self.pins.clone())
        };
        let token = match waits {
            true => TokenHandle::open_when_there(locator, key, settings),
            false => TokenHandle::open(locator, key, settings),
        };
        self.pins.clone().outcome(token)
    }

    /// The token of before a rotation, while its overlap lasts. It may be gone: then only the peers that have not imported the succession miss it.
    pub(crate) fn former(&self, former: &FormerIdentity, present: &TokenHandle) -> Option<TokenHandle> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        if former.until <= now {
            return None;
        }
        let key = former.card.key(former.active).unwrap_or(&former.card.static_public);
        if key == present.public() {
            return Some(present.clone());
        }
        match self.token(&former.token, key, false) {
            Ok(token) => Some(token),
            Err(error) => {
                self.terminal.warn(&format!(
                    "Peers that have not imported this machine's next card can not reach it: {error} {}",
                    error.hint()
                ));
                None
            }
        }
    }
}

/// What of the command line says where the configuration comes from, and overrides it.
#[derive(Clone)]
pub(crate) struct Sources {
    store: Option<PathBuf>,
    config: Option<PathBuf>,
    transport: Option<config::TransportKind>,
    port: Option<u16>,
}

impl Sources {
    pub(crate) fn of(cli: &Cli) -> Self {
        let Cli { store, config, transport, port, .. } = cli;
        Self { store: store.clone(), config: config.clone(), transport: transport.map(Into::into), port: *port }
    }

    /// The configuration file, if there is one: the one that is named, else that in the store's directory.
    pub(crate) fn file(&self) -> Result<Option<PathBuf>> {
        Ok(match &self.config {
            Some(path) => Some(path.clone()),
            None => Some(store_dir(self.store.as_deref())?.join(FILE_NAME)).filter(|path| path.exists()),
        })
    }

    /// Takes this file.
    pub(crate) fn name(&mut self, file: Option<PathBuf>) {
        self.config = file;
    }

    /// The store's directory with a configuration.
    pub(crate) fn dir(&self, config: &Config) -> Result<PathBuf> {
        let named = config.store.dir.as_deref().filter(|_| self.config.is_some());
        store_dir(self.store.as_deref().or(named))
    }

    /// The store's directory and the configuration. A file that is named may name the store; without one it is looked for in the store.
    pub(crate) fn load(&self) -> Result<(PathBuf, Config)> {
        let mut config = self.file()?.map(|path| Config::load(&path)).transpose()?.unwrap_or_default();
        let dir = self.dir(&config)?;
        config.transport.kind = self.transport.unwrap_or(config.transport.kind);
        config.transport.port = self.port.unwrap_or(config.transport.port);
        Ok((dir, config))
    }
}

/// The store's directory and the configuration.
///
/// # Errors
/// [`ErrorKind::ConfigInvalid`].
pub(crate) fn configuration(cli: &Cli) -> Result<(PathBuf, Config)> {
    Sources::of(cli).load()
}

pub(crate) fn runtime() -> Result<Runtime> {
    Runtime::new().map_err(|error| {
        Error::new(
            ErrorKind::Internal,
            "The async runtime could not be started.",
            "Check the limits on threads and files.",
        )
        .because(error)
    })
}

/// Waits for a signal. SIGTERM is how a listener is told that it is done; anything else is an interruption.
pub(crate) async fn ended(listener: bool) -> Result<()> {
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
    Err(interrupted(name))
}

fn interrupted(signal: &str) -> Error {
    Error::new(ErrorKind::Interrupted, format!("Ended by {signal}."), "Run the command again to go on.")
}

async fn connect(endpoint: Endpoint, options: &Connect, terminal: &Terminal) -> Result<()> {
    terminal.note(&format!("Connecting to {} as {}…", options.peer.name, endpoint.identity().identifier));
    let pattern = options.pattern.map(|pattern| claviger::config::Pattern::from(pattern).into());
    let session = endpoint.connect_peer(&options.peer.name, pattern).await?;
    let peer = session.peer();
    terminal.note(&format!("Connected to {}, role {}: {peer}.", peer.identifier, peer.role));
    let stream = session.open(&options.peer.service).await?;
    let outcome = pump::stdio(stream).await;
    closed(&session, outcome).await
}

/// Sees a session off, so that this process may end; what went wrong before is what is told.
async fn closed(session: &Session, outcome: Result<()>) -> Result<()> {
    let closed = session.close().await;
    // Whoever closed it first, it was closed.
    outcome.and(closed.or_else(|error| if is_closed(&error) { Ok(()) } else { Err(error) }))
}

/// One of the ends was done.
fn is_closed(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::SessionClosed | ErrorKind::SessionIdle)
}

async fn listen(endpoint: Endpoint, stop: Stop, options: &Listen, terminal: &Terminal) -> Result<()> {
    let card = endpoint.identity().clone();
    let port = endpoint.config().transport.port;
    let listening = endpoint.listen(&card.onion_address, port).await?;
    let transport = endpoint.transport_name();
    terminal.note(&format!("{} listens on port {port} of its onion address, through {transport}.", card.identifier));
    let former = listening.former_state();
    let name = card.identifier.to_string();
    let service = told(name.clone(), Some(listening.state()), terminal);
    let former = told(format!("{name} at its former address"), former, terminal);
    tokio::select! {
        outcome = serve(listening, stop, options, terminal) => outcome,
        () = service => Ok(()),
        () = former => Ok(()),
    }
}

/// Tells of a service's states for ever.
async fn told(name: String, state: Option<watch::Receiver<ServiceState>>, terminal: &Terminal) {
    if let Some(mut state) = state {
        loop {
            show(&name, &mut state, terminal);
            if state.changed().await.is_err() {
                break;
            }
        }
    }
    std::future::pending().await
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
    let mut open: Vec<WeakSession> = Vec::new();
    loop {
        let session = tokio::select! {
            session = listening.accept() => session,
            Some(ended) = sessions.join_next() => {
                report(ended, terminal);
                continue;
            }
            stopped = &mut stop => {
                shut_down(open, sessions).await;
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
        let peer = session.peer();
        terminal.note(&format!("{} is here: {peer}.", peer.identifier));
        if stdio || options.once {
            // Nobody else is let in to wait for an answer that will not come.
            drop(listening);
            let known = session.downgrade();
            let serving =
                async { if stdio { first(session).await } else { each(session, command, *terminal).await.1 } };
            tokio::pin!(serving);
            return tokio::select! {
                outcome = &mut serving => outcome,
                stopped = stop => {
                    known.upgrade().iter().for_each(|session| session.end(Why::ShuttingDown));
                    // Half of what the peer says is not taken for all of it.
                    let cut = tokio::time::timeout(PARTING, serving).await;
                    stopped.and(cut.unwrap_or_else(|_| Err(interrupted("SIGTERM"))))
                }
            };
        }
        open.retain(|session| session.upgrade().is_some());
        open.push(session.downgrade());
        sessions.spawn(each(session, command.clone(), *terminal));
    }
}

/// Joins the session's first stream to stdin and stdout.
async fn first(session: Session) -> Result<()> {
    let stream = match session.accept().await {
        Ok(stream) => stream,
        // It wanted nothing.
        Err(error) if is_closed(&error) => return Ok(()),
        Err(error) => return Err(error),
    };
    // One is all that there is room for.
    session.drain(Why::Done);
    // Those that came before the peer knew would be waited for.
    let refusing = async {
        while let Ok(stream) = session.accept().await {
            stream.reset(Reset::Draining);
        }
        std::future::pending().await
    };
    let pumping = async { closed(&session, pump::stdio(stream).await).await };
    tokio::select! {
        outcome = pumping => outcome,
        () = refusing => Ok(()),
    }
}

/// Serves every stream of a session until it has ended.
async fn each(session: Session, command: Option<Arc<str>>, terminal: Terminal) -> (String, Result<()>) {
    let name = session.peer().identifier.to_string();
    let mut streams = JoinSet::new();
    let ended = loop {
        tokio::select! {
            accepted = session.accept() => match accepted {
                Ok(stream) => drop(streams.spawn(one(stream, command.clone(), terminal))),
                Err(error) => break error,
            },
            Some(_) = streams.join_next() => {}
        }
    };
    // What they had received goes through.
    while streams.join_next().await.is_some() {}
    let outcome = if is_closed(&ended) { Ok(()) } else { Err(ended) };
    (name, closed(&session, outcome).await)
}

async fn one(stream: Stream, command: Option<Arc<str>>, terminal: Terminal) {
    let (name, service) = (stream.peer().identifier.to_string(), stream.service().to_string());
    let outcome = match command {
        Some(command) => pump::exec(stream, &command).await,
        None => pump::echo(stream).await,
    };
    match outcome {
        // The session's own end is told once.
        Err(error) if !is_of_session(&error) => {
            terminal.warn(&format!("The stream of {name} for {service} ended: {error} {}", error.hint()));
        }
        _ => {}
    }
}

/// What ended the stream has ended them all.
fn is_of_session(error: &Error) -> bool {
    error.kind().as_str().starts_with("session-") || error.kind() == ErrorKind::PeerSilent
}

/// Ends the sessions, with the peers' knowledge, and what runs for them.
async fn shut_down(open: Vec<WeakSession>, mut sessions: JoinSet<(String, Result<()>)>) {
    for session in open.iter().filter_map(WeakSession::upgrade) {
        session.end(Why::ShuttingDown);
    }
    let all = async { while sessions.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(PARTING, all).await;
    sessions.shutdown().await;
}

/// One session's end is not the listener's.
fn report(ended: std::result::Result<(String, Result<()>), tokio::task::JoinError>, terminal: &Terminal) {
    match ended {
        Ok((name, Ok(()))) => terminal.note(&format!("{name} has left.")),
        Ok((name, Err(error))) => terminal.warn(&format!("The session of {name} ended: {error} {}", error.hint())),
        Err(_) => terminal.warn("A session ended by a fault of this program. Please report this."),
    }
}
