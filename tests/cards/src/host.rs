//! The device that an applet of the Nitrokey 3 runs on: Trussed, with a store, a finger and the operating system's random numbers.
//!
//! Trussed's own runner for tests hands each request to another thread and polls for it; here a request is a function call. Each
//! power cycle is a new device over the same store, as the applets have no other way to forget everything.

use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::Scope;
use std::time::{Duration, Instant};

use heapless::VecView;
use iso7816::command::CommandView;
use rand_core::OsRng;
use trussed::ClientImplementation;
use trussed::backend::BackendId;
use trussed::pipe::{ServiceEndpoint, TrussedChannel};
use trussed::platform::{Platform, Syscall, UserInterface};
use trussed::serde_extensions::{ExtensionDispatch, ExtensionId, ExtensionImpl};
use trussed::service::{Service, ServiceResources};
use trussed::types::{Context, CoreContext};
use trussed::virt::{StorageConfig, Store, StoreConfig};
use trussed_auth::AuthExtension;
use trussed_auth_backend::{AuthBackend, AuthContext, FilesystemLayout};
use trussed_chunked::ChunkedExtension;
use trussed_core::Error;
use trussed_core::api::{reply, request};
use trussed_core::types::consent::Level;
use trussed_core::types::{Location, PathBuf};
use trussed_hpke::HpkeExtension;
use trussed_staging::{StagingBackend, StagingContext};
use trussed_wrap_key_to_file::WrapKeyToFileExtension;

use crate::apdu::{Applet, CONDITIONS, Command, Status, WRONG_LENGTH};
use crate::control::{Control, Touch};

/// The Nitrokey 3's answer to reset.
pub const ATR: [u8; 19] = *b"\x3B\x8F\x01\x80\x5DNitrokey\x00\x00\x00\x00\x00\x6A";

/// The longest answer of an applet, in bytes.
const MAX_ANSWER: usize = 7609;

/// What an applet calls.
pub type Client<'a> = ClientImplementation<'a, Direct<'a>, Dispatcher>;

/// An applet's entry point: a command, and where its answer goes.
pub type Handle<'a> = Box<dyn FnMut(CommandView<'_>, &mut VecView<u8>) -> Result<(), iso7816::Status> + 'a>;

/// A card that is a thread with a device and an applet in it.
pub struct Hosted {
    orders: Sender<Order>,
    answers: Receiver<Result<Vec<u8>, Status>>,
    private: fn(&Command, &[u8]) -> bool,
}

enum Order {
    Reset,
    Execute(Command),
}

/// What makes a device.
pub struct Device<'c> {
    /// The applet's name in the store.
    pub id: &'static str,
    /// Whose finger touches it.
    pub control: &'c Control,
    /// How long it waits for a touch, whatever the applet asks for.
    pub touch_timeout: Duration,
    /// What counts as an operation with a private key; see [`Applet::used_private_key`].
    pub private: fn(&Command, &[u8]) -> bool,
}

impl Hosted {
    /// Powers the device up, with its store in `directory` or else in memory. `applet` makes the applet anew after each reset.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn start<'s>(
        scope: &'s Scope<'s, '_>,
        device: Device<'s>,
        directory: Option<&Path>,
        applet: impl for<'a> Fn(Client<'a>) -> Handle<'a> + Send + 's,
    ) -> std::io::Result<Self> {
        if let Some(directory) = directory {
            std::fs::create_dir_all(directory)?;
        }
        let paths = directory.map(|directory| [directory.join("internal"), directory.join("external")]);
        let (orders, to_execute) = channel();
        let (done, answers) = channel();
        let private = device.private;
        scope.spawn(move || {
            let [internal, external] = match paths {
                Some(paths) => paths.map(StorageConfig::filesystem),
                None => [StorageConfig::ram(), StorageConfig::ram()],
            };
            let mut config = StoreConfig { internal, external, volatile: StorageConfig::ram() };
            while config.with_store(|store| power_cycle(&device, store, &applet, &to_execute, &done)) {
                // Formatted once; only RAM starts empty.
                config.internal.format = false;
                config.external.format = false;
                config.volatile = StorageConfig::ram();
            }
        });
        Ok(Self { orders, answers, private })
    }
}

