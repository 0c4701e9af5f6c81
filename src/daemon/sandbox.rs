//! What the daemon gives up once it has started.
