//! Replaces locks on a Redis server if that feature is not compiled in.

use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::locks::{Backend, LockUrl};

pub(crate) async fn connect(url: &LockUrl, _: &str, _: Option<String>) -> Result<Arc<dyn Backend>> {
    let scheme = url.scheme();
    let feature = match scheme {
        "rediss" => "redis-tls",
        _ => "redis",
    };
    let text =
        format!("locks behind {scheme}: need the feature `{feature}`, which is not compiled in");
    Err(Error::new(ErrorKind::Unsupported, text))
}
