//! Files that are replaced as a whole: a reader sees the old or the new content, never a mix,
//! whatever step fails.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
#[cfg(stanchion_test)]
use std::process::Stdio;

use stanchion::{AtomicFile, Error, ErrorKind};
use tokio::io::{AsyncSeekExt, AsyncWriteExt};

use crate::crew::child::{path, say, variable};
#[cfg(stanchion_test)]
use crate::crew::{last_words, program};
use crate::skip::success;
use crate::support::{Place, eventually, in_runtime, kind_of};

const OLD: &str = "the old content, whole";
/// Longer than any buffer in between.
const PIECES: usize = 3000;
const PIECE: &[u8] = b"one thousand and twenty-four bytes are not needed: this piece will do";
/// The steps of a commit, as `src/file/atomic.rs` names them.
#[cfg(stanchion_test)]
const STEPS: [&str; 6] = [
    "AtomicCreate",
    "AtomicDress",
    "AtomicSync",
    "AtomicLink",
    "AtomicRename",
    "AtomicSyncDirectory",
];

fn new_content() -> Vec<u8> {
    PIECE.repeat(PIECES)
}

async fn replace(path: &Path) -> Result<(), Error> {
    let mut file = AtomicFile::create(path).await?;
    for _ in 0..PIECES {
        file.write_all(PIECE).await.expect("written");
    }
    file.commit().await
}

/// The child program: replaces the file, and reports the result.
pub(crate) fn main() {
    match in_runtime(replace(&path("ATOMIC_PATH"))) {
        Ok(()) => say("done"),
        Err(error) => {
            let number = error.io_error().and_then(std::io::Error::raw_os_error);
            say(format_args!("failed {number:?} {error}"));
        }
    }
}

/// Runs the child with a fault. Returns its last line, if there is one.
#[cfg(stanchion_test)]
fn child_with(path: &Path, faults: &[(&str, &str)]) -> String {
    let mut command = program("atomic");
    command
        .env("ATOMIC_PATH", path)
        .envs(faults.iter().copied());
    last_words(&mut command).pop().unwrap_or_default()
}

fn names(place: &Place) -> Vec<String> {
    let mut names: Vec<_> = place.footprint().into_iter().collect();
    names.sort();
    names
}

fn old_one(place: &Place) -> PathBuf {
    let path = place.path();
    std::fs::write(&path, OLD).expect("written");
    path
}

#[test]
fn it_replaces_and_keeps_the_look() {
    let place = Place::new();
    let path = old_one(&place);
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).expect("a mode");
    let before = std::fs::metadata(&path).expect("there");
    in_runtime(replace(&path)).expect("replaced");
    assert_eq!(std::fs::read(&path).expect("read"), new_content());
    let after = std::fs::metadata(&path).expect("there");
    assert_eq!(after.mode(), before.mode());
    assert_eq!((after.uid(), after.gid()), (before.uid(), before.gid()));
    assert_ne!(after.ino(), before.ino());
    assert_eq!(names(&place), ["a.lock"]);
}

#[test]
fn it_makes_what_was_not_there() {
    let place = Place::new();
    let path = place.path();
    in_runtime(async {
        let mut file = AtomicFile::create(&path).mode(0o604).await.expect("begun");
        file.write_all(b"ab").await.expect("written");
        file.rewind().await.expect("rewound");
        file.write_all(b"A").await.expect("written");
        assert!(!path.exists(), "not before the commit");
        file.commit().await.expect("in place");
    });
    assert_eq!(std::fs::read(&path).expect("read"), b"Ab");
    let mode = std::fs::metadata(&path).expect("there").mode();
    assert_eq!(mode & 0o777, 0o604);
}

#[test]
fn the_longest_name_there_can_be_has_room() {
    let place = Place::new();
    let name = "n".repeat(255);
    let path = place.directory().join(&name);
    std::fs::write(&path, OLD).expect("written");
    in_runtime(replace(&path)).expect("replaced");
    assert_eq!(std::fs::read(&path).expect("read"), new_content());
    assert_eq!(names(&place), [name]);
}

#[test]
fn dropped_it_leaves_nothing() {
    let place = Place::new();
    let path = old_one(&place);
    in_runtime(async {
        let mut file = AtomicFile::create(&path).await.expect("begun");
        file.write_all(b"half").await.expect("written");
        drop(file);
        // Also a commit that is dropped before its first poll.
        let mut file = AtomicFile::create(&path).await.expect("begun");
        file.write_all(b"half").await.expect("written");
        drop(file.commit());
    });
    assert_eq!(std::fs::read_to_string(&path).expect("read"), OLD);
    assert_eq!(names(&place), ["a.lock"]);
    assert_eq!(place.descriptors(), 0);
}

