//! Who is inside through this process, and whom it can let in besides without asking the disk. Pure.

use super::super::ticket::Mode;

/// Guards that are out and offers that stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Inside {
    exclusive: bool,
    shared: usize,
}

/// What a process has of the lock on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// All of it: no other process is inside or can get in.
    Whole,
    /// A share: readers of other processes may be inside.
    Share,
}

impl Inside {
    pub(super) fn is_empty(self) -> bool {
        !self.exclusive && self.shared == 0
    }

    pub(super) fn count(self) -> usize {
        self.shared + usize::from(self.exclusive)
    }

    /// Whether there are readers, and nobody else.
    pub(super) fn only_readers(self) -> bool {
        self.shared > 0 && !self.exclusive
    }

    /// Whether one more may go in, of those who have waited their turn.
    pub(super) fn admits(self, extent: Extent, want: Mode) -> bool {
        match want {
            Mode::Shared => !self.exclusive,
            Mode::Exclusive | Mode::Permits(_) => extent == Extent::Whole && self.is_empty(),
        }
    }

    pub(super) fn add(&mut self, want: Mode) {
        match want {
            Mode::Shared => self.shared += 1,
            Mode::Exclusive | Mode::Permits(_) => self.exclusive = true,
        }
    }

    pub(super) fn remove(&mut self, want: Mode) {
        match want {
            Mode::Shared => self.shared -= 1,
            Mode::Exclusive | Mode::Permits(_) => self.exclusive = false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p03_the_table() {
        let inside = |exclusive, shared| Inside { exclusive, shared };
        let table = [
            // inside, extent, reader, writer
            (inside(false, 0), Extent::Whole, true, true),
            (inside(false, 2), Extent::Whole, true, false),
            (inside(true, 0), Extent::Whole, false, false),
            (inside(false, 0), Extent::Share, true, false),
            (inside(false, 2), Extent::Share, true, false),
        ];
        for (inside, extent, reader, writer) in table {
            let admits = |want| inside.admits(extent, want);
            let found = (admits(Mode::Shared), admits(Mode::Exclusive));
            assert_eq!(found, (reader, writer), "{inside:?} {extent:?}");
        }
    }

    #[test]
    fn who_goes_in_comes_out() {
        for want in [Mode::Shared, Mode::Exclusive] {
            let mut inside = Inside::default();
            inside.add(want);
            assert_eq!(inside.count(), 1);
            inside.remove(want);
            assert!(inside.is_empty());
        }
    }
}
