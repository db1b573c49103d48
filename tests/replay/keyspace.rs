//! The commands that the scripts use, on maps in memory.

use std::collections::BTreeMap;

/// The keys of a server.
#[derive(Clone, Default)]
pub(super) struct Keyspace(BTreeMap<String, Value>);

#[derive(Clone)]
enum Value {
    Text(String),
    Hash(BTreeMap<String, String>),
    /// A score for each member.
    Sorted(BTreeMap<String, f64>),
}

/// What a command replies.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Reply {
    Nil,
    Done,
    Number(i64),
    Text(String),
    List(Vec<Reply>),
}

impl From<bool> for Reply {
    fn from(flag: bool) -> Self {
        Self::Number(i64::from(flag))
    }
}

impl From<Option<String>> for Reply {
    fn from(text: Option<String>) -> Self {
        text.map_or(Self::Nil, Self::Text)
    }
}

impl Keyspace {
    /// Runs a command. `None` if it is unknown, has wrong arguments, or finds another type of value.
    pub(super) fn run(&mut self, command: &[&str]) -> Option<Reply> {
        Some(match *command {
            ["GET", key] => self.text(key)?.cloned().into(),
            ["SET", key, text] | ["SET", key, text, "EX", _] => {
                self.0.insert(key.to_owned(), Value::Text(text.to_owned()));
                Reply::Done
            }
            ["EXISTS", key] => self.0.contains_key(key).into(),
            ["EXPIRE", key, _] => self.0.contains_key(key).into(),
            ["DEL", ref keys @ ..] => {
                let gone = keys.iter().filter(|it| self.0.remove(**it).is_some());
                Reply::Number(gone.count() as i64)
            }
            ["HGET", key, field] => self.hash(key)?.get(field).cloned().into(),
            ["HSET", key, field, text] => self.set_field(key, field, text)?.into(),
            ["HSETNX", key, field, text] => match self.hash(key)?.contains_key(field) {
                true => false.into(),
                false => self.set_field(key, field, text)?.into(),
            },
            ["HDEL", key, field] => {
                let gone = self.hash(key)?.remove(field).is_some();
                self.drop_if_empty(key);
                gone.into()
            }
            ["HKEYS", key] => texts(self.hash(key)?.keys()),
            _ => return self.run_sorted(command),
        })
    }

    fn run_sorted(&mut self, command: &[&str]) -> Option<Reply> {
        Some(match *command {
            ["ZADD", key, score, member] => {
                let score = score.parse().ok()?;
                let members = self.sorted(key)?;
                members.insert(member.to_owned(), score).is_none().into()
            }
            ["ZREM", key, member] => {
                let gone = self.sorted(key)?.remove(member).is_some();
                self.drop_if_empty(key);
                gone.into()
            }
            ["ZCARD", key] => Reply::Number(self.in_order(key)?.len() as i64),
            ["ZSCORE", key, member] => {
                let all = self.in_order(key)?;
                let found = all.into_iter().find(|(_, it)| it == member);
                found.map(|(score, _)| score.to_string()).into()
            }
            ["ZRANK", key, member] => {
                let all = self.in_order(key)?;
                let rank = all.iter().position(|(_, it)| it == member);
                rank.map_or(Reply::Nil, |it| Reply::Number(it as i64))
            }
            ["ZRANGE", key, from, to] => texts(self.range(key, from, to)?.iter().map(|it| &it.1)),
            ["ZRANGE", key, from, to, "WITHSCORES"] => {
                let range = self.range(key, from, to)?;
                let pairs = range
                    .into_iter()
                    .flat_map(|(score, it)| [it, score.to_string()]);
                Reply::List(pairs.map(Reply::Text).collect())
            }
            ["ZRANGEBYSCORE", key, "-inf", most] => {
                let most: f64 = most.parse().ok()?;
                let all = self.in_order(key)?;
                texts(
                    all.iter()
                        .filter(|(score, _)| *score <= most)
                        .map(|it| &it.1),
                )
            }
            ["ZRANGEBYSCORE", key, least, "+inf"] => {
                let least: f64 = least.strip_prefix('(')?.parse().ok()?;
                let all = self.in_order(key)?;
                let later = all.iter().filter(|(score, _)| *score > least);
                texts(later.map(|it| &it.1))
            }
            _ => return None,
        })
    }

    fn text(&self, key: &str) -> Option<Option<&String>> {
        match self.0.get(key) {
            None => Some(None),
            Some(Value::Text(text)) => Some(Some(text)),
            Some(_) => None,
        }
    }

    fn hash(&mut self, key: &str) -> Option<&mut BTreeMap<String, String>> {
        let new = || Value::Hash(BTreeMap::new());
        match self.0.entry(key.to_owned()).or_insert_with(new) {
            Value::Hash(fields) => Some(fields),
            _ => None,
        }
    }

    fn set_field(&mut self, key: &str, field: &str, text: &str) -> Option<bool> {
        let before = self.hash(key)?.insert(field.to_owned(), text.to_owned());
        Some(before.is_none())
    }

    fn sorted(&mut self, key: &str) -> Option<&mut BTreeMap<String, f64>> {
        let new = || Value::Sorted(BTreeMap::new());
        match self.0.entry(key.to_owned()).or_insert_with(new) {
            Value::Sorted(members) => Some(members),
            _ => None,
        }
    }

    /// A key without members does not exist.
    fn drop_if_empty(&mut self, key: &str) {
        let is_empty = match self.0.get(key) {
            Some(Value::Hash(fields)) => fields.is_empty(),
            Some(Value::Sorted(members)) => members.is_empty(),
            _ => false,
        };
        if is_empty {
            self.0.remove(key);
        }
    }

    /// Returns scores and members in order.
    fn in_order(&self, key: &str) -> Option<Vec<(f64, String)>> {
        let mut all: Vec<_> = match self.0.get(key) {
            None => Vec::new(),
            Some(Value::Sorted(members)) => members
                .iter()
                .map(|(member, score)| (*score, member.clone()))
                .collect(),
            Some(_) => return None,
        };
        // Members of one score are in alphabetic order, which they have already.
        all.sort_by(|one, other| one.0.total_cmp(&other.0));
        Some(all)
    }

    /// Returns those from one rank to another. Negative ranks count from the end.
    fn range(&self, key: &str, from: &str, to: &str) -> Option<Vec<(f64, String)>> {
        let all = self.in_order(key)?;
        let rank = |text: &str| -> Option<i64> {
            let rank: i64 = text.parse().ok()?;
            Some(if rank < 0 {
                all.len() as i64 + rank
            } else {
                rank
            })
        };
        let (from, to) = (rank(from)?.max(0) as usize, rank(to)?);
        let count = (to + 1 - from as i64).max(0) as usize;
        Some(all.into_iter().skip(from).take(count).collect())
    }
}

fn texts<'a>(all: impl Iterator<Item = &'a String>) -> Reply {
    Reply::List(all.cloned().map(Reply::Text).collect())
}
