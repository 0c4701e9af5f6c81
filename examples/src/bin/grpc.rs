//! gRPC between two machines. `grpc --store DIR serve`, and on the other machine `grpc --store DIR call PEER`.

#![allow(clippy::print_stdout, reason = "what an example has to say")]

use clap::Parser as _;
use claviger::identity::ServiceName;
use claviger_examples::machine::{Arguments, Command};
use claviger_examples::{Result, grpc, machine};

#[tokio::main]
async fn main() -> Result {
    let Arguments { store, command } = Arguments::parse();
    let endpoint = machine::open(&store).await?;
    match command {
        Command::Serve => {
            let calls = machine::calls(&endpoint, grpc::SERVICE).await?;
            println!("serving {}", grpc::SERVICE);
            grpc::serve(calls, |_caller| true).await?;
        }
        Command::Call { peer } => {
            let session = endpoint.connect_peer(&peer, None).await?;
            let (opener, service) = (session.clone(), grpc::SERVICE.parse::<ServiceName>()?);
            let channel = grpc::channel(peer.as_str(), move || {
                let (session, service) = (opener.clone(), service.clone());
                async move { Ok(session.open(&service).await?) }
            })?;
            println!("{peer} is {}", grpc::check(channel).await?.as_str_name());
            session.close().await?;
        }
    }
    Ok(())
}
