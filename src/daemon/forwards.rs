//! Local sockets whose connections are streams to peers' services.

use super::shared::Shared;
use crate::error::Result;
use std::sync::Arc;
use tokio::task::JoinSet;

/// What was counted, by forward.
#[derive(Default)]
pub(super) struct Books;

/// Opens the sockets.
pub(super) async fn start(_shared: &Arc<Shared>, _tasks: &mut JoinSet<()>) -> Result<()> {
    Ok(())
}
