//! A server with the example's page. It sends what the test wants, when the test wants it.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};

use serde_json::Value;

use crate::crew::WATCHDOG;

const PAGE: &str = include_str!("../../examples/web.html");

pub(crate) struct Pretender {
    pub(crate) port: u16,
    asked: Receiver<TcpStream>,
}

/// The page that requested the list. If it is dropped, the connection ends without an answer.
pub(crate) struct Listener(TcpStream);

impl Pretender {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (to, asked) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let mut first = String::new();
                let read = BufReader::new(&stream).read_line(&mut first);
                match read {
                    Ok(_) if first.starts_with("GET /line ") => {
                        if to.send(stream).is_err() {
                            return;
                        }
                    }
                    // A browser may connect ahead and send nothing.
                    _ => _ = answer(stream),
                }
            }
        });
        Self { port, asked }
    }

    /// Waits for the next page that requests the list.
    pub(crate) fn listener(&self) -> Listener {
        Listener(self.asked.recv_timeout(WATCHDOG).expect("the page asks"))
    }
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let length = PAGE.len();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {length}");
    write!(stream, "{head}\r\nConnection: close\r\n\r\n{PAGE}")
}

impl Listener {
    pub(crate) fn begin(&mut self) {
        self.write("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n");
    }

    pub(crate) fn tell(&mut self, line: &Value) {
        self.write(&format!("data: {line}\n\n"));
    }

    fn write(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).expect("it listens");
    }
}