/// Dropped at a random point: nothing or all of it.
#[test]
fn a_dropped_commit_is_all_or_nothing() {
    for polls in 0..12 {
        let place = Place::new();
        let path = old_one(&place);
        in_runtime(async {
            let mut file = AtomicFile::create(&path).await.expect("begun");
            file.write_all(&new_content()).await.expect("written");
            let mut commit = Box::pin(file.commit());
            for _ in 0..polls {
                if futures::poll!(commit.as_mut()).is_ready() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        });
        eventually("it is over", || place.descriptors() == 0);
        let content = std::fs::read(&path).expect("read");
        assert!(content == OLD.as_bytes() || content == new_content());
        assert_eq!(names(&place), ["a.lock"]);
    }
}

#[test]
fn no_clobber_never_replaces() {
    let place = Place::new();
    let path = place.path();
    in_runtime(async {
        let begin = || async {
            let mut file = AtomicFile::create(&path)
                .no_clobber(true)
                .await
                .expect("begun");
            file.write_all(b"first").await.expect("written");
            file
        };
        let (first, second) = (begin().await, begin().await);
        first.commit().await.expect("nothing was there");
        let error = second.commit().await.expect_err("it came first");
        let io = error.io_error().expect("of the system");
        assert_eq!(io.kind(), std::io::ErrorKind::AlreadyExists);
    });
    assert_eq!(std::fs::read(&path).expect("read"), b"first");
    assert_eq!(names(&place), ["a.lock"]);
}

#[test]
fn p57_what_is_no_file_is_refused() {
    let place = Place::new();
    let victim = place.directory().join("victim");
    std::fs::write(&victim, OLD).expect("written");
    symlink("victim", place.path()).expect("a link");
    let refused = in_runtime(async { kind_of(AtomicFile::create(place.path()).await) });
    assert_eq!(refused, ErrorKind::InvalidInput);
    let refused = in_runtime(async { kind_of(AtomicFile::create(place.directory()).await) });
    assert_eq!(refused, ErrorKind::InvalidInput);
    let nowhere = place.directory().join("no/such");
    let refused = in_runtime(async { kind_of(AtomicFile::create(nowhere).await) });
    assert_eq!(refused, ErrorKind::Io);
    assert_eq!(std::fs::read_to_string(victim).expect("read"), OLD);
}

#[test]
fn outside_a_runtime_it_says_so() {
    let place = Place::new();
    let waiting = std::future::IntoFuture::into_future(AtomicFile::create(place.path()));
    let refused = crate::support::Polled::new(waiting).finish();
    assert_eq!(kind_of(refused), ErrorKind::Unsupported);
}

/// Readers read while writers replace the file: each sees one complete content.
#[test]
fn readers_see_old_or_new() {
    const ROUNDS: usize = 40;
    let place = Place::new();
    let path = old_one(&place);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    let content = std::fs::read(&path).expect("always there");
                    let letter = content[0];
                    let whole = content == OLD.as_bytes()
                        || (content.len() == 100_000 && content.iter().all(|it| *it == letter));
                    assert!(whole, "{} bytes of a mix", content.len());
                }
            });
        }
        in_runtime(async {
            let writer = |letter: u8| {
                let path = path.clone();
                async move {
                    for _ in 0..ROUNDS {
                        let mut file = AtomicFile::create(&path).await.expect("begun");
                        let content = vec![letter; 100_000];
                        file.write_all(&content).await.expect("written");
                        file.commit().await.expect("in place");
                    }
                }
            };
            let (a, b) = (tokio::spawn(writer(b'a')), tokio::spawn(writer(b'b')));
            a.await.expect("a writer");
            b.await.expect("a writer");
        });
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(names(&place), ["a.lock"]);
}

/// Many more at once than a sweep deletes.
#[test]
fn a_crowd_of_writers_finds_room() {
    let place = Place::new();
    let path = old_one(&place);
    in_runtime(async {
        let mut writers = tokio::task::JoinSet::new();
        for _ in 0..300 {
            let path = path.clone();
            writers.spawn(async move {
                let mut file = AtomicFile::create(&path).await.expect("begun");
                file.write_all(b"whole").await.expect("written");
                file.commit().await.expect("in place");
            });
        }
        writers.join_all().await;
    });
    assert_eq!(std::fs::read(&path).expect("read"), b"whole");
    assert_eq!(names(&place), ["a.lock"]);
}

