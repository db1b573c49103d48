//! Locks by name in a Postgres database.

use futures::future::BoxFuture;

use super::{LockUrl, Locks};
use crate::backend::{Engine, Settings};
use crate::error::Result;
use crate::postgres::{DRIVER, PgClient};

pub(super) fn connect(
    url: &LockUrl,
    settings: &mut Settings,
) -> Result<BoxFuture<'static, Result<Box<dyn Engine>>>> {
    let options = PgClient::options().apply(settings)?;
    let query = settings.take_query(&DRIVER);
    let whole = format!("{}{query}", url.with_password());
    Ok(Box::pin(async move {
        let client = options.connect(whole).await?;
        Ok(Box::new(client) as Box<dyn Engine>)
    }))
}

impl From<PgClient> for Locks {
    fn from(client: PgClient) -> Self {
        Self::with_engine(client)
    }
}
