//! Without the feature `postgres-tls`.

use tokio_postgres::NoTls;

use crate::error::{Error, ErrorKind, Result};

pub(super) fn connector() -> Result<NoTls> {
    let text = "sslmode=require needs the feature `postgres-tls`, which is not compiled in";
    Err(Error::new(ErrorKind::Unsupported, text))
}
