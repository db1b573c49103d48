//! Runs of the simulation, repeated with the scripts themselves: the same requests at the same times,
//! after the same restarts. Each answer and each message must be that of the server in plain Rust. So
//! what the simulation shows about the one is true of the other.
//!
//! The scripts run in Lua 5.1, as on a server. [`keyspace`] has the commands that they call.

#![allow(clippy::disallowed_methods)] // Tests may do what the crate must not do.

mod keyspace;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use ::redis::Value;
use keyspace::{Keyspace, Reply};
use mlua::{Function, Lua, Table, Value as LuaValue, Variadic};

use super::replies;
use super::scripts::{self, Keys, Script, TEXTS};
use crate::lease::Target;
use crate::lease::simulation::replay::{Answered, Asked, Replay, Sent, Step, replay};

/// What the scripts see of their server.
#[derive(Default)]
struct Server {
    data: Keyspace,
    copies: Vec<Keyspace>,
    now: u64,
    /// Which server this is, and when it started.
    run: u64,
    born: u64,
    is_flushed: bool,
    inboxes: BTreeSet<String>,
    sent: Vec<Sent>,
}

impl Server {
    fn command(&mut self, command: &[&str]) -> Option<Reply> {
        Some(match *command {
            ["TIME"] => {
                let parts = [self.now / 1_000_000, self.now % 1_000_000];
                Reply::List(parts.map(|it| Reply::Text(it.to_string())).into())
            }
            ["PUBLISH", inbox, message] => {
                let hears = self.inboxes.contains(inbox);
                if hears {
                    let message = Value::SimpleString(message.to_owned());
                    self.sent
                        .push((inbox.to_owned(), replies::notice(&message)?));
                }
                hears.into()
            }
            ["INFO", "commandstats"] if self.is_flushed => {
                Reply::Text("cmdstat_flushall:calls=1,usec=5\r\n".to_owned())
            }
            ["INFO", "commandstats"] => Reply::Text(String::new()),
            ["INFO", "replication"] => {
                Reply::Text(format!("role:master\r\nmaster_replid2:{:040}\r\n", 0))
            }
            _ => return self.data.run(command),
        })
    }
}

/// The interpreter, and the scripts in it.
struct Scripted {
    lua: Lua,
    scripts: Vec<Function>,
    server: Rc<RefCell<Server>>,
}

impl Scripted {
    fn new() -> mlua::Result<Self> {
        let lua = Lua::new();
        let server = Rc::new(RefCell::new(Server::default()));
        // Only a server that cannot run a command knows the difference of the two.
        for name in ["call", "pcall"] {
            let shared = server.clone();
            let call = lua.create_function(move |lua, arguments: Variadic<LuaValue>| {
                let words: Vec<_> = arguments.iter().map(word).collect();
                let words: Vec<_> = words.iter().map(String::as_str).collect();
                let reply = shared.borrow_mut().command(&words);
                let wrong = || mlua::Error::runtime(format!("not a command: {words:?}"));
                into_lua(lua, reply.ok_or_else(wrong)?)
            })?;
            let redis = match lua.globals().get::<Option<Table>>("redis")? {
                Some(redis) => redis,
                None => lua.create_table()?,
            };
            redis.set(name, call)?;
            lua.globals().set("redis", redis)?;
        }
        // The first line is for the server.
        let body = |text: &str| {
            text.split_once('\n')
                .map_or(String::new(), |it| it.1.to_owned())
        };
        let load = |text: &&str| lua.load(body(text)).into_function();
        let scripts = TEXTS.iter().map(load).collect::<mlua::Result<_>>()?;
        Ok(Self {
            lua,
            scripts,
            server,
        })
    }

    fn run(&self, script: Script, target: &Target, arguments: Vec<String>) -> Value {
        let (run, born) = {
            let server = self.server.borrow();
            (format!("{:040x}", server.run), server.born.to_string())
        };
        let arguments: Vec<_> = [run, born].into_iter().chain(arguments).collect();
        let globals = self.lua.globals();
        let keys = Keys::new("app", &target.name);
        globals.set("KEYS", keys.names().to_vec()).expect("a table");
        globals.set("ARGV", arguments).expect("a table");
        let answer = self.scripts[script as usize].call(());
        from_lua(&answer.expect("the script runs"))
    }
}

/// An argument of a command. Redis writes whole numbers without a fraction.
fn word(value: &LuaValue) -> String {
    match value {
        LuaValue::Integer(number) => number.to_string(),
        LuaValue::Number(number) => number.to_string(),
        LuaValue::String(text) => text.to_string_lossy(),
        other => panic!("no argument of a command: {other:?}"),
    }
}

