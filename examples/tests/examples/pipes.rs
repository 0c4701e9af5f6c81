//! Client and server of each example at the two ends of a pipe.

use claviger_examples::{Call, grpc, http, jsonrpc};
use futures::{StreamExt as _, stream};
use hyper::Version;
use jsonrpsee_core::client::{ClientT as _, SubscriptionClientT as _};
use jsonrpsee_core::rpc_params;
use std::time::Duration;
use tokio::io::{DuplexStream, duplex};
use tonic::Code;
use tonic_health::pb::health_check_response::ServingStatus;

/// The two ends: the client's, and the server's, called by the wallet. Smaller than what is sent, so that both ends must read while they write.
fn pipe() -> (DuplexStream, Call<DuplexStream>) {
    let (here, there) = duplex(4096);
    (here, Call { caller: "wallet".into(), stream: there })
}

/// No test waits for ever.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), what).await.expect("it hangs")
}

#[tokio::test]
async fn http_in_both_versions() {
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let (stream, call) = pipe();
        let serving = tokio::spawn(http::serve(call));
        let body = soon(http::request(stream, version, http::get("cosigner", "/status").unwrap())).await.unwrap();
        assert_eq!(body, format!("wallet asks for /status by {version:?}\n"));
        soon(serving).await.unwrap().unwrap();

        let (stream, call) = pipe();
        let serving = tokio::spawn(http::serve(call));
        let said: Vec<u8> = (0..1_000_000).map(|i| (i % 251) as u8).collect();
        let heard =
            soon(http::request(stream, version, http::post("cosigner", "/", said.clone()).unwrap())).await.unwrap();
        assert!(heard == said, "{version:?}: {} bytes came back", heard.len());
        soon(serving).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn grpc_knows_who_asks() {
    for (caller, outcome) in [("wallet", Ok(ServingStatus::Serving)), ("tower", Err(Code::PermissionDenied))] {
        let (stream, call) = pipe();
        let calls = stream::iter([Call { caller: caller.into(), ..call }]);
        let serving = tokio::spawn(grpc::serve(calls, |caller| caller == "wallet"));
        let channel = grpc::channel_on("cosigner", stream).unwrap();
        for _ in 0..3 {
            assert_eq!(soon(grpc::check(channel.clone())).await.map_err(|status| status.code()), outcome);
        }
        drop(channel);
        soon(serving).await.unwrap().unwrap();
    }
}

/// A channel outlives its stream: the call after the one that found it cut opens another.
#[tokio::test]
async fn a_grpc_channel_opens_another_stream() {
    let (sender, calls) = futures::channel::mpsc::unbounded();
    let serving = tokio::spawn(grpc::serve(calls, |_| true));
    let mut opened = 0;
    let channel = grpc::channel("cosigner", move || {
        opened += 1;
        let (stream, call) = pipe();
        if opened > 1 {
            sender.unbounded_send(call).unwrap();
        }
        async move { Ok(stream) }
    });
    let channel = channel.unwrap();
    assert!(soon(grpc::check(channel.clone())).await.is_err());
    assert_eq!(soon(grpc::check(channel)).await.unwrap(), ServingStatus::Serving);
    soon(serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn json_rpc() {
    let (stream, call) = pipe();
    let serving = tokio::spawn(jsonrpc::serve(call));
    let client = soon(jsonrpc::client("cosigner", stream)).await.unwrap();
    assert_eq!(soon(client.request::<String, _>("caller", rpc_params![])).await.unwrap(), "wallet");
    assert_eq!(soon(client.request::<i64, _>("add", rpc_params![40, 2])).await.unwrap(), 42);
    assert!(soon(client.request::<i64, _>("subtract", rpc_params![40, 2])).await.is_err());
    let counted = client.subscribe::<u32, _>("count", rpc_params![1000], "uncount");
    let counted: Vec<u32> = soon(soon(counted).await.unwrap().take(1000).map(Result::unwrap).collect()).await;
    assert!(counted.into_iter().eq(1..=1000));
    drop(client);
    soon(serving).await.unwrap().unwrap();
}
