//! Finds the connector for the scheme of a URL.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Connector, file, memory};
use crate::error::{Error, ErrorKind, Result};
use crate::sys::fork::Inherited;

type Connectors = BTreeMap<String, Arc<Connector>>;

/// The schemes that the program has registered.
static REGISTERED: Inherited<Connectors> = Inherited::new();

fn registered(scheme: &str) -> Option<&'static Arc<Connector>> {
    REGISTERED.get()?.get(scheme)
}

/// Returns the connector of a scheme of this crate, or `None` for an unknown scheme.
fn built_in(scheme: &str) -> Option<Result<Arc<Connector>>> {
    match scheme {
        "file" => Some(Ok(Arc::new(file::connect))),
        "mem" => Some(Ok(Arc::new(memory::connect))),
        "redis" | "redis+sentinel" | "redis+unix" => Some(redis("redis", scheme)),
        "rediss" => Some(redis("redis-tls", scheme)),
        "postgres" | "postgresql" => Some(postgres("postgres", scheme)),
        _ => None,
    }
}

#[cfg(feature = "redis")]
fn redis(_: &str, _: &str) -> Result<Arc<Connector>> {
    Ok(Arc::new(super::redis::connect))
}

#[cfg(feature = "postgres")]
fn postgres(_: &str, _: &str) -> Result<Arc<Connector>> {
    Ok(Arc::new(super::postgres::connect))
}

#[cfg(not(feature = "redis"))]
fn redis(feature: &str, scheme: &str) -> Result<Arc<Connector>> {
    lacks(feature, scheme)
}

#[cfg(not(feature = "postgres"))]
fn postgres(feature: &str, scheme: &str) -> Result<Arc<Connector>> {
    lacks(feature, scheme)
}

#[cfg(not(all(feature = "postgres", feature = "redis")))]
fn lacks(feature: &str, scheme: &str) -> Result<Arc<Connector>> {
    let text = format!("{scheme}: URLs need the feature `{feature}`, which is not compiled in");
    Err(Error::new(ErrorKind::Unsupported, text))
}

pub(super) fn is_known(scheme: &str) -> bool {
    built_in(scheme).is_some() || registered(scheme).is_some()
}

/// Returns the connector of a scheme.
pub(super) fn connector(scheme: &str) -> Result<Arc<Connector>> {
    let found = built_in(scheme).or_else(|| registered(scheme).cloned().map(Ok));
    found.unwrap_or_else(|| unknown(scheme))
}

/// Returns the error for an unknown scheme.
pub(super) fn unknown<T>(scheme: &str) -> Result<T> {
    let mut known = vec![
        "file:",
        "mem:",
        "postgres:",
        "postgresql:",
        "redis:",
        "rediss:",
        "redis+sentinel:",
        "redis+unix:",
    ];
    let registered = REGISTERED.get().into_iter().flat_map(BTreeMap::keys);
    let others: Vec<_> = registered.map(|it| format!("{it}:")).collect();
    known.extend(others.iter().map(String::as_str));
    let text = format!(
        "unknown scheme {scheme}: the known schemes are {}",
        known.join(", ")
    );
    Err(Error::new(ErrorKind::Unsupported, text))
}

pub(super) fn register(scheme: &str, connector: Arc<Connector>) -> Result<()> {
    let refused = |why: &str| {
        let text = format!("cannot register the scheme {scheme:?}: {why}");
        Err(Error::new(ErrorKind::InvalidInput, text))
    };
    let fits = |it: char| it.is_ascii_lowercase() || it.is_ascii_digit() || "+-.".contains(it);
    if !scheme.starts_with(|it: char| it.is_ascii_lowercase()) || !scheme.chars().all(fits) {
        return refused(
            "it takes a lower-case letter, then lower-case letters, digits, +, - and .",
        );
    }
    if is_known(scheme) {
        return refused("it is known already");
    }
    let mut known = false;
    REGISTERED.update(|registered| {
        let mut registered = registered.cloned().unwrap_or_default();
        // Another thread may have registered it in the meantime.
        known = registered.contains_key(scheme);
        registered.insert(scheme.to_owned(), connector.clone());
        (!known).then_some(registered)
    });
    match known {
        true => refused("it is known already"),
        false => Ok(()),
    }
}