/// With files without a name, and on systems that lack them.
#[cfg(stanchion_test)]
fn both_ways(test: impl Fn(&[(&str, &str)])) {
    test(&[]);
    test(&[("STANCHION_NO_NAMELESS", "1")]);
}

#[cfg(stanchion_test)]
fn with<'a>(way: &[(&'a str, &'a str)], fault: (&'a str, &'a str)) -> Vec<(&'a str, &'a str)> {
    [way, &[fault]].concat()
}

#[cfg(stanchion_test)]
#[test]
fn p30_killed_at_any_step_it_is_old_or_new_and_the_next_commit_leaves_nothing() {
    const TIMES: usize = 5;
    both_ways(|way| {
        for step in STEPS {
            for _ in 0..TIMES {
                let place = Place::new();
                let path = old_one(&place);
                let order = format!("kill:{step}:1");
                let said = child_with(&path, &with(way, ("STANCHION_AT", &order)));
                assert_eq!(said, "", "it was killed at {step}");
                let content = std::fs::read(&path).expect("always there");
                let renamed = step == "AtomicSyncDirectory";
                let expected = if renamed { new_content() } else { OLD.into() };
                assert!(content == expected, "at {step}");
                in_runtime(replace(&path)).expect("the next one");
                assert_eq!(names(&place), ["a.lock"], "left by a death at {step}");
            }
        }
    });
}

#[cfg(stanchion_test)]
#[test]
fn p60_an_error_at_any_step_leaves_the_old_one_and_nothing_else() {
    both_ways(|way| {
        for step in STEPS {
            for number in ["28", "5"] {
                let place = Place::new();
                let path = old_one(&place);
                let fault = format!("{step}:{number}");
                let said = child_with(&path, &with(way, ("STANCHION_FAIL", &fault)));
                let told = format!("failed Some({number}) cannot ");
                assert!(said.starts_with(&told), "{said:?} at {step}");
                assert!(said.contains("a.lock"), "it names the file: {said}");
                let content = std::fs::read(&path).expect("always there");
                let renamed = step == "AtomicSyncDirectory";
                let expected = if renamed { new_content() } else { OLD.into() };
                assert!(content == expected, "at {step}");
                assert_eq!(names(&place), ["a.lock"], "left by a failure at {step}");
            }
        }
    });
}

/// A disk that is really full.
#[test]
fn p60_a_full_disk_leaves_the_old_one() {
    let place = Place::new();
    let mounted = place.directory().join("small");
    std::fs::create_dir(&mounted).expect("a directory");
    let options = ["-t", "tmpfs", "-o", "size=64k", "none"];
    let mut mount = Command::new("mount");
    mount.args(options).arg(&mounted);
    need!(success(&mut mount, "no right to mount"));
    let path = mounted.join("file");
    std::fs::write(&path, OLD).expect("written");
    let failed = in_runtime(async {
        let mut file = AtomicFile::create(&path).await.expect("begun");
        let written = file.write_all(&new_content()).await;
        let flushed = file.flush().await;
        // The writer commits although a write has failed.
        let committed = file.commit().await.expect_err("it has a hole");
        let full = committed.io_error().map(std::io::Error::kind);
        assert_eq!(full, Some(std::io::ErrorKind::StorageFull));
        written.is_err() || flushed.is_err()
    });
    let content = std::fs::read_to_string(&path).expect("read");
    let entries = std::fs::read_dir(&mounted).expect("a directory").count();
    let unmounted = Command::new("umount").arg(&mounted).status();
    assert!(
        unmounted.is_ok_and(|it| it.success()),
        "nothing holds it open"
    );
    assert!(failed, "it is full");
    assert!(content == OLD && entries == 1, "{entries} entries");
}

/// Some writers drop their file and others commit, with temporary names that exist during the whole
/// write. A drop must not delete the temporary name of another writer.
#[cfg(stanchion_test)]
#[test]
fn p01_droppers_and_committers_never_mix() {
    let place = Place::new();
    let path = old_one(&place);
    let start = |letter: &str, drops: &str| {
        let mut command = program("atomic-crowd");
        command
            .env("ATOMIC_PATH", &path)
            .env("ATOMIC_LETTER", letter);
        command
            .env("ATOMIC_DROPS", drops)
            .env("STANCHION_NO_NAMELESS", "1");
        command.stdout(Stdio::null()).spawn().expect("a child")
    };
    let mut crowd: Vec<_> = [("a", "0"), ("b", "0"), ("c", "3"), ("d", "4"), ("e", "2")]
        .map(|(letter, drops)| start(letter, drops))
        .into();
    let mut looks = 0;
    while crowd
        .iter_mut()
        .any(|it| it.try_wait().expect("a status").is_none())
    {
        let content = std::fs::read(&path).expect("always there");
        let whole = content == OLD.as_bytes()
            || (content.len() == 20_000 && content.iter().all(|it| *it == content[0]));
        assert!(whole, "{} bytes of a mix", content.len());
        looks += 1;
    }
    for mut child in crowd {
        assert!(child.wait().expect("its end").success());
    }
    assert!(looks > 10);
    in_runtime(replace(&path)).expect("replaced");
    assert_eq!(names(&place), ["a.lock"]);
}

