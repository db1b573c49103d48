//! What stands in the place of Redis where it is not compiled in.

use std::sync::Arc;

use super::Backend;
use super::url::LockUrl;
use crate::error::{Error, ErrorKind, Result};

pub(super) async fn connect(url: &LockUrl) -> Result<Arc<dyn Backend>> {
    let scheme = url.scheme();
    let text = format!("locks behind {scheme}: need the feature `redis`, which is not compiled in");
    Err(Error::new(ErrorKind::Unsupported, text))
}
