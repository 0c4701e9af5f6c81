//! Numbers for Prometheus.

use super::shared::Shared;
use crate::error::Result;
use std::sync::Arc;
use tokio::task::JoinSet;

pub(super) async fn start(_shared: &Arc<Shared>, _tasks: &mut JoinSet<()>) -> Result<()> {
    Ok(())
}