fn into_lua(lua: &Lua, reply: Reply) -> mlua::Result<LuaValue> {
    Ok(match reply {
        Reply::Nil => LuaValue::Boolean(false),
        Reply::Done => LuaValue::Table(lua.create_table_from([("ok", "OK")])?),
        Reply::Number(number) => LuaValue::Number(number as f64),
        Reply::Text(text) => LuaValue::String(lua.create_string(text)?),
        Reply::List(all) => {
            let all = all.into_iter().map(|it| into_lua(lua, it));
            LuaValue::Table(lua.create_sequence_from(all.collect::<mlua::Result<Vec<_>>>()?)?)
        }
    })
}

/// The answer of a script, as a client receives it: numbers are cut, and a list ends at the first
/// `nil`.
fn from_lua(value: &LuaValue) -> Value {
    match value {
        LuaValue::Integer(number) => Value::Int(*number),
        LuaValue::Number(number) => Value::Int(*number as i64),
        LuaValue::String(text) => Value::BulkString(text.as_bytes().to_vec()),
        LuaValue::Boolean(true) => Value::Int(1),
        LuaValue::Table(table) => {
            let all = table.sequence_values::<LuaValue>();
            Value::Array(all.map(|it| from_lua(&it.expect("a value"))).collect())
        }
        _ => Value::Nil,
    }
}

impl Replay for Scripted {
    const GOES_BACK: bool = true;

    fn hear(&mut self, inbox: &str, hears: bool) {
        let inboxes = &mut self.server.borrow_mut().inboxes;
        match hears {
            true => _ = inboxes.insert(inbox.to_owned()),
            false => _ = inboxes.remove(inbox),
        }
    }

    fn copy(&mut self) {
        let mut server = self.server.borrow_mut();
        let copy = server.data.clone();
        server.copies.push(copy);
    }

    fn restart(&mut self, now: u64, with: Option<usize>) {
        let mut server = self.server.borrow_mut();
        if let Some(number) = with {
            let earlier = number.checked_sub(1).map(|it| server.copies[it].clone());
            server.data = earlier.unwrap_or_default();
        }
        server.run += 1;
        server.born = now;
        server.is_flushed = false;
        server.inboxes.clear();
    }

    fn flush(&mut self) {
        let mut server = self.server.borrow_mut();
        server.data = Keyspace::default();
        server.is_flushed = true;
    }

    fn step(&mut self, step: &Step) -> (Option<Answered>, Vec<Sent>) {
        let Step {
            now,
            asked,
            terms,
            listens,
            ..
        } = step;
        self.server.borrow_mut().now = *now;
        let answered = match asked {
            Asked::Enter(target, request) => {
                let script = match request.is_known {
                    true => Script::Return,
                    false => Script::Acquire,
                };
                let signature = scripts::signature(terms, *listens);
                let lease = terms.settings.lease;
                let arguments = scripts::acquire(target, request, lease, &signature);
                let answer = self.run(script, target, arguments);
                replies::entered(&answer).map(|(entered, _)| Answered::Entered(entered))
            }
            Asked::Heartbeat(target, ids) => {
                let answer = self.run(Script::Heartbeat, target, ids.clone());
                replies::heartbeat(&answer).map(|(beat, _)| Answered::Heartbeat(beat))
            }
            Asked::Release(target, id, how) => {
                let answer = self.run(Script::Release, target, scripts::release(id, *how));
                replies::flag(&answer).map(Answered::Released)
            }
            Asked::Inspect(target, most) => {
                let lease = terms.settings.lease.as_micros();
                let arguments = vec![most.to_string(), lease.to_string()];
                let answer = self.run(Script::Inspect, target, arguments);
                replies::inspection(&answer).map(Answered::Inspected)
            }
            Asked::Force(target, token) => {
                let whom = token.map_or("all".to_owned(), |it| it.to_string());
                let answer = self.run(Script::Force, target, vec![whom]);
                replies::number(&answer).map(Answered::Forced)
            }
            Asked::Remove(target) => {
                let answer = self.run(Script::Force, target, vec!["idle".to_owned()]);
                replies::flag(&answer).map(Answered::Removed)
            }
            Asked::Ping => Some(Answered::Pong),
        };
        (answered, std::mem::take(&mut self.server.borrow_mut().sent))
    }
}

#[test]
fn p47_the_scripts_answer_as_the_model_does() {
    replay(500, || Scripted::new().expect("an interpreter"));
}
