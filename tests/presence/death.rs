//! Deaths of holders and of heirs, between any two steps. Also stops.

use std::path::Path;
use std::time::Instant;

use crate::crew::{Member, until};
use crate::family::{Kind, held, place};

fn the_death_of_a_holder_grants_the_next_waiter(kind: Kind) {
    let rounds = std::env::var("STANCHION_KILLS").map_or(20, |it| it.parse().expect("a number"));
    let (_directory, path) = place();
    let mut took = Vec::new();
    let mut holder = Member::of(kind, &path);
    let mut token = holder.acquire().0;
    for _ in 0..rounds {
        let mut next = Member::of(kind, &path);
        next.tell("acquire");
        until("it waits", || has_watch(next.pid()));
        let begun = Instant::now();
        holder.kill_now();
        let line = next.hear();
        took.push(begun.elapsed());
        let (greater, crashed) = held(&line);
        assert!(crashed, "the last holder died");
        assert!(
            greater > token || kind == Kind::Pid,
            "{greater} after {token}"
        );
        token = greater;
        // Its parent reaps it only now. Its end frees the lock, not the parent.
        holder.end();
        holder = next;
    }
    took.sort();
    let (median, longest) = (took[rounds / 2], took[rounds - 1]);
    println!("{kind:?}: from kill -9 to the next holder: median {median:?}, longest {longest:?}");
    // With the slow poll off, a waiter that gets no event never acquires.
}

#[test]
fn p28_the_death_of_a_holder_grants_the_next_waiter_at_a_pid_file() {
    the_death_of_a_holder_grants_the_next_waiter(Kind::Pid);
}

#[test]
fn p28_the_death_of_a_holder_grants_the_next_waiter_at_a_directory() {
    the_death_of_a_holder_grants_the_next_waiter(Kind::Mkdir);
}

#[test]
fn p28_the_death_of_a_holder_grants_the_next_waiter_at_a_file() {
    the_death_of_a_holder_grants_the_next_waiter(Kind::CreateNew);
}

/// The next holder learns of a death although the directory was swept in between.
#[test]
fn p59_a_sweep_keeps_the_death_of_a_holder() {
    for kind in [Kind::Mkdir, Kind::CreateNew] {
        let (directory, path) = place();
        let sweep = || {
            let locks = stanchion::LockDir::open(directory.path()).expect("a directory");
            locks.sweep(None).expect("swept")
        };
        let mut holder = Member::of(kind, &path);
        let (token, _) = holder.acquire();
        holder.kill();
        let kept = sweep();
        assert_eq!((kept.removed.len(), kept.in_use.len()), (0, 1), "{kept:?}");
        let mut next = Member::of(kind, &path);
        let (greater, crashed) = next.acquire();
        assert!(crashed && greater > token);
        next.release();
        assert_eq!(sweep().removed.len(), 1);
        assert!(!next.acquire().1, "it was reported");
        next.release();
    }
}

/// Whether a process watches a file by inotify.
pub(crate) fn has_watch(pid: u32) -> bool {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fdinfo"));
    entries.into_iter().flatten().flatten().any(|it| {
        let info = std::fs::read_to_string(it.path()).unwrap_or_default();
        info.contains("inotify wd:")
    })
}

/// Every step of acquiring, taking over and releasing.
#[cfg(stanchion_test)]
fn steps(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Pid => &["WritePid", "LinkPid", "SucceedPid", "UnlinkPid"],
        _ => &[
            "ListClaims",
            "MakeBaton",
            "PlaceClaims",
            "WriteRecord",
            "FillRecord",
            "TakeBaton",
            "FreeBaton",
            "DeleteRecord",
        ],
    }
}

