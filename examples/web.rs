//! A web server that does one thing at a time, whichever of its copies is asked, and shows the line.
//!
//! ```text
//! cargo run --example web -- /tmp/web.lock 8081      # and in another terminal
//! cargo run --example web -- /tmp/web.lock 8082
//! curl -X POST 'http://127.0.0.1:8081/work?ms=3000'
//! ```
//!
//! `web LOCK PORT [MOST]`: port 0 is any free one; when MOST already wait, a request is refused.
#![allow(clippy::disallowed_methods)]

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures::{Stream, StreamExt};
use serde_json::{Value, json};
use stanchion::{ErrorKind, FifoLock, Owner, Status};
use tokio::sync::watch;

#[derive(Clone)]
struct App {
    lock: FifoLock,
    most: usize,
    stopped: watch::Receiver<bool>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (path, port, most) = match &args[..] {
        [path, port] => (path, port.parse()?, 8),
        [path, port, most] => (path, port.parse()?, most.parse()?),
        _ => return Err("usage: web LOCK PORT [MOST]".into()),
    };
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    let port = listener.local_addr()?.port();
    let label = format!("web :{port}");
    let lock = FifoLock::options().label(label).open(path)?;
    let (stop, stopped) = watch::channel(false);
    let app = App {
        lock: lock.clone(),
        most,
        stopped,
    };
    let router = Router::new()
        .route("/", get(Html(include_str!("web.html"))))
        .route("/work", post(work))
        .route("/line", get(line))
        .with_state(app);
    let signal = stop_signal()?;
    println!("listening on http://127.0.0.1:{port}");
    axum::serve(listener, router)
        .with_graceful_shutdown(async move {
            signal.await;
            lock.close(); // who waits is told; who is inside finishes
            stop.send_replace(true);
        })
        .await?;
    Ok(())
}

/// Works under the lock. When the client goes away axum drops this future wherever it stands, and that leaves the line
/// or the lock. Work that must not be broken off belongs into a task of its own, together with the guard.
async fn work(
    State(app): State<App>,
    Query(query): Query<HashMap<String, u64>>,
) -> Result<Json<Value>, Refusal> {
    let guard = app.lock.acquire().max_waiting(app.most).await?;
    let ms = query.get("ms").copied().unwrap_or(1000);
    tokio::time::sleep(Duration::from_millis(ms)).await;
    let answer = json!({ "token": guard.token(), "after_crash": guard.predecessor_crashed() });
    guard.release().await?;
    Ok(Json(answer))
}

/// The line as it moves, one event for each change, until the server stops.
async fn line(
    State(app): State<App>,
) -> Sse<impl Stream<Item = Result<Event, Box<dyn std::error::Error + Send + Sync>>>> {
    let mut stopped = app.stopped;
    let stop = async move { _ = stopped.wait_for(|stopped| *stopped).await };
    let changes = app.lock.changes().take_until(stop);
    let events = changes.map(|status| Ok(Event::default().json_data(picture(&status?))?));
    Sse::new(events).keep_alive(KeepAlive::default())
}

fn picture(status: &Status) -> Value {
    let waiters = status.waiters.iter().map(|waiter| {
        let mut row = person(&waiter.owner);
        row["passed_over"] = waiter.passed_over.into();
        row
    });
    json!({
        "server": std::process::id(),
        "now": millis(SystemTime::now()),
        "holder": status.holder.as_ref().map(person),
        "waiters": waiters.collect::<Vec<_>>(),
        "last_token": status.last_token,
    })
}

fn person(owner: &Owner) -> Value {
    json!({ "pid": owner.pid, "label": owner.label, "since": owner.since.map(millis) })
}

/// Since 1970, as browsers count.
fn millis(time: SystemTime) -> Option<u64> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    since.as_millis().try_into().ok()
}

/// Why there was no work done.
struct Refusal(stanchion::Error);

impl From<stanchion::Error> for Refusal {
    fn from(error: stanchion::Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let text = format!("{}\n", self.0);
        match self.0.kind() {
            ErrorKind::Busy | ErrorKind::Closed => {
                let later = [(header::RETRY_AFTER, "1")];
                (StatusCode::SERVICE_UNAVAILABLE, later, text).into_response()
            }
            _ => (StatusCode::INTERNAL_SERVER_ERROR, text).into_response(),
        }
    }
}

/// Listens from the call on, not from the first poll, so that no signal finds nobody.
#[cfg(unix)]
fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

#[cfg(not(unix))]
fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    Ok(async { _ = tokio::signal::ctrl_c().await })
}
