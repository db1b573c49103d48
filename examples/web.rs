//! A web server that does one job at a time, over all processes that run it, and shows the queue.
//!
//! ```text
//! cargo run --example web                            # and the same in another terminal
//! curl -X POST 'http://127.0.0.1:PORT/work?ms=3000'  # at the port that it prints
//!
//! cargo run --features redis --example web -- redis://127.0.0.1/    # among many hosts
//! ```
//!
//! The arguments are `web [URL [PORT [MOST]]]`:
//!
//! - URL: where the locks are. The default is a `file:` URL of a directory for temporary files.
//! - PORT: the port. The default, 0, is any free port.
//! - MOST: if this many requests already wait, a new one is refused. The default is 8.
#![allow(clippy::disallowed_methods)]

use std::collections::HashMap;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures::{Stream, StreamExt, stream};
use serde_json::{Value, json};
use stanchion::{AnyLock, ErrorKind, Locks, Loss, Owner, Reach, Status};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep};

/// How often a page gets the queue.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// An error that is only shown.
type Whatever = Box<dyn std::error::Error + Send + Sync>;

#[derive(Clone)]
struct App {
    lock: AnyLock,
    /// The URL of the lock, as `stanchion status` takes it.
    url: String,
    most: usize,
    /// Whether the waiters of another process count as one and have one row, as on files.
    crowds: bool,
    stopped: watch::Receiver<bool>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match serve().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("web: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve() -> Result<(), Whatever> {
    let mut args = std::env::args().skip(1);
    let url = args.next().unwrap_or_else(temporary);
    let port = args.next().map_or(Ok(0), |it| it.parse())?;
    let most = args.next().map_or(Ok(8), |it| it.parse())?;

    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let port = listener.local_addr()?.port();
    let options = Locks::options().label(format!("web at port {port}"));
    let locks = options.connect(&url).await?;
    let (stop, stopped) = watch::channel(false);
    let lock = locks.lock("web")?;
    let app = App {
        crowds: lock.capabilities().reach == Reach::Host,
        lock,
        url: format!("{locks}#web"),
        most,
        stopped,
    };
    let router = Router::new()
        .route("/", get(Html(include_str!("web.html"))))
        .route("/work", post(work))
        .route("/line", get(line))
        .with_state(app);
    let signal = stop_signal()?;
    println!("listening on http://127.0.0.1:{port}, with the locks at {locks}");
    axum::serve(listener, router)
        .with_graceful_shutdown(async move {
            signal.await;
            stop.send_replace(true); // waits end, and running jobs finish
        })
        .await?;
    Ok(())
}

/// Returns the URL of a directory for temporary files.
fn temporary() -> String {
    let path = std::env::temp_dir().join("stanchion-web");
    let path = path.to_string_lossy().replace('\\', "/");
    format!("file:///{}", path.trim_start_matches('/'))
}

impl App {
    /// Says what counts as one waiter. The page of another server may show more requests.
    fn refusal(&self, error: stanchion::Error) -> Refusal {
        let counted = match self.crowds {
            true => ", and those of another process count as one",
            false => "",
        };
        match error.kind() {
            ErrorKind::Busy => {
                Refusal::Full(format!("too many wait: at most {} may{counted}", self.most))
            }
            _ => Refusal::Lock(error),
        }
    }

    async fn stopped(mut self) {
        // An error means that the server has ended.
        let _ = self.stopped.wait_for(|stopped| *stopped).await;
    }
}

/// Works under the lock. When the client disconnects, axum drops this future. The drop leaves the
/// queue or releases the lock. If the work must not be interrupted, spawn a task for it and move
/// the guard into the task.
async fn work(
    State(app): State<App>,
    Query(query): Query<HashMap<String, u64>>,
) -> Result<Json<Value>, Refusal> {
    let acquire = app.lock.acquire().max_waiting(app.most);
    let guard = tokio::select! {
        guard = acquire => guard.map_err(|error| app.refusal(error))?,
        () = app.clone().stopped() => return Err(Refusal::Stops),
    };
    let ms = query.get("ms").copied().unwrap_or(1000);
    let from = millis(SystemTime::now());
    tokio::select! {
        () = sleep(Duration::from_millis(ms)) => {}
        loss = guard.lost() => return Err(Refusal::Lost(loss)),
    }
    let answer = json!({
        "token": guard.token(),
        "after_crash": guard.predecessor_crashed(),
        "from": from,
        "to": millis(SystemTime::now()),
    });
    guard.release().await?;
    Ok(Json(answer))
}

/// Sends the queue after each change, until the server stops. It asks for the status again and
/// again, because not every lock supports `changes`.
async fn line(State(app): State<App>) -> Sse<impl Stream<Item = Result<Event, Whatever>>> {
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let looks = stream::unfold((app.clone(), ticks), async |(app, mut ticks)| {
        ticks.tick().await;
        let picture = match app.lock.status().await {
            Ok(status) => picture(&app, &status),
            Err(error) => json!({ "trouble": error.to_string() }),
        };
        Some((picture, (app, ticks)))
    });
    let looks = looks.take_until(app.stopped());
    let events = looks.map(|picture| Ok(Event::default().json_data(picture)?));
    Sse::new(events).keep_alive(KeepAlive::default())
}

fn picture(app: &App, status: &Status) -> Value {
    let waiters = status.waiters.iter().map(|waiter| {
        let mut row = person(&waiter.owner);
        row["bypassed"] = waiter.bypassed.into();
        row["here"] = waiter.here.into();
        row["crowd"] = (app.crowds && !waiter.here).into();
        row
    });
    json!({
        "lock": app.url,
        "server": std::process::id(),
        "now": millis(SystemTime::now()),
        "holder": status.holder.as_ref().map(person),
        "waiters": waiters.collect::<Vec<_>>(),
        "last_token": status.last_token,
        "most": app.most,
    })
}

fn person(owner: &Owner) -> Value {
    json!({
        "label": owner.label,
        "pid": owner.pid,
        "host": owner.host,
        "since": owner.since.and_then(millis),
    })
}

/// Returns the milliseconds since the Unix epoch, as browsers count them.
fn millis(time: SystemTime) -> Option<u64> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    since.as_millis().try_into().ok()
}

/// Why the work was not done, or not completed.
enum Refusal {
    Full(String),
    Lock(stanchion::Error),
    Stops,
    Lost(Loss),
}

impl From<stanchion::Error> for Refusal {
    fn from(error: stanchion::Error) -> Self {
        Self::Lock(error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (later, text) = match self {
            Self::Lock(error) => {
                let later = error.kind() == ErrorKind::Unavailable;
                (later, error.to_string())
            }
            Self::Full(text) => (true, text),
            Self::Stops => (true, "the server stops".to_owned()),
            Self::Lost(loss) => (false, loss.to_string()),
        };
        let text = text + "\n";
        match later {
            true => {
                let later = [(header::RETRY_AFTER, "1")];
                (StatusCode::SERVICE_UNAVAILABLE, later, text).into_response()
            }
            false => (StatusCode::INTERNAL_SERVER_ERROR, text).into_response(),
        }
    }
}

/// Listens from the call on, not from the first poll, so that no signal is lost.
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