#[cfg(stanchion_test)]
fn a_death_before_any_step_is_healed(kind: Kind) {
    let mut deaths = 0;
    for step in steps(kind) {
        for (passage, after_death) in [(1, false), (2, false), (1, true), (2, true)] {
            let (_directory, path) = place();
            let what = format!("{kind:?} {step}:{passage} {after_death}");
            if after_death {
                let mut first = Member::of(kind, &path);
                first.acquire();
                first.kill();
            }
            let at = format!("kill:{step}:{passage}");
            let mut victim = Member::with(kind, &path, &[("STANCHION_AT", &at)]);
            let lived = victim.answer("acquire").is_some() && victim.answer("release").is_some();
            // A step that is passed only once kills no process at its second passage.
            deaths += usize::from(!lived);
            drop(victim);
            let mut next = Member::of(kind, &path);
            next.acquire();
            assert_eq!(next.ask("is-held"), "yes", "{what}");
            let mut other = Member::of(kind, &path);
            assert_eq!(other.ask("try"), "none", "{what}");
            next.release();
            other.acquire();
            other.release();
        }
    }
    assert!(deaths >= 2 * steps(kind).len() - 3, "only {deaths} deaths");
}

#[test]
#[cfg(stanchion_test)]
fn p30_a_death_before_any_step_of_a_pid_file_is_healed() {
    a_death_before_any_step_is_healed(Kind::Pid);
}

#[test]
#[cfg(stanchion_test)]
fn p30_a_death_before_any_step_of_a_directory_is_healed() {
    a_death_before_any_step_is_healed(Kind::Mkdir);
}

#[test]
#[cfg(stanchion_test)]
fn p30_a_death_before_any_step_of_a_file_is_healed() {
    a_death_before_any_step_is_healed(Kind::CreateNew);
}

#[test]
#[cfg(stanchion_test)]
fn p32_an_heir_that_is_stopped_is_waited_for_and_then_right() {
    let kind = Kind::Pid;
    let (_directory, path) = place();
    let mut first = Member::of(kind, &path);
    first.acquire();
    first.kill();
    let at = [("STANCHION_AT", "stop:SucceedPid:1")];
    let mut heir = Member::with(kind, &path, &at);
    heir.tell("acquire");
    assert!(heir.has_stopped());
    let mut other = Member::of(kind, &path);
    assert_eq!(other.ask("try"), "none");
    other.tell("acquire");
    until("it waits", || has_watch(other.pid()));
    heir.resume();
    assert!(held(&heir.hear()).1);
    assert!(other.says_nothing());
    assert_eq!(heir.ask("is-held"), "yes");
    heir.release();
    assert!(!held(&other.hear()).1);
}

#[test]
#[cfg(stanchion_test)]
fn p32_a_process_that_is_stopped_before_it_takes_a_claim_is_too_late() {
    let kind = Kind::Mkdir;
    let (_directory, path) = place();
    let at = [("STANCHION_AT", "stop:TakeBaton:1")];
    let mut late = Member::with(kind, &path, &at);
    late.tell("try");
    assert!(late.has_stopped());
    let mut other = Member::of(kind, &path);
    let (token, _) = other.acquire();
    other.release();
    let mut holder = Member::of(kind, &path);
    assert!(holder.acquire().0 > token);
    late.resume();
    late.expect("none");
    assert_eq!(holder.ask("is-held"), "yes");
}

#[test]
fn p38_a_release_deletes_nothing_of_others() {
    let kind = Kind::Pid;
    let (_directory, path) = place();
    let mut holder = Member::of(kind, &path);
    holder.acquire();
    assert_eq!(holder.ask("watch"), "watching");
    std::fs::remove_file(&path).expect("another program deletes it");
    holder.expect("lost Deleted");
    let mut next = Member::of(kind, &path);
    next.acquire();
    let told = holder.ask("release");
    assert!(told.starts_with("failed Lost"), "{told}");
    assert_eq!(next.ask("is-held"), "yes");
}

#[test]
fn p64_a_stopped_holder_of_a_pid_file_is_never_bypassed() {
    let kind = Kind::Pid;
    let (_directory, path) = place();
    let mut holder = Member::of(kind, &path);
    holder.acquire();
    assert!(holder.stop());
    let mut other = Member::of(kind, &path);
    assert_eq!(other.ask("try"), "none");
    holder.resume();
    holder.release();
    other.acquire();
}

/// The resource that the lock protects. It remembers the greatest token, and refuses smaller ones.
struct Resource(u64);

impl Resource {
    fn writes(&mut self, token: u64) -> bool {
        let accepted = token >= self.0;
        self.0 = self.0.max(token);
        accepted
    }
}

