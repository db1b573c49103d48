//! A URL in place of a path: the lock that a program gets from `Locks`.

use stanchion::{FifoRwLock, LockDir, Locks};

use crate::program::{End, Site};

impl Site {
    /// The URL of a lock in a directory that does not exist yet.
    fn url(&self, name: &str) -> String {
        format!("file://{}/my%20locks#{name}", self.directory().display())
    }

    fn locks(&self) -> std::path::PathBuf {
        self.directory().join("my locks")
    }
}

#[test]
fn it_is_the_lock_of_the_same_url() {
    let site = Site::new();
    let url = site.url("a%2FB");
    let mut holder = site.start(&[
        "run",
        &url,
        "--",
        "sh",
        "-c",
        "echo \"$STANCHION_LOCK\"; read x",
    ]);
    let file = holder.line();
    let path = site
        .locks()
        .join("a%2f%42.lock")
        .canonicalize()
        .expect("made");
    assert_eq!(file, path.to_str().expect("plain"));
    let (locks, _) = url.split_once('#').expect("a name");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let locks = runtime.block_on(Locks::connect(locks)).expect("connected");
    let lock = locks.lock("a/B").expect("a lock");
    let tried = runtime.block_on(lock.try_acquire()).expect("no error");
    assert!(tried.is_none());
    let status = runtime.block_on(lock.status()).expect("a status");
    assert!(status.holder.is_some());
    site.end_of(&["run", "--no-wait", &url, "--", "true"])
        .expect(75, "is busy: held by pid");
    site.start(&["status", &url]).line_with("held");
    site.end_of(&["remove", &url]).expect(75, "in use");
    holder.tell("go");
    assert_eq!(holder.end(), End::quiet(0));
    drop((tried, lock));
    assert_eq!(site.end_of(&["remove", &url]), End::quiet(0));
    assert!(!path.exists());
}

/// Ignored, an option would lead to another lock, or to another wait.
#[test]
fn options_of_a_url_count_or_are_refused() {
    let site = Site::new();
    let place = format!("file://{}", site.directory().display());
    let url = format!("{place}?namespace=web#deploy");
    let mut holder = site.start(&["run", &url, "--", "sh", "-c", "echo in; read x"]);
    holder.expect("in");
    site.start(&["status", &url]).line_with("held");
    site.start(&["status", &format!("{place}#deploy")])
        .line_with("free");
    holder.tell("go");
    assert_eq!(holder.end(), End::quiet(0));
    assert_eq!(site.end_of(&["remove", &url]), End::quiet(0));
    for option in ["timeout=5s", "method=mkdir", "mode=660", "unknown=1"] {
        let url = format!("{place}?{option}#deploy");
        let (name, _) = option.split_once('=').expect("a value");
        for task in [
            &["run", &url, "--", "true"][..],
            &["status", &url],
            &["remove", &url],
        ] {
            site.end_of(task).expect(2, name);
        }
    }
    assert!(site.is_empty());
}

#[test]
fn a_long_name_is_on_record() {
    let site = Site::new();
    let name = "n".repeat(300);
    let url = site.url(&name);
    assert_eq!(site.end_of(&["run", &url, "--", "true"]), End::quiet(0));
    let names = LockDir::open(site.locks()).expect("there").list();
    let names: Vec<_> = names
        .expect("listed")
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(names, [name]);
}

#[test]
fn kinds_are_found_by_their_name() {
    let site = Site::new();
    let workers = site.url("workers");
    let run = |arguments: &[&str], url: &str| {
        let arguments = [&["run"], arguments, &[url, "--", "true"]].concat();
        site.end_of(&arguments)
    };
    assert_eq!(run(&["--of", "3"], &workers), End::quiet(0));
    assert_eq!(run(&["--permits", "2"], &workers), End::quiet(0));
    run(&[], &workers).expect(2, "is a semaphore");
    site.start(&["status", "--json", &workers])
        .line_with(r#""kind":"semaphore","limit":3"#);
    let book = site.url("book");
    let lock = FifoRwLock::open(site.locks().join("book.lock")).expect("a lock");
    drop(lock.try_write().expect("no error"));
    assert_eq!(run(&["--shared"], &book), End::quiet(0));
    run(&["--permits", "1"], &book).expect(2, "is no semaphore");
    assert_eq!(site.end_of(&["remove", &workers]), End::quiet(0));
    site.start(&["status", &workers]).line_with("free");
}

#[test]
fn what_it_cannot_do_is_said() {
    let site = Site::new();
    let here = format!("file://{}", site.directory().display());
    let missing = site.url("a");
    // No host has this name.
    let far = "redis://:secret@host.invalid#a";
    let far = match cfg!(feature = "redis") {
        true => (far, 125, "connect"),
        false => (far, 2, "feature `redis`"),
    };
    for (url, code, about) in [
        (&*here, 2, "the name of the lock is missing"),
        ("mem:x#a", 2, "the memory of one process"),
        far,
        ("http://host#a", 2, "unknown scheme http:"),
        ("file:a#b", 2, "absolute"),
        ("file://server/a#b", 2, "must be empty or localhost"),
    ] {
        for task in [
            &["run", url, "--", "true"][..],
            &["status", url],
            &["remove", url],
        ] {
            let end = site.end_of(task);
            assert!(!end.errors.contains("secret"), "{end:?}");
            end.expect(code, about);
        }
    }
    // A status creates nothing.
    site.end_of(&["status", &missing])
        .expect(125, "find the directory");
    site.end_of(&["remove", &missing])
        .expect(125, "find the directory");
    assert!(site.is_empty());
    // It only begins like a URL. It is a path.
    assert_eq!(
        site.end_of(&["run", "./file:x", "--", "true"]),
        End::quiet(0)
    );
    assert!(site.directory().join("file:x").exists());
}
