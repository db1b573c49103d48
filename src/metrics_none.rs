//! What stands for the metrics in a build without the feature `metrics`: nothing.

use std::time::{Duration, Instant};

use crate::address::Address;
use crate::loss::{Loss, LossListener, Lost};

#[derive(Debug, Default)]
pub(crate) struct Slot;

impl Slot {
    #[inline(always)]
    pub(crate) fn meter(&self, _: impl FnOnce() -> Option<Address>) -> Meter {
        Meter
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Meter;

impl Meter {
    #[inline(always)]
    pub(crate) fn granted(self, _: Option<Duration>) {}

    #[inline(always)]
    pub(crate) fn timed_out(self) {}
}

#[derive(Default)]
pub(crate) struct Wait;

impl Wait {
    #[inline(always)]
    pub(crate) fn begin(&mut self, _: Meter) {}

    #[inline(always)]
    pub(crate) fn end(&mut self) {}
}

pub(crate) struct Holding;

impl Holding {
    #[inline(always)]
    pub(crate) fn begin(_: Meter, _: Option<Instant>) -> Self {
        Self
    }

    #[inline(always)]
    pub(crate) fn split(&self) -> Self {
        Self
    }

    #[inline(always)]
    pub(crate) fn listen(&self, _: impl FnOnce(&dyn Fn() -> LossListener)) {}

    #[inline(always)]
    pub(crate) fn watch(&self, lost: Lost) -> Lost {
        lost
    }

    #[inline(always)]
    pub(crate) fn is_over(&self, _: impl FnOnce() -> Lost) {}

    #[inline(always)]
    pub(crate) fn lost(&self, _: Option<Loss>) {}

    #[inline(always)]
    pub(crate) fn end(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_kept() {
        let sizes = [size_of::<Slot>(), size_of::<Meter>(), size_of::<Wait>()];
        assert_eq!(sizes, [0; 3]);
        assert_eq!(size_of::<Holding>(), 0);
    }
}
