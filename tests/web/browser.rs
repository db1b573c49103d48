//! A real browser without a window: Chromium, controlled by chromedriver over WebDriver, which is
//! JSON over HTTP.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use serde_json::{Value, json};

use super::http::ask;
use crate::crew::{Member, WATCHDOG};
use crate::skip::program;

/// The key of an element in an answer, by the WebDriver standard.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// Resolves when the condition is true. It is checked after each change of the page, so nothing is
/// polled.
const WAIT: &str = "
    const done = arguments[arguments.length - 1];
    const fits = () => { CONDITION };
    const look = () => { if (fits()) { watch.disconnect(); done(true); } };
    const watch = new MutationObserver(look);
    watch.observe(document, { subtree: true, childList: true, attributes: true, characterData: true });
    look();
";

pub(crate) struct Browser {
    driver: Driver,
    /// Dropped last, when no process writes there any more.
    _profile: tempfile::TempDir,
}

struct Driver {
    _program: Member,
    port: u16,
    session: String,
}

impl Browser {
    /// `None` if Chromium is not installed.
    pub(crate) fn start() -> Option<Self> {
        let (browser, driver) = (program("chromium")?, program("chromedriver")?);
        let profile = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        let program = Member::run(driver, &["--port=0"]);
        let port = program.after("started successfully on port ");
        let port = port.trim_end_matches('.').parse().expect("a port");
        let mut driver = Driver {
            _program: program,
            port,
            session: String::new(),
        };
        let begun = driver.call("POST", "/session", &wishes(&browser, profile.path()));
        let id = begun["sessionId"].as_str().expect("a session");
        driver.session = format!("/session/{id}");
        let this = Self {
            driver,
            _profile: profile,
        };
        let watchdog = u64::try_from(WATCHDOG.as_millis() / 2).expect("a short time");
        this.tell("/timeouts", &json!({ "script": watchdog }));
        Some(this)
    }

    pub(crate) fn open(&self, url: &str) {
        self.tell("/url", &json!({ "url": url }));
    }

    pub(crate) fn click(&self, selector: &str) {
        let wanted = json!({ "using": "css selector", "value": selector });
        let element = self.tell("/element", &wanted);
        let id = element[ELEMENT].as_str().expect("an element");
        self.tell(&format!("/element/{id}/click"), &json!({}));
    }

    /// Runs the body of a function in the page.
    pub(crate) fn run(&self, script: &str, arguments: Value) -> Value {
        self.tell(
            "/execute/sync",
            &json!({ "script": script, "args": arguments }),
        )
    }

    /// Waits until the body of a function returns true in the page.
    pub(crate) fn until(&self, condition: &str, arguments: Value) {
        // An arrow function has the arguments of the function around it.
        let script = WAIT.replace("CONDITION", condition);
        let body = json!({ "script": script, "args": arguments });
        let outcome = self.driver.ask("POST", &self.path("/execute/async"), &body);
        if outcome["value"] != json!(true) {
            let page = self.run("return document.body.innerText", json!([]));
            panic!("never so: {condition} with {arguments}: {outcome}\n{page}");
        }
    }

    fn tell(&self, path: &str, body: &Value) -> Value {
        self.driver.call("POST", &self.path(path), body)
    }

    fn path(&self, path: &str) -> String {
        format!("{}{path}", self.driver.session)
    }
}

impl Driver {
    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let mut answer = self.ask(method, path, body);
        let value = answer["value"].take();
        assert!(value["error"].is_null(), "{method} {path}: {value}");
        value
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        ask(method, self.port, path, &body.to_string())
            .answer()
            .json()
    }
}

impl Drop for Driver {
    /// The driver ends the browser. Then the driver itself is killed.
    fn drop(&mut self) {
        if !self.session.is_empty() {
            let end = || self.ask("DELETE", &self.session, &json!({}));
            let _ = catch_unwind(AssertUnwindSafe(end)); // the test may be failing already
        }
    }
}

fn wishes(browser: &Path, profile: &Path) -> Value {
    let mut arguments = vec![
        "--headless=new".to_owned(),
        "--disable-gpu".to_owned(),
        "--disable-dev-shm-usage".to_owned(),
        format!("--user-data-dir={}", profile.display()),
    ];
    if rustix::process::geteuid().is_root() {
        arguments.push("--no-sandbox".to_owned()); // which root cannot have
    }
    let chrome = json!({ "binary": browser, "args": arguments });
    json!({ "capabilities": { "alwaysMatch": { "goog:chromeOptions": chrome } } })
}