impl Applet for Hosted {
    fn reset(&mut self) {
        // A thread that has ended says so at the next command.
        let _ = self.orders.send(Order::Reset);
    }

    fn execute(&mut self, command: &Command) -> Result<Vec<u8>, Status> {
        self.orders.send(Order::Execute(command.clone())).map_err(|_| CONDITIONS)?;
        self.answers.recv().map_err(|_| CONDITIONS)?
    }

    fn used_private_key(&self, command: &Command, answer: &[u8]) -> bool {
        (self.private)(command, answer)
    }
}

/// Runs the applet until a reset (true) or the end of the program (false).
fn power_cycle(
    device: &Device<'_>,
    store: Store<'_>,
    applet: &impl for<'a> Fn(Client<'a>) -> Handle<'a>,
    orders: &Receiver<Order>,
    done: &Sender<Result<Vec<u8>, Status>>,
) -> bool {
    let finger = Finger {
        control: device.control,
        timeout: device.touch_timeout,
        start: Instant::now(),
        skipped: Duration::ZERO,
    };
    let hardware = Hardware { rng: OsRng, store, finger };
    let channel = TrussedChannel::new();
    let (Some((requester, responder)), Ok(id)) = (channel.split(), PathBuf::try_from(device.id)) else {
        return false;
    };
    let endpoint = ServiceEndpoint::new(responder, CoreContext::new(id), BACKENDS);
    let direct = Direct { service: Service::with_dispatch(hardware, Dispatcher::default()), endpoint };
    let mut handle = applet(Client::new(requester, direct, None));
    loop {
        match orders.recv() {
            Ok(Order::Reset) => return true,
            Ok(Order::Execute(command)) => {
                if done.send(call(&mut handle, &command)).is_err() {
                    return false;
                }
            }
            Err(_) => return false,
        }
    }
}

fn call(handle: &mut Handle<'_>, command: &Command) -> Result<Vec<u8>, Status> {
    // As one APDU of extended length, which is how the applets take a whole command.
    let [high, low] = u16::try_from(command.data.len()).map_err(|_| WRONG_LENGTH)?.to_be_bytes();
    let mut apdu = vec![0, command.ins, command.p1, command.p2, 0];
    if !command.data.is_empty() {
        apdu.extend([high, low]);
        apdu.extend(&command.data);
    }
    apdu.extend([0, 0]);
    let view = CommandView::try_from(&apdu[..]).map_err(|_| WRONG_LENGTH)?;
    let mut answer = heapless::Vec::<u8, MAX_ANSWER>::new();
    handle(view, &mut answer).map_err(|status| u16::from_be_bytes(status.into()))?;
    Ok(answer.to_vec())
}

/// A device's hardware.
pub struct Hardware<'a> {
    rng: OsRng,
    store: Store<'a>,
    finger: Finger<'a>,
}

impl<'a> Platform for Hardware<'a> {
    type R = OsRng;
    type S = Store<'a>;
    type UI = Finger<'a>;

    fn rng(&mut self) -> &mut OsRng {
        &mut self.rng
    }

    fn store(&self) -> Store<'a> {
        self.store
    }

    fn user_interface(&mut self) -> &mut Finger<'a> {
        &mut self.finger
    }
}

/// Trussed asks again and again until its clock says that time is up. Here one question waits for the finger, and when that does
/// not come, the clock jumps.
pub struct Finger<'a> {
    control: &'a Control,
    timeout: Duration,
    start: Instant,
    skipped: Duration,
}

impl UserInterface for Finger<'_> {
    fn check_user_presence(&mut self) -> Level {
        match self.control.touch(self.timeout) {
            Touch::Touched => Level::Normal,
            Touch::NotTouched | Touch::Pulled => {
                self.skipped += Duration::from_secs(3600);
                Level::None
            }
        }
    }

    fn uptime(&mut self) -> Duration {
        self.start.elapsed() + self.skipped
    }
}

