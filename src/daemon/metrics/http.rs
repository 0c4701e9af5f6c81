//! The HTTP below it: one path, few connections, and no patience.

use super::super::listeners::{self, Listener, Socket};
use super::super::shared::Shared;
use super::page::page;
use crate::error::Result;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Connections at once; one more waits.
const CONNECTIONS: usize = 16;

/// Longest header of a request, in bytes. hyper takes no less.
const HEADER: usize = 8192;

/// How long a request's header may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a connection may last: whoever scrapes connects again.
const LIFE: Duration = Duration::from_secs(60);

/// After a connection could not be accepted.
const PAUSE: Duration = Duration::from_millis(200);

const OPENMETRICS: HeaderValue = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// Opens the socket that the configuration names, and serves it.
pub(in super::super) async fn start(shared: &Arc<Shared>, tasks: &mut JoinSet<()>) -> Result<()> {
    let config = shared.config();
    let Some(local) = &config.metrics.listen else { return Ok(()) };
    listeners::guard(local, config.metrics.unsafe_listen)?;
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    for listener in listeners::open(local)? {
        tasks.spawn(accept(Arc::clone(shared), listener, Arc::clone(&places)));
    }
    Ok(())
}

async fn accept(shared: Arc<Shared>, listener: Listener, places: Arc<Semaphore>) {
    // Ended with this task.
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let shared = Arc::clone(&shared);
        let accepted = match &listener.socket {
            Socket::Tcp(socket) => socket.accept().await.map(|(stream, _)| {
                connections.spawn(async move {
                    serve(shared, stream).await;
                    drop(place);
                })
            }),
            Socket::Unix(socket) => socket.accept().await.map(|(stream, _)| {
                connections.spawn(async move {
                    serve(shared, stream).await;
                    drop(place);
                })
            }),
            // The configuration has none.
            Socket::Datagrams(_) => return,
        };
        if let Err(error) = accepted {
            tracing::debug!(target: "claviger::daemon", "a scrape could not be accepted: {error}");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

async fn serve(shared: Arc<Shared>, stream: impl AsyncRead + AsyncWrite + Unpin) {
    let answer = service_fn(move |request: Request<Incoming>| {
        let response = respond(&shared, &request);
        async move { Ok::<_, Infallible>(response) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(HEADER).max_headers(32);
    // How it ended is the scraper's to tell.
    let _ = timeout(LIFE, http.serve_connection(TokioIo::new(stream), answer)).await;
}

fn respond(shared: &Shared, request: &Request<Incoming>) -> Response<http_body_util::Full<Bytes>> {
    let (status, kind, text) = match (request.uri().path(), request.method()) {
        ("/metrics", &Method::GET | &Method::HEAD) => (StatusCode::OK, OPENMETRICS, page(shared)),
        ("/metrics", _) => (StatusCode::METHOD_NOT_ALLOWED, PLAIN, String::new()),
        _ => (StatusCode::NOT_FOUND, PLAIN, "The numbers are at /metrics.\n".to_owned()),
    };
    let mut response = Response::new(http_body_util::Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
