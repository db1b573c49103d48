//! Async-first fair locks for Tokio.
