//! JSON-RPC 2.0, by jsonrpsee.
//!
//! jsonrpsee speaks JSON-RPC over HTTP and over WebSocket, and over neither it has no server: what runs on the stream is a WebSocket, opened by an
//! HTTP/1.1 request. Both of its entry points take any pipe: `jsonrpsee_server::serve` and `WsClientBuilder::build_with_stream`.

use crate::{Call, Io, Result};
use jsonrpsee_core::client::Client;
use jsonrpsee_server::{RpcModule, Server, stop_channel};
use jsonrpsee_ws_client::WsClientBuilder;

/// The name of the service.
pub const SERVICE: &str = "jsonrpc";

/// Answers a peer's calls until it ends the stream: `caller` (who it is), `add` (the sum of two numbers), and the subscription `count`, which counts to a number.
///
/// # Errors
/// jsonrpsee's: the stream was cut, or what came is no WebSocket.
pub async fn serve(call: Call<impl Io>) -> Result {
    let (stop, server) = stop_channel();
    let service = Server::builder().to_service_builder().build(methods(call.caller)?, stop);
    jsonrpsee_server::serve(call.stream, service).await?;
    // The request for a WebSocket has been answered; the WebSocket is served by a task of its own, and has ended when nobody could be told to stop any more.
    server.stopped().await;
    Ok(())
}

fn methods(caller: String) -> Result<RpcModule<String>> {
    let mut module = RpcModule::new(caller);
    module.register_method("caller", |_, caller, _| caller.clone())?;
    module.register_method("add", |params, _, _| {
        let (a, b): (i64, i64) = params.parse()?;
        Ok::<_, jsonrpsee_server::types::ErrorObjectOwned>(a.saturating_add(b))
    })?;
    module.register_subscription("count", "counted", "uncount", async |params, pending, _, _| {
        let to: u32 = params.one()?;
        let sink = pending.accept().await?;
        for n in 1..=to {
            let message = serde_json::value::to_raw_value(&n)?;
            sink.send(message).await?;
        }
        Ok(())
    })?;
    Ok(module)
}

/// A client on a stream. When it is dropped the stream ends.
///
/// # Errors
/// jsonrpsee's: the peer does not speak WebSocket.
pub async fn client(peer: &str, stream: impl Io) -> Result<Client> {
    // The peer's name stands where HTTP wants a host, and means nothing else.
    Ok(WsClientBuilder::new().build_with_stream(format!("ws://{peer}/"), stream).await?)
}
