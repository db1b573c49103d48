//! The guards and offers of this process, and what can be admitted beside them without the disk.
//! Pure.

use crate::fair::ticket::Mode;

/// The guards that are out, and the offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Inside {
    exclusive: bool,
    /// Readers, or holders of permits.
    shared: usize,
    permits: u32,
}

/// What a process has of the lock on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// All of it: no other process is inside or can enter.
    Whole,
    /// A share: readers of other processes may be inside.
    Share,
    /// This many of a semaphore's permits.
    Permits { ours: u32, limit: u32 },
}

impl Extent {
    /// Returns whether no other process is inside or can enter.
    pub(super) fn is_whole(self) -> bool {
        match self {
            Self::Whole => true,
            Self::Share => false,
            Self::Permits { ours, limit } => ours >= limit,
        }
    }
}

impl Inside {
    pub(super) fn is_empty(self) -> bool {
        !self.exclusive && self.shared == 0
    }

    pub(super) fn is_exclusive(self) -> bool {
        self.exclusive
    }

    pub(super) fn count(self) -> usize {
        self.shared + usize::from(self.exclusive)
    }

    /// Returns how many permits are in guards and offers.
    pub(super) fn permits(self) -> u32 {
        self.permits
    }

    /// Returns whether there are readers and no writer.
    pub(super) fn only_readers(self) -> bool {
        self.shared > 0 && !self.exclusive
    }

    /// Returns whether one more may enter whose turn has come.
    pub(super) fn admits(self, extent: Extent, want: Mode) -> bool {
        match (want, extent) {
            (Mode::Shared, _) => !self.exclusive,
            (Mode::Permits(count), Extent::Permits { ours, .. }) => {
                self.permits.saturating_add(count) <= ours
            }
            _ => extent == Extent::Whole && self.is_empty(),
        }
    }

    pub(super) fn add(&mut self, want: Mode) {
        match want {
            Mode::Shared => self.shared += 1,
            Mode::Exclusive => self.exclusive = true,
            Mode::Permits(count) => {
                self.shared += 1;
                self.permits += count;
            }
        }
    }

    /// Notes that the permits of one guard are now in two.
    pub(super) fn split(&mut self) {
        self.shared += 1;
    }

    /// Notes that the permits of two guards are now in one.
    pub(super) fn merge(&mut self) {
        self.shared -= 1;
    }

    pub(super) fn remove(&mut self, want: Mode) {
        match want {
            Mode::Shared => self.shared -= 1,
            Mode::Exclusive => self.exclusive = false,
            Mode::Permits(count) => {
                self.shared -= 1;
                self.permits -= count;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p03_the_table() {
        let inside = |exclusive, shared| Inside {
            exclusive,
            shared,
            permits: 0,
        };
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
    fn p52_permits_are_never_more_than_there_are() {
        let inside = Inside {
            exclusive: false,
            shared: 1,
            permits: 3,
        };
        let extent = Extent::Permits { ours: 5, limit: 8 };
        assert!(inside.admits(extent, Mode::Permits(2)));
        assert!(!inside.admits(extent, Mode::Permits(3)));
        assert!(!inside.admits(extent, Mode::Permits(u32::MAX)));
        assert!(!extent.is_whole() && Extent::Permits { ours: 8, limit: 8 }.is_whole());
    }

    #[test]
    fn what_is_added_can_be_removed() {
        for want in [Mode::Shared, Mode::Exclusive, Mode::Permits(3)] {
            let mut inside = Inside::default();
            inside.add(want);
            assert_eq!(inside.count(), 1);
            inside.remove(want);
            assert!(inside.is_empty());
        }
    }
}