#[test]
fn p48_a_holder_that_was_stopped_beyond_its_expiry_learns_that_it_has_lost() {
    for kind in [Kind::Mkdir, Kind::CreateNew] {
        let (_directory, path) = place();
        let mut holder = Member::with(kind, &path, &[("PRESENCE_EXPIRE", "400")]);
        let (old, _) = holder.acquire();
        assert_eq!(holder.ask("watch"), "watching");
        let mut resource = Resource(0);
        assert!(resource.writes(old));
        assert!(holder.stop());
        // Its own claim does not expire while the machine stands still.
        let mut next = Member::of(kind, &path);
        let (new, crashed) = next.acquire();
        assert!(crashed && new > old);
        assert!(resource.writes(new));
        holder.resume();
        holder.expect("lost Expired");
        assert!(!resource.writes(old), "a stale token is refused");
        assert_eq!(holder.ask("is-held"), "no");
        let told = holder.ask("release");
        assert!(told.starts_with("failed Lost"), "{told}");
        assert_eq!(next.ask("is-held"), "yes");
        next.release();
    }
}

/// How often the holder of this claim has renewed it.
pub(crate) fn beats(path: &Path) -> u64 {
    let entries = std::fs::read_dir(path.with_extension("lock.claim")).expect("claims");
    let texts = entries.filter_map(|it| std::fs::read_to_string(it.expect("an entry").path()).ok());
    let beat = |text: String| text.lines().nth(1)?.strip_prefix("beat ")?.parse().ok();
    texts.filter_map(beat).max().unwrap_or(0)
}

#[test]
fn p47_a_living_holder_is_never_robbed() {
    let all = [Kind::Mkdir, Kind::CreateNew].map(|kind| {
        let (directory, path) = place();
        // Only a holder that stops for six seconds counts as silent, however slow the machine is.
        let expire = [("PRESENCE_EXPIRE", "6000")];
        let mut holder = Member::with(kind, &path, &expire);
        holder.acquire();
        let mut other = Member::with(kind, &path, &expire);
        other.tell("acquire");
        (directory, path, holder, other)
    });
    for (_directory, path, mut holder, other) in all {
        // It renews three times in its expiry.
        until("it has lived longer than its expiry", || beats(&path) > 4);
        assert!(other.says_nothing());
        assert_eq!(holder.ask("is-held"), "yes");
        holder.release();
        assert!(!held(&other.hear()).1);
    }
}

/// The holder learns of a renewal that hangs, and its claims on other file systems are renewed.
#[test]
#[cfg(stanchion_test)]
fn p47_a_file_system_that_hangs_stops_no_renewal_elsewhere() {
    use std::os::unix::fs::MetadataExt;
    let kind = Kind::Mkdir;
    let (near, path) = place();
    let memory = Path::new("/dev/shm");
    let device = |path: &Path| path.metadata().map(|it| it.dev()).ok();
    let other = Some(memory).filter(|it| ![None, device(near.path())].contains(&device(it)));
    let memory = need!(other.or_else(|| crate::skip::skip("needs a second file system")));
    let far = crate::crew::scratch_in(memory);
    let far = |name: &str| far.path().join(name);
    // As for the holder that is never robbed.
    let expire = ("PRESENCE_EXPIRE", "6000");
    let hangs = ("STANCHION_AT", "hang:RenewClaim:1");
    let mut holder = Member::with(kind, &far("it.lock"), &[expire, hangs]);
    holder.acquire();
    assert_eq!(holder.ask("watch"), "watching");
    // Another claim there waits for the same thread.
    let behind = format!("beside {}", far("behind.lock").display());
    assert_eq!(holder.ask(&behind), "beside");
    holder.expect("lost Expired");
    holder.expect("beside lost Expired");
    let near = format!("beside {}", path.display());
    assert_eq!(holder.ask(&near), "beside");
    let mut other = Member::with(kind, &path, &[expire]);
    other.tell("acquire");
    until("it has lived longer than its expiry", || beats(&path) > 4);
    assert!(other.says_nothing());
    assert!(holder.says_nothing());
    assert_eq!(holder.ask("let-go"), "let-go");
    assert!(!held(&other.hear()).1);
}
