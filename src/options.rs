//! How options are declared: a setter for each field of a configuration, and the checks that all
//! backends share.

use std::path::Path;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};

mod settings;

pub(crate) use settings::{Bits, NEVER};
pub use settings::{Setting, Settings};

/// How long a lock that was granted waits for its future to be polled, unless the options say
/// otherwise.
pub(crate) const CLAIM_WINDOW: Duration = Duration::from_secs(2);

/// A setter for each of these fields of `self.config`, named as they are. The word tells what it
/// takes:
///
/// | word | argument | field |
/// |---|---|---|
/// | `plain T` | `T` | `T` |
/// | `some T` | `T` | `Option<T>` |
/// | `text` | anything that becomes a `String` | `Option<String>` |
/// | `word` | anything that becomes a `String` | `String` |
/// | `limit` | `Duration` or `Option<Duration>` | `Option<Duration>` |
/// | `pause` | `Duration`, or `None` for never | `Duration` |
/// | `interval` | `Duration`, or `None` for never | `Option<Duration>`, in which `None` is the default of the method |
/// | `bits` | `u32` | `Option<u32>`, in a URL in octal |
///
/// `Config, in a URL: …` also makes `apply`, which sets the fields from the options of a URL.
macro_rules! setters {
    ($config:ident, in a URL: $($name:ident $kind:ident $($type:ty)?;)*) => {
        $crate::options::setters! { $config: $($name $kind $($type)?;)* }

        /// The names of the options of a URL.
        #[allow(dead_code)] // Only some backends read URLs themselves.
        pub(crate) const NAMES: &[&str] = &[$(stringify!($name)),*];

        /// Sets each field whose name is an option of the URL.
        pub(crate) fn apply(
            mut self,
            settings: &mut $crate::options::Settings,
        ) -> $crate::error::Result<Self> {
            $(
                let given = settings.take::<$crate::options::setters!(@reads $kind $($type)?)>(
                    stringify!($name),
                )?;
                if let Some(value) = given {
                    self = self.$name($crate::options::setters!(@read $kind value));
                }
            )*
            Ok(self)
        }
    };
    ($config:ident: $($name:ident $kind:ident $($type:ty)?;)*) => {
        $(
            #[doc = concat!("Sets [`", stringify!($config), "::", stringify!($name), "`].")]
            #[doc = $crate::options::setters!(@about $kind)]
            pub fn $name(mut self, value: $crate::options::setters!(@takes $kind $($type)?)) -> Self {
                self.config.$name = $crate::options::setters!(@value $kind value);
                self
            }
        )*
    };
    (@about pause) => { " `None` means never, as [`Duration::MAX`](std::time::Duration::MAX) does." };
    (@about interval) => { $crate::options::setters!(@about pause) };
    (@about $kind:ident) => { "" };
    (@takes plain $type:ty) => { $type };
    (@takes some $type:ty) => { $type };
    (@takes text) => { impl Into<String> };
    (@takes word) => { impl Into<String> };
    (@takes limit) => { impl Into<Option<std::time::Duration>> };
    (@takes interval) => { impl Into<Option<std::time::Duration>> };
    (@takes pause) => { impl Into<Option<std::time::Duration>> };
    (@takes bits) => { u32 };
    (@value plain $value:ident) => { $value };
    (@value some $value:ident) => { Some($value) };
    (@value text $value:ident) => { Some($value.into()) };
    (@value word $value:ident) => { $value.into() };
    (@value limit $value:ident) => { $value.into() };
    (@value interval $value:ident) => { Some($value.into().unwrap_or(std::time::Duration::MAX)) };
    (@value pause $value:ident) => { $value.into().unwrap_or(std::time::Duration::MAX) };
    (@value bits $value:ident) => { Some($value) };
    (@reads plain $type:ty) => { $type };
    (@reads some $type:ty) => { $type };
    (@reads text) => { String };
    (@reads word) => { String };
    (@reads limit) => { Option<std::time::Duration> };
    (@reads interval) => { Option<std::time::Duration> };
    (@reads pause) => { Option<std::time::Duration> };
    (@reads bits) => { $crate::options::Bits };
    (@read bits $value:ident) => { $value.0 };
    (@read $kind:ident $value:ident) => { $value };
}
pub(crate) use setters;

/// Refuses a pause of zero, which would never sleep.
pub(crate) fn check_pause(name: &str, pause: Duration, place: impl AsRef<Path>) -> Result<()> {
    if pause.is_zero() {
        let text = format!("invalid {name}: must be greater than zero");
        return Err(Error::at(ErrorKind::InvalidInput, text, place.as_ref()));
    }
    Ok(())
}

/// Refuses bits that are no permissions, and those that keep the owner from reading or writing.
pub(crate) fn check_mode(mode: Option<u32>, place: impl AsRef<Path>) -> Result<()> {
    if mode.is_some_and(|bits| bits & !0o777 != 0 || bits & 0o600 != 0o600) {
        let text = "invalid mode: takes permission bits up to 0o777 with which the owner may read and write";
        return Err(Error::at(ErrorKind::InvalidInput, text, place.as_ref()));
    }
    Ok(())
}

/// Returns how many of `all` permits stay if `part` are taken out. At least one must.
pub(crate) fn check_split(part: u32, all: u32, place: impl AsRef<Path>) -> Result<u32> {
    match all.checked_sub(part) {
        Some(left) if left > 0 && part > 0 => Ok(left),
        _ => {
            let text = format!("cannot split {part} permits from {all}: at least one must stay");
            Err(Error::at(ErrorKind::InvalidInput, text, place.as_ref()))
        }
    }
}

/// Returns how many permits two guards of the `same` semaphore have together.
pub(crate) fn check_merge(same: bool, one: u32, two: u32, place: impl AsRef<Path>) -> Result<u32> {
    match one.checked_add(two) {
        Some(sum) if same && one > 0 && two > 0 => Ok(sum),
        _ => {
            let text = "cannot merge: these are not permits of one semaphore";
            Err(Error::at(ErrorKind::InvalidInput, text, place.as_ref()))
        }
    }
}

/// Returns the error of a guard that is asked to downgrade and is not a writer's.
pub(crate) fn no_writer(place: impl AsRef<Path>) -> Error {
    let text = "cannot downgrade: this is not the guard of a writer";
    Error::at(ErrorKind::InvalidInput, text, place.as_ref())
}

/// Refuses a number of permits that a semaphore of `limit` never has.
pub(crate) fn check_permits(wanted: u32, limit: u32, place: impl AsRef<Path>) -> Result<()> {
    if (1..=limit).contains(&wanted) {
        return Ok(());
    }
    let text = format!("invalid number of permits: {wanted} is not in 1..={limit}");
    Err(Error::at(ErrorKind::InvalidInput, text, place.as_ref()))
}
