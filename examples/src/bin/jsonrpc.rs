//! JSON-RPC between two machines. `jsonrpc --store DIR serve`, and on the other machine `jsonrpc --store DIR call PEER`.

#![allow(clippy::print_stdout, reason = "what an example has to say")]

use clap::Parser as _;
use claviger_examples::machine::{Arguments, Command};
use claviger_examples::{Result, jsonrpc, machine};
use futures::StreamExt as _;
use jsonrpsee_core::client::{ClientT as _, SubscriptionClientT as _};
use jsonrpsee_core::rpc_params;
use std::pin::pin;

#[tokio::main]
async fn main() -> Result {
    let Arguments { store, command } = Arguments::parse();
    let endpoint = machine::open(&store).await?;
    match command {
        Command::Serve => {
            let mut calls = pin!(machine::calls(&endpoint, jsonrpc::SERVICE).await?);
            println!("serving {}", jsonrpc::SERVICE);
            while let Some(call) = calls.next().await {
                tokio::spawn(jsonrpc::serve(call));
            }
        }
        Command::Call { peer } => {
            let session = endpoint.connect_peer(&peer, None).await?;
            let client = jsonrpc::client(peer.as_str(), session.open(&jsonrpc::SERVICE.parse()?).await?).await?;
            let caller: String = client.request("caller", rpc_params![]).await?;
            let sum: i64 = client.request("add", rpc_params![40, 2]).await?;
            println!("{peer} knows this machine as {caller}, and adds 40 and 2 to {sum}");
            let counted = client.subscribe::<u32, _>("count", rpc_params![3], "uncount").await?;
            let mut counted = counted.take(3);
            while let Some(n) = counted.next().await {
                println!("{}", n?);
            }
            drop(client);
            session.close().await?;
        }
    }
    Ok(())
}
