//! Fencing: the checks that the documentation shows, on a real Redis server and in a real SQL
//! database.

use std::process::Command;

use stanchion::redis::RedisClient;

use crate::server::Server;
use crate::skip::python;
use crate::support::in_runtime;

/// As in the documentation of `TokenGate`.
const SCRIPT: &str = "
if tonumber(redis.call('GET', KEYS[2]) or 0) > tonumber(ARGV[1]) then return 0 end
redis.call('SET', KEYS[2], ARGV[1])
redis.call('SET', KEYS[1], ARGV[2])
return 1
";

#[test]
fn p49_a_script_refuses_the_token_of_a_holder_that_was_robbed() {
    let server = need!(Server::start());
    let client = server.connect(RedisClient::options());
    let lock = client.lock("a");
    let late = in_runtime(lock.acquire()).expect("free");
    in_runtime(lock.force_release(None)).expect("ended");
    let next = in_runtime(lock.acquire()).expect("free");
    let write = |token: u64, value: &str| -> i64 {
        let token = token.to_string();
        server.ask(&["EVAL", SCRIPT, "2", "value", "token", &token, value])
    };
    assert_eq!(write(late.token(), "early"), 1, "no other write yet");
    assert_eq!(write(next.token(), "next"), 1);
    assert_eq!(write(next.token(), "next again"), 1);
    assert_eq!(write(late.token(), "late"), 0, "refused");
    assert_eq!(server.ask::<String>(&["GET", "value"]), "next again");
}

#[test]
fn p49_sql_refuses_an_old_token() {
    let program = r#"
import sqlite3
db = sqlite3.connect(":memory:")
db.execute("CREATE TABLE account (id INTEGER, balance INTEGER, token INTEGER)")
db.execute("INSERT INTO account VALUES (1, 0, 0)")
update = "UPDATE account SET balance = :balance, token = :token WHERE id = :id AND token <= :token"
def write(balance, token):
    return db.execute(update, {"balance": balance, "token": token, "id": 1}).rowcount
print(write(5, 1700000000000001), write(6, 1700000000000003), write(7, 1700000000000003), write(8, 1700000000000001))
print(db.execute("SELECT balance FROM account").fetchone()[0])
"#;
    let output = Command::new(need!(python("sqlite3")))
        .args(["-c", program])
        .output();
    let output = output.expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(
        text.split_whitespace().collect::<Vec<_>>(),
        ["1", "1", "1", "0", "7"]
    );
}