/// The child program of the test above.
pub(crate) fn crowd() {
    let path = path("ATOMIC_PATH");
    let letter = variable("ATOMIC_LETTER").into_bytes()[0];
    let drops: usize = variable("ATOMIC_DROPS").parse().expect("a number");
    in_runtime(async {
        for round in 0..150 {
            let mut file = AtomicFile::create(&path).await.expect("begun");
            for _ in 0..4 {
                file.write_all(&[letter; 5000]).await.expect("written");
                file.flush().await.expect("written");
            }
            if drops == 0 || round % drops == 0 {
                file.commit().await.expect("in place");
            }
        }
    });
}

/// A dead writer left its temporary file, unlocked. A living one has its own.
#[test]
fn only_the_dead_are_cleared_away() {
    let place = Place::new();
    let path = old_one(&place);
    let name = |number: usize| {
        place
            .directory()
            .join(format!(".a.lock.stanchion-{number}"))
    };
    for number in [0, 3, 15] {
        std::fs::write(name(number), "left").expect("written");
        // As mode of a target that may only be read.
        std::fs::set_permissions(name(number), PermissionsExt::from_mode(0o444)).expect("a mode");
    }
    let alive = std::fs::File::create(name(1)).expect("a file");
    fs2::FileExt::lock_exclusive(&alive).expect("locked");
    std::fs::write(place.directory().join(".a.lock.stanchion-x"), "foreign").expect("written");
    in_runtime(replace(&path)).expect("replaced");
    assert_eq!(
        names(&place),
        [".a.lock.stanchion-1", ".a.lock.stanchion-x", "a.lock"]
    );
    drop(alive);
}

/// The group bits of a file with an access list are its mask. Used as bits of the group they would
/// open the new file to it.
#[cfg(any(target_os = "linux", target_os = "android"))]
#[test]
fn p58_it_keeps_the_access_list() {
    const ACCESS: &str = "system.posix_acl_access";
    let list = |path: &Path| {
        let mut room = [0; 256];
        let length = rustix::fs::lgetxattr(path, ACCESS, &mut room[..]).expect("an access list");
        room[..length].to_vec()
    };
    let place = Place::new();
    let path = old_one(&place);
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    // Owner, user 60003, group, mask, others.
    for (tag, bits, id) in [
        (1, 6, u32::MAX),
        (2, 6, 60_003),
        (4, 0, u32::MAX),
        (16, 6, u32::MAX),
        (32, 0, u32::MAX),
    ] {
        bytes.extend(u16::to_le_bytes(tag));
        bytes.extend(u16::to_le_bytes(bits));
        bytes.extend(u32::to_le_bytes(id));
    }
    match rustix::fs::setxattr(&path, ACCESS, &bytes, rustix::fs::XattrFlags::empty()) {
        Err(rustix::io::Errno::NOTSUP) => need!(crate::skip::skip::<()>("no access lists")),
        set => set.expect("an access list"),
    }
    let root = rustix::process::geteuid().is_root();
    if root {
        std::os::unix::fs::chown(&path, Some(60_001), Some(60_002)).expect("an owner");
    }
    let before = std::fs::metadata(&path).expect("there");
    in_runtime(replace(&path)).expect("replaced");
    let after = std::fs::metadata(&path).expect("there");
    assert_ne!(after.ino(), before.ino());
    assert_eq!((after.uid(), after.gid()), (before.uid(), before.gid()));
    assert_eq!(after.mode(), before.mode());
    assert_eq!(list(&path), bytes);
    // Explicit mode bits are the only ones.
    in_runtime(async {
        let file = AtomicFile::create(&path).mode(0o640).await.expect("begun");
        file.commit().await.expect("in place");
    });
    let mode = std::fs::metadata(&path).expect("there").mode();
    assert_eq!(mode & 0o777, 0o640);
    let none = rustix::fs::lgetxattr(&path, ACCESS, &mut [0; 256][..]);
    assert_eq!(none, Err(rustix::io::Errno::NODATA));
}
