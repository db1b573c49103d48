//! Without the feature `postgres-tls`.

use tokio_postgres::NoTls;

use crate::error::{Error, ErrorKind, Result};

pub(super) fn strict() -> Result<NoTls> {
    let text = "sslmode=require, verify-ca and verify-full need the feature `postgres-tls`, which is not compiled in";
    Err(Error::new(ErrorKind::Unsupported, text))
}

pub(super) fn lenient() -> Result<NoTls> {
    Ok(NoTls)
}
