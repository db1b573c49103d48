//! The serialized form of times, tickets and kinds; see `Status`.

/// A time as the number of seconds since the Unix epoch, with a precision of microseconds.
pub(super) mod seconds {
    use std::time::{Duration, SystemTime};

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(
        time: &Option<SystemTime>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        time.map(of).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<SystemTime>, D::Error> {
        let seconds = Option::<f64>::deserialize(deserializer)?;
        let time = |it| time(it).ok_or_else(|| D::Error::custom("time out of range"));
        seconds.map(time).transpose()
    }

    fn of(time: SystemTime) -> f64 {
        let whole = |it: Duration| (it.as_micros() as f64) / 1e6;
        match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => whole(after),
            Err(before) => -whole(before.duration()),
        }
    }

    fn time(seconds: f64) -> Option<SystemTime> {
        let micros = (seconds.abs() * 1e6).round();
        // Also `None` for a NaN.
        let distance =
            (micros < u64::MAX as f64).then_some(Duration::from_micros(micros as u64))?;
        match seconds < 0.0 {
            true => SystemTime::UNIX_EPOCH.checked_sub(distance),
            false => SystemTime::UNIX_EPOCH.checked_add(distance),
        }
    }
}

/// A number as a string of decimal digits.
pub(super) mod digits {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(
        number: &Option<u64>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        number.map(|it| it.to_string()).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<u64>, D::Error> {
        let digits = Option::<String>::deserialize(deserializer)?;
        digits
            .map(|it| it.parse().map_err(D::Error::custom))
            .transpose()
    }
}

/// A kind as its word. A word that is unknown is no kind.
pub(super) mod word {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::kind::LockKind;

    pub(crate) fn serialize<S: Serializer>(
        kind: &Option<LockKind>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        kind.map(LockKind::word).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<LockKind>, D::Error> {
        let word = Option::<String>::deserialize(deserializer)?;
        Ok(word.and_then(|it| LockKind::of_word(&it)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use crate::kind::LockKind;
    use crate::status::{Held, Owner, Status, Waiter};

    /// A status with every kind of value, and its exact form.
    fn sample() -> (Status, String) {
        let owner = Owner {
            pid: Some(23645),
            host: Some("build7".into()),
            label: Some("a \"b\"\n\u{1b}ä".into()),
            since: Some(SystemTime::UNIX_EPOCH + Duration::from_micros(1_795_324_244_380_375)),
            ..Owner::unknown()
        };
        // Without rounding, this would be read as 248.
        let old = SystemTime::UNIX_EPOCH - Duration::from_micros(249);
        let waiter = Waiter {
            ticket: Some(u64::MAX),
            owner: Owner {
                since: Some(old),
                ..Owner::unidentified("no note")
            },
            bypassed: true,
            here: false,
        };
        let status = Status {
            kind: Some(LockKind::Semaphore),
            limit: Some(3),
            available: Some(0),
            held: Held::Yes,
            holder: Some(owner),
            waiters: vec![waiter],
            last_token: 7,
            ..Status::free()
        };
        let form = concat!(
            r#"{"kind":"semaphore","limit":3,"available":0,"excludes":true,"held":"yes","unknown":null,"names_all":true,"holder":{"pid":23645,"#,
            r#""foreign_pid":false,"host":"build7","label":"a \"b\"\n\u001bä","command":null,"#,
            r#""since":1795324244.380375,"unknown":null},"shared_by":[],"outsider":null,"waiters":["#,
            r#"{"ticket":"18446744073709551615","owner":{"pid":null,"foreign_pid":false,"host":null,"#,
            r#""label":null,"command":null,"since":-0.000249,"unknown":"no note"},"bypassed":true,"#,
            r#""here":false}],"last_token":7,"polling":false,"watch_failures":0}"#,
        );
        (status, form.to_owned())
    }

    #[test]
    fn a_status_has_the_documented_form_and_survives_the_round_trip() {
        let (status, form) = sample();
        assert_eq!(serde_json::to_string(&status).unwrap(), form);
        assert_eq!(serde_json::from_str::<Status>(&form).unwrap(), status);
    }

    #[test]
    fn what_a_later_version_adds_is_no_error() {
        let (status, form) = sample();
        let later = form.replace("\"excludes\"", "\"later\":[1],\"excludes\"");
        assert_eq!(serde_json::from_str::<Status>(&later).unwrap(), status);
        let later = form.replace("\"yes\"", "\"perhaps\"");
        let read: Status = serde_json::from_str(&later).unwrap();
        assert_eq!(read.held, Held::Unknown);
        let later = form.replace("\"semaphore\"", "\"barrier\"");
        let read: Status = serde_json::from_str(&later).unwrap();
        assert_eq!((read.kind, read.limit), (None, Some(3)));
        let earlier = form.replace("\"kind\":\"semaphore\",\"limit\":3,\"available\":0,", "");
        let read: Status = serde_json::from_str(&earlier).unwrap();
        assert_eq!((read.kind, read.limit, read.available), (None, None, None));
        let sparse: Owner = serde_json::from_str("{}").unwrap();
        assert_eq!(sparse, Owner::unknown());
    }

    #[test]
    fn what_is_no_status_is_refused() {
        let (_, form) = sample();
        for (from, to) in [
            ("\"held\":\"yes\",", ""),
            ("\"yes\"", "1"),
            ("-0.000249", "1e300"),
            ("-0.000249", "\"now\""),
            ("\"18446744073709551615\"", "\"18446744073709551616\""),
            ("\"18446744073709551615\"", "1"),
        ] {
            assert!(form.contains(from), "{from}");
            let wrong = form.replace(from, to);
            assert!(serde_json::from_str::<Status>(&wrong).is_err(), "{wrong}");
        }
    }
}
