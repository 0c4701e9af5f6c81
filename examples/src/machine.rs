//! What a program on Claviger begins with: it opens the store, the token and a transport; then it takes in streams or opens them.

use crate::{Call, Result};
use clap::{Parser, Subcommand};
use claviger::config::{Config, FILE_NAME};
use claviger::identity::{Identifier, ServiceName};
use claviger::session::{Reset, Session, Stream};
use claviger::store::Store;
use claviger::token::{Pin, PinEntry, PinError, PinPrompt, PinRequest, Settings, TokenHandle};
use claviger::{Endpoint, endpoint, transport};
use futures::stream;
use std::path::{Path, PathBuf};
use tokio::sync::mpsc;
use tokio::task::block_in_place;

/// Streams that may wait until somebody takes them in.
const WAITING: usize = 16;

/// The command line of each example.
#[derive(Debug, Parser)]
pub struct Arguments {
    /// The machine's store, as `claviger-ceremony init` has made it; claviger.toml is beside it
    #[arg(long, value_name = "DIR")]
    pub store: PathBuf,

    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What an example does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Listen, and serve every peer that opens the service
    Serve,
    /// Call a peer that serves
    Call {
        /// The peer's name in this machine's store
        peer: Identifier,
    },
}

/// Opens the machine whose store is in `dir`, with its configuration file if there is one.
///
/// # Errors
/// The store's, the token's, the transport's.
pub async fn open(dir: &Path) -> Result<Endpoint> {
    let file = dir.join(FILE_NAME);
    let config = if file.exists() { Config::load(&file)? } else { Config::default() };
    let mut store = Store::open(dir)?;
    let machine = store.machine()?;
    let settings = Settings::new(machine.card.identifier.as_str(), Nobody);
    let settings = Settings { config: config.token.clone(), ..settings };
    let token = block_in_place(|| TokenHandle::open(machine.locator(), machine.key(), settings))?;
    endpoint::unlock(&mut store, &token).await?;
    let transport = transport::open(&config, dir).await?;
    Ok(Endpoint::new(store, token, transport, config)?)
}

/// Nobody is there to be asked for a PIN: the token's locator says which file it is in, `…?pin-source=file:/run/secrets/pin`.
struct Nobody;

impl PinEntry for Nobody {
    fn pin(&mut self, _: &PinRequest<'_>) -> std::result::Result<Pin, PinError> {
        Err(PinError::pin_required(
            "This example asks nobody for a PIN.",
            "Name a file that holds it by `pin-source` in the token's locator.",
        ))
    }
}

impl PinPrompt for Nobody {}

/// Listens, and gives the streams that peers open for `service`, until the machine can listen no more. Whoever asks for anything else is told that it is not served.
///
/// # Errors
/// The transport's.
pub async fn calls(endpoint: &Endpoint, service: &str) -> Result<impl stream::Stream<Item = Call<Stream>> + use<>> {
    let service: ServiceName = service.parse()?;
    let (address, port) = (endpoint.identity().onion_address, endpoint.config().transport.port);
    let mut listening = endpoint.listen(&address, port).await?;
    let (sender, receiver) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        while let Some(session) = listening.accept().await {
            tokio::spawn(take_in(session, service.clone(), sender.clone()));
        }
    });
    Ok(stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver))))
}

/// Takes in the streams of one session until it ends.
async fn take_in(session: Session, service: ServiceName, sender: mpsc::Sender<Call<Stream>>) {
    let caller = session.peer().identifier.to_string();
    while let Ok(stream) = session.accept().await {
        if *stream.service() != service {
            stream.reset(Reset::NoSuchService);
        } else if sender.send(Call { caller: caller.clone(), stream }).await.is_err() {
            break;
        }
    }
}
