//! HTTP/1.1 and HTTP/2, by hyper.
//!
//! One stream is one connection: HTTP/1.1 keeps it for request after request, HTTP/2 carries many requests on it at once. HTTP/2 multiplexes, and so
//! does a session; a stream for each HTTP/1.1 connection does as well, and shares no flow control between requests.

use crate::{Call, Io, PATIENCE, Result};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode, Version, client, service};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use std::convert::Infallible;

/// The name of the service.
pub const SERVICE: &str = "http";

/// Largest answer that [`request`] takes, in bytes.
pub const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// Answers a peer's requests, in the version that it speaks, until it ends the stream.
///
/// # Errors
/// hyper's: the stream was cut, or what came is not HTTP.
pub async fn serve(call: Call<impl Io>) -> Result {
    let Call { caller, stream } = call;
    let answer = service::service_fn(move |request| {
        let answer = answer(&caller, request);
        async { Ok::<_, Infallible>(answer) }
    });
    auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), answer).await
}

/// A `GET` is told who asks for what; a `POST` gets its own body back, as it comes.
fn answer(caller: &str, request: Request<Incoming>) -> Response<BoxBody<Bytes, hyper::Error>> {
    let text = |text: String| Full::from(text).map_err(|never| match never {}).boxed();
    match *request.method() {
        Method::GET => {
            Response::new(text(format!("{caller} asks for {} by {:?}\n", request.uri().path(), request.version())))
        }
        Method::POST => Response::new(request.into_body().boxed()),
        _ => {
            let mut refused = Response::new(text(String::new()));
            *refused.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
            refused
        }
    }
}

/// Sends one request on a stream of its own and returns the answer's body. `version` is HTTP/1.1 or HTTP/2.
///
/// # Errors
/// hyper's, another status than 200, more than [`MAX_ANSWER`] bytes, or no answer within [`PATIENCE`].
pub async fn request(stream: impl Io, version: Version, request: Request<Full<Bytes>>) -> Result<Bytes> {
    let stream = TokioIo::new(stream);
    let asking = async {
        // The connection does its work, and ends its stream when nobody will ask any more, in a task of its own.
        let answer = if version == Version::HTTP_2 {
            let (mut sender, connection) = client::conn::http2::handshake(TokioExecutor::new(), stream).await?;
            tokio::spawn(connection);
            sender.send_request(request).await?
        } else {
            let (mut sender, connection) = client::conn::http1::handshake(stream).await?;
            tokio::spawn(connection);
            sender.send_request(request).await?
        };
        if answer.status() != StatusCode::OK {
            return Err(format!("the peer answers {}", answer.status()).into());
        }
        Ok(Limited::new(answer.into_body(), MAX_ANSWER).collect().await?.to_bytes())
    };
    tokio::time::timeout(PATIENCE, asking).await?
}

/// A `GET`. HTTP wants a host: it is the peer's name, and means nothing else; HTTP/2 wants a scheme, too.
///
/// # Errors
/// `path` is none.
pub fn get(peer: &str, path: &str) -> Result<Request<Full<Bytes>>> {
    Ok(Request::get(format!("http://{peer}{path}")).header("host", peer).body(Full::default())?)
}

/// A `POST`.
///
/// # Errors
/// `path` is none.
pub fn post(peer: &str, path: &str, body: impl Into<Bytes>) -> Result<Request<Full<Bytes>>> {
    Ok(Request::post(format!("http://{peer}{path}")).header("host", peer).body(Full::new(body.into()))?)
}
