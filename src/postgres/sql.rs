//! The text of the tables and functions (`sql/*.sql`), and of the calls.

use crate::error::{Error, ErrorKind, Result};

/// The version of the tables and functions. Another version is refused.
pub(super) const VERSION: i32 = 1;

/// The schema of the locks if no other is set.
pub(super) const SCHEMA: &str = "stanchion";

/// The parts of the script, in order.
const PARTS: [&str; 8] = [
    include_str!("sql/schema.sql"),
    include_str!("sql/line.sql"),
    include_str!("sql/acquire.sql"),
    include_str!("sql/heartbeat.sql"),
    include_str!("sql/release.sql"),
    include_str!("sql/force.sql"),
    include_str!("sql/inspect.sql"),
    include_str!("sql/assert.sql"),
];

/// Where the parts have the name of the schema.
const HOLE: &str = "@schema@";

/// Returns the script that creates the tables and functions of the Postgres locks in this schema.
/// Use it in a migration, or let [`Options::install`](super::Options::install) run it.
///
/// Running it again changes nothing.
///
/// # Errors
///
/// [`ErrorKind::InvalidInput`] if the name of the schema is not a lower-case letter or `_`,
/// followed by up to 61 lower-case letters, digits and `_`.
pub fn schema_sql(schema: &str) -> Result<String> {
    check_schema(schema)?;
    Ok(PARTS.join("\n").replace(HOLE, schema))
}

/// Checks the name of a schema. So no name needs to be escaped.
pub(super) fn check_schema(schema: &str) -> Result<()> {
    let starts = schema.starts_with(|it: char| it.is_ascii_lowercase() || it == '_');
    let fits = |it: char| it.is_ascii_lowercase() || it.is_ascii_digit() || it == '_';
    if starts && schema.len() < 63 && schema.chars().all(fits) {
        return Ok(());
    }
    let text =
        "the name of a schema takes a lower-case letter, then lower-case letters, digits and _";
    Err(Error::new(ErrorKind::InvalidInput, text))
}

/// The calls of the functions in one schema.
#[derive(Debug)]
pub(super) struct Calls {
    pub(super) acquire: String,
    pub(super) heartbeat: String,
    pub(super) release: String,
    pub(super) inspect: String,
    pub(super) force_release: String,
    pub(super) remove: String,
    pub(super) tidy: String,
    pub(super) protocol: String,
    /// What a connection may do, before anything is called.
    pub(super) look: String,
    /// Shows other clients that this session lives.
    pub(super) live: String,
    pub(super) install: String,
}

impl Calls {
    pub(super) fn new(schema: &str) -> Result<Self> {
        let call = |text: &str| text.replace(HOLE, schema);
        Ok(Self {
            acquire: call(
                r#"SELECT "@schema@".acquire($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)"#,
            ),
            heartbeat: call(r#"SELECT "@schema@".heartbeat($1, $2, $3, $4)"#),
            release: call(r#"SELECT "@schema@".release($1, $2, $3, $4, $5, $6)"#),
            inspect: call(r#"SELECT what, shown, age FROM "@schema@".inspect($1, $2, $3, $4)"#),
            force_release: call(r#"SELECT "@schema@".force_release($1, $2, $3, $4)"#),
            remove: call(r#"SELECT "@schema@".remove($1, $2, $3)"#),
            tidy: call(r#"SELECT "@schema@".tidy($1)"#),
            protocol: call(r#"SELECT "@schema@".protocol()"#),
            look: call(
                r#"SELECT pg_is_in_recovery(), to_regproc('"@schema@".protocol') IS NOT NULL, current_setting('default_transaction_isolation')"#,
            ),
            live: call(r#"SELECT pg_advisory_lock_shared("@schema@".session_key($1))"#),
            install: schema_sql(schema)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_has_the_name_of_the_schema_and_no_hole() {
        let script = schema_sql("app_locks").expect("a name");
        assert!(script.contains(r#""app_locks".assert_held"#));
        assert!(!script.contains(HOLE));
        for function in ["acquire", "heartbeat", "release", "inspect", "tidy"] {
            let begin = format!(r#"CREATE OR REPLACE FUNCTION "app_locks".{function}("#);
            assert!(script.contains(&begin), "{function}");
        }
    }

    #[test]
    fn p60_names_of_schemas_that_would_need_escapes_are_refused() {
        let long = "a".repeat(63);
        for wrong in ["", "1a", "Upper", "a b", "a\"b", "a'b", "ä", "a.b", &long] {
            let error = schema_sql(wrong).expect_err(wrong);
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{wrong}");
        }
    }

    /// Each step is one function with the rights of its owner and a fixed search path.
    #[test]
    fn every_step_has_a_fixed_search_path() {
        let fixed = r#"SECURITY DEFINER SET search_path = "stanchion", pg_temp"#;
        let script = schema_sql(SCHEMA).expect("a name");
        let functions = script.split("CREATE OR REPLACE FUNCTION ").skip(1);
        let heads: Vec<_> = functions
            .map(|it| it.split("$body$").next().expect("a head"))
            .filter(|it| it.contains("SECURITY DEFINER"))
            .collect();
        assert_eq!(heads.len(), 10, "{heads:?}");
        for head in heads {
            assert!(head.contains(fixed), "{head}");
        }
    }
}
