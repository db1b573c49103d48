//! The parent's side: three processes under one filter.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::crew::{Member, program};
use crate::{Cell, Kind};

pub(crate) struct Boxed {
    what: String,
    members: Vec<Member>,
    start: Box<dyn Fn() -> Command>,
}

impl Boxed {
    pub(crate) fn new(cell: &Cell, user: Option<u32>) -> Self {
        let names: Vec<_> = cell.calls.iter().map(|it| format!("{it:?}")).collect();
        let (names, number) = (names.join(","), cell.number);
        let what = format!(
            "{names} answers {}",
            std::io::Error::from_raw_os_error(number)
        );
        let start = move || {
            let mut command = program("sandbox");
            command.env("SANDBOX_CALLS", &names);
            command.env("SANDBOX_ERROR", number.to_string());
            if let Some(user) = user {
                command.uid(user).gid(user);
            }
            command
        };
        Self {
            what,
            members: (0..3).map(|_| Member::start(start())).collect(),
            start: Box::new(start),
        }
    }

    fn tell(&mut self, who: usize, line: &str) {
        self.members[who].tell(line);
    }

    fn answer(&self, who: usize) -> String {
        let answer = self.members[who].next();
        answer.unwrap_or_else(|| panic!("{}: {who} has ended", self.what))
    }

    #[track_caller]
    fn expect(&self, who: usize, expected: &str) {
        let answer = self.answer(who);
        assert_eq!(answer, expected, "{}: of {who}", self.what);
    }

    /// Kills a process, and reaps it. Another one takes its index here.
    fn kill(&mut self, who: usize) {
        self.members[who] = Member::start((self.start)());
    }

    /// `who` acquires, and the others queue behind it.
    fn line_up(&mut self, words: [&str; 3], place: &Path) {
        let place = place.display();
        self.tell(0, &format!("{} {place}", words[0]));
        self.expect(0, "held");
        for (who, word) in words.iter().enumerate().skip(1) {
            self.tell(who, &format!("{word} {place}"));
            self.expect(who, "queued");
        }
    }

    fn release(&mut self, who: usize) {
        self.tell(who, "");
        self.expect(who, "released");
    }

    fn one_by_one(&mut self, word: &str, place: &Path) {
        self.line_up([word; 3], place);
        for who in 0..3 {
            self.release(who);
            if who < 2 {
                self.expect(who + 1, "held");
            }
        }
    }

    /// Everything that this kind of lock supports.
    pub(crate) fn works(&mut self, kind: Kind, place: &Path) {
        match kind {
            Kind::Atomic => {
                self.tell(0, &format!("Atomic {}", place.display()));
                self.expect(0, "onetwo");
                self.expect_alone(place);
            }
            Kind::NoClobber => {
                self.tell(0, &format!("NoClobber {}", place.display()));
                self.expect(0, "refused");
                self.expect(0, "oneone");
                self.expect_alone(place);
            }
            Kind::File => {
                self.tell(0, &format!("File {}", place.display()));
                self.expect(0, "held");
                self.tell(1, &format!("File {}", place.display()));
                self.expect(1, "queued");
                self.release(0);
                self.expect(1, "held");
                self.release(1);
            }
            Kind::Fifo => {
                self.one_by_one("Fifo", place);
                self.line_up(["Fifo"; 3], place);
                self.kill(0);
                self.expect(1, "held");
                self.release(1);
                self.expect(2, "held");
                self.release(2);
            }
            Kind::RwLock => {
                self.line_up(["Write", "Read", "Read"], place);
                self.release(0);
                (1..3).for_each(|who| self.expect(who, "held"));
                (1..3).for_each(|who| self.release(who));
            }
            Kind::Semaphore => self.one_by_one("Permit", place),
            Kind::Pid => self.outlives("Pid", place),
            Kind::Claim => self.outlives("Claim", place),
        }
    }

    /// No temporary file is left beside it.
    fn expect_alone(&self, place: &Path) {
        let entries = std::fs::read_dir(place.parent().expect("a directory"));
        let names = entries
            .expect("listed")
            .map(|it| it.expect("an entry").file_name());
        let left: Vec<_> = names
            .filter(|it| it.to_string_lossy().starts_with('.'))
            .collect();
        assert!(left.is_empty(), "{}: {left:?}", self.what);
    }

    /// A waiter acquires after a release and after a death.
    fn outlives(&mut self, word: &str, place: &Path) {
        let line = format!("{word} {}", place.display());
        self.tell(0, &line);
        self.expect(0, "held");
        self.tell(1, &line);
        self.expect(1, "queued");
        self.release(0);
        self.expect(1, "held");
        self.tell(0, &line);
        self.expect(0, "queued");
        self.kill(1);
        self.expect(0, "held");
        self.release(0);
    }

    /// It cannot work, and returns an error that says so. If the refused call is needed only for
    /// waiting, it works until a caller has to wait.
    pub(crate) fn is_refused(&mut self, kind: Kind, place: &Path) {
        let word = match kind {
            Kind::RwLock => "Write".to_owned(),
            Kind::Semaphore => "Permit".to_owned(),
            kind => format!("{kind:?}"),
        };
        let line = format!("{word} {}", place.display());
        self.tell(0, &line);
        let mut answer = self.answer(0);
        if answer == "held" {
            self.tell(1, &line);
            answer = self.answer(1);
            self.release(0);
        }
        let clear = answer.starts_with("failed Unsupported: ");
        assert!(clear, "{}: {kind:?}: {answer}", self.what);
    }
}
