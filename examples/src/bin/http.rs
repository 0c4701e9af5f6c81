//! HTTP between two machines. `http --store DIR serve`, and on the other machine `http --store DIR call PEER`.

#![allow(clippy::print_stdout, reason = "what an example has to say")]

use clap::Parser as _;
use claviger_examples::machine::{Arguments, Command};
use claviger_examples::{Result, http, machine};
use futures::StreamExt as _;
use hyper::Version;
use std::pin::pin;

#[tokio::main]
async fn main() -> Result {
    let Arguments { store, command } = Arguments::parse();
    let endpoint = machine::open(&store).await?;
    match command {
        Command::Serve => {
            let mut calls = pin!(machine::calls(&endpoint, http::SERVICE).await?);
            println!("serving {}", http::SERVICE);
            while let Some(call) = calls.next().await {
                tokio::spawn(http::serve(call));
            }
        }
        Command::Call { peer } => {
            let session = endpoint.connect_peer(&peer, None).await?;
            for version in [Version::HTTP_11, Version::HTTP_2] {
                let stream = session.open(&http::SERVICE.parse()?).await?;
                let answer = http::request(stream, version, http::get(peer.as_str(), "/status")?).await?;
                print!("{}", String::from_utf8_lossy(&answer));
            }
            session.close().await?;
        }
    }
    Ok(())
}