/// A request to Trussed is a function call.
pub struct Direct<'a> {
    service: Service<Hardware<'a>, Dispatcher>,
    endpoint: ServiceEndpoint<'a, Backend, (AuthContext, StagingContext)>,
}

impl Syscall for Direct<'_> {
    fn syscall(&mut self) {
        self.service.process(std::slice::from_mut(&mut self.endpoint));
    }
}

/// What the applets use besides Trussed's core.
pub enum Backend {
    /// PINs.
    Auth,
    /// Long files, wrapped keys.
    Staging,
}

const BACKENDS: &[BackendId<Backend>] =
    &[BackendId::Custom(Backend::Auth), BackendId::Custom(Backend::Staging), BackendId::Core];

/// Sends the requests of Trussed's extensions to those who serve them.
pub struct Dispatcher {
    auth: AuthBackend,
    staging: StagingBackend,
}

impl Default for Dispatcher {
    fn default() -> Self {
        Self { auth: AuthBackend::new(Location::Internal, FilesystemLayout::V1), staging: StagingBackend::new() }
    }
}

/// The extensions, by the numbers that requests carry.
#[derive(Clone, Copy)]
pub enum Extension {
    /// PINs.
    Auth,
    /// Files longer than a message.
    Chunked,
    /// Hybrid public key encryption, for wrapped keys.
    Hpke,
    /// Keys in files.
    WrapKeyToFile,
}

impl From<Extension> for u8 {
    fn from(extension: Extension) -> Self {
        extension as Self
    }
}

impl TryFrom<u8> for Extension {
    type Error = Error;

    fn try_from(number: u8) -> Result<Self, Error> {
        let all = [Self::Auth, Self::Chunked, Self::Hpke, Self::WrapKeyToFile];
        all.get(usize::from(number)).copied().ok_or(Error::FunctionNotSupported)
    }
}

impl ExtensionId<AuthExtension> for Dispatcher {
    type Id = Extension;
    const ID: Extension = Extension::Auth;
}

impl ExtensionId<ChunkedExtension> for Dispatcher {
    type Id = Extension;
    const ID: Extension = Extension::Chunked;
}

impl ExtensionId<HpkeExtension> for Dispatcher {
    type Id = Extension;
    const ID: Extension = Extension::Hpke;
}

impl ExtensionId<WrapKeyToFileExtension> for Dispatcher {
    type Id = Extension;
    const ID: Extension = Extension::WrapKeyToFile;
}

impl ExtensionDispatch for Dispatcher {
    type BackendId = Backend;
    type Context = (AuthContext, StagingContext);
    type ExtensionId = Extension;

    fn extension_request<P: Platform>(
        &mut self,
        backend: &Backend,
        extension: &Extension,
        context: &mut Context<Self::Context>,
        request: &request::SerdeExtension,
        resources: &mut ServiceResources<P>,
    ) -> Result<reply::SerdeExtension, Error> {
        let (core, (pins, files)) = (&mut context.core, &mut context.backends);
        match (backend, extension) {
            (Backend::Auth, Extension::Auth) => self.auth.extension_request_serialized(core, pins, request, resources),
            (Backend::Staging, Extension::Chunked) => ExtensionImpl::<ChunkedExtension>::extension_request_serialized(
                &mut self.staging,
                core,
                files,
                request,
                resources,
            ),
            (Backend::Staging, Extension::Hpke) => ExtensionImpl::<HpkeExtension>::extension_request_serialized(
                &mut self.staging,
                core,
                files,
                request,
                resources,
            ),
            (Backend::Staging, Extension::WrapKeyToFile) => {
                ExtensionImpl::<WrapKeyToFileExtension>::extension_request_serialized(
                    &mut self.staging,
                    core,
                    files,
                    request,
                    resources,
                )
            }
            _ => Err(Error::RequestNotAvailable),
        }
    }
}
