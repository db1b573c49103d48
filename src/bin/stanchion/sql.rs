//! The command `sql`: prints the script that installs the locks in a database.

use stanchion::postgres::schema_sql;

use crate::exit::{Answer, Ended, Failure, print};
use crate::options::{Dialect, Sql};

pub(crate) fn script(options: &Sql) -> Answer {
    let Sql { dialect, schema } = options;
    let Dialect::Postgres = dialect;
    let script = schema_sql(schema).map_err(|error| Failure::usage(error.to_string()))?;
    print(script.as_bytes()).map(|_| Ended::WELL)
}
