//! The service manager: readiness, watchdog, sockets that it opened.

use super::shared::Shared;
use std::sync::Arc;
use tokio::task::JoinSet;

/// Tells that the daemon works, and that it goes on working.
pub(super) fn start(_shared: &Arc<Shared>, _tasks: &mut JoinSet<()>) {}

/// Tells that it ends.
pub(super) fn stopping() {}
