//! What peers open streams to.

use super::shared::Shared;
use crate::session::{Reset, Session};
use std::sync::Arc;

/// What was counted, by service.
#[derive(Default)]
pub(super) struct Books;

/// Serves the streams of a session until it has ended.
pub(super) async fn serve(shared: Arc<Shared>, session: Session) {
    while let Ok(stream) = session.accept().await {
        let peer = stream.peer();
        let verdict = shared.policy().verdict(&peer.identifier, &peer.role, stream.service());
        stream.reset(if verdict.is_allowed() { Reset::NoSuchService } else { Reset::NotAllowed });
    }
}
