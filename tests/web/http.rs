//! As much of an HTTP client as the tests need, with one connection for each request. Answers have
//! a length. A stream of events comes in chunks of whole lines instead, so the lengths between them
//! are lines like others.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use serde_json::Value;

use crate::crew::WATCHDOG;

/// A request that was sent. Dropping it disconnects.
pub(crate) struct Asked {
    stream: BufReader<TcpStream>,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// In lower case.
    pub(crate) headers: Vec<String>,
    pub(crate) body: String,
}

pub(crate) fn ask(method: &str, port: u16, path: &str, body: &str) -> Asked {
    let mut stream = connect(port);
    let head = format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n");
    let length = format!(
        "Connection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let request = head + &length + body;
    stream.write_all(request.as_bytes()).expect("a request");
    Asked {
        stream: BufReader::new(stream),
    }
}

pub(crate) fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("a server");
    let limit = Some(WATCHDOG);
    stream.set_read_timeout(limit).expect("a watchdog");
    stream
}

impl Asked {
    pub(crate) fn answer(mut self) -> Answer {
        let (status, headers) = self.head();
        let length = headers.iter().find_map(|it| {
            let length = it.strip_prefix("content-length:")?;
            length.trim().parse::<u64>().ok()
        });
        let mut body = String::new();
        let mut rest = self.stream.take(length.unwrap_or(u64::MAX));
        rest.read_to_string(&mut body).expect("a body");
        Answer {
            status,
            headers,
            body,
        }
    }

    fn head(&mut self) -> (u16, Vec<String>) {
        let first = self.line().expect("an answer");
        let status = first.split(' ').nth(1).and_then(|it| it.parse().ok());
        let mut headers = Vec::new();
        while let Some(line) = self.line().filter(|it| !it.is_empty()) {
            headers.push(line.to_ascii_lowercase());
        }
        (status.expect("a status"), headers)
    }

    /// `None` when the server has closed the connection.
    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.stream.read_line(&mut line).expect("a line");
        (read > 0).then(|| line.trim_end().to_owned())
    }
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("an answer in JSON")
    }
}

/// The queue, as a server sends it.
pub(crate) struct Line(Asked);

impl Line {
    pub(crate) fn of(port: u16) -> Self {
        let mut asked = ask("GET", port, "/line", "");
        let (status, headers) = asked.head();
        assert_eq!(status, 200);
        assert!(headers.contains(&"content-type: text/event-stream".to_owned()));
        Self(asked)
    }

    /// Returns the next update; `None` when the stream has ended.
    pub(crate) fn next(&mut self) -> Option<Value> {
        let begun = Instant::now();
        loop {
            // The server also sends signs of life, so a time limit for reading is not enough.
            assert!(begun.elapsed() < WATCHDOG, "the queue does not change");
            if let Some(data) = self.0.line()?.strip_prefix("data:") {
                return Some(serde_json::from_str(data).expect("a picture"));
            }
        }
    }

    /// Waits for an update that satisfies a condition.
    pub(crate) fn until(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let mut seen = Value::Null;
        while let Some(line) = self.next() {
            if fits(&line) {
                return line;
            }
            seen = line;
        }
        panic!("the stream ended before {what}: {seen}")
    }
}
