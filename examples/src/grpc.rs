//! gRPC, by tonic, with the ready-made service `grpc.health.v1.Health` of tonic-health in place of one's own.

use crate::{Call, Error, Io, PATIENCE, Result};
use futures::{Stream, StreamExt as _};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::sync::Arc;
use tokio::sync::Mutex;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::server::{Connected, Server};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::server::health_reporter;

/// The name of the service.
pub const SERVICE: &str = "grpc";

/// Who has opened the stream that a request came on. Handlers and interceptors find it among the request's extensions.
#[derive(Debug, Clone)]
pub struct Caller(pub String);

impl<S> Connected for Call<S> {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        Caller(self.caller.clone())
    }
}

/// Serves gRPC on every stream that comes, many requests on each, until there come no more. Peers that `may` refuses get PERMISSION_DENIED.
///
/// # Errors
/// tonic's.
pub async fn serve<S: Io>(
    calls: impl Stream<Item = Call<S>>,
    may: impl Fn(&str) -> bool + Clone + Send + Sync + 'static,
) -> Result {
    let (_reporter, health) = health_reporter();
    let checked = InterceptedService::new(health, move |request: Request<()>| {
        let caller = request.extensions().get::<Caller>().filter(|caller| may(&caller.0));
        caller.map(|_| ()).ok_or_else(|| Status::permission_denied("this peer may not ask"))?;
        Ok(request)
    });
    Server::builder().serve_with_incoming(checked, calls.map(Ok::<_, Infallible>)).await?;
    Ok(())
}

/// A channel to `peer` that opens its stream by `open`, at the first call and again whenever the stream has ended.
///
/// # Errors
/// `peer` is no name.
pub fn channel<S: Io, F>(peer: &str, open: impl FnMut() -> F + Send + 'static) -> Result<Channel>
where
    F: Future<Output = Result<S>> + Send + 'static,
{
    let mut open = open;
    let connector = tower::service_fn(move |_| {
        let opening = open();
        async move { opening.await.map(TokioIo::new) }
    });
    // The peer's name stands where HTTP/2 wants an authority, and means nothing else.
    let endpoint = Endpoint::from_shared(format!("http://{peer}"))?.timeout(PATIENCE);
    Ok(endpoint.connect_with_connector_lazy(connector))
}

/// The same for one stream that is there: when it ends, so does the channel.
///
/// # Errors
/// `peer` is no name.
pub fn channel_on<S: Io>(peer: &str, stream: S) -> Result<Channel> {
    let stream = Arc::new(Mutex::new(Some(stream)));
    channel(peer, move || {
        let stream = Arc::clone(&stream);
        async move { stream.lock().await.take().ok_or_else(|| Error::from("the stream has ended")) }
    })
}

/// Asks how the peer's server does.
///
/// # Errors
/// The peer's status, as tonic has it.
pub async fn check(channel: Channel) -> std::result::Result<ServingStatus, Status> {
    let request = HealthCheckRequest { service: String::new() };
    let answer = HealthClient::new(channel).check(request).await?;
    Ok(answer.into_inner().status())
}
