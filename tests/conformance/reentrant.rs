//! A re-entrant lock as a subject: for other tasks it is the wrapped lock.

use stanchion::Reentrant;

use crate::subject::Subject;

pub(crate) struct Reentered<S>(S);

impl<S: Subject> Subject for Reentered<S> {
    type Lock = Reentrant<S::Lock>;

    const FAIR: bool = S::FAIR;

    fn new() -> Self {
        Self(S::new())
    }

    fn open(&self) -> Self::Lock {
        Reentrant::new(self.0.open())
    }

    fn open_without_polling(&self) -> Self::Lock {
        Reentrant::new(self.0.open_without_polling())
    }

    fn open_by_other_names(&self) -> Vec<Self::Lock> {
        let others = self.0.open_by_other_names();
        others.into_iter().map(Reentrant::new).collect()
    }

    fn open_another(&self) -> Self::Lock {
        Reentrant::new(self.0.open_another())
    }

    fn places(&self) -> usize {
        self.0.places()
    }

    fn footprint(&self) -> String {
        self.0.footprint()
    }

    fn resources(&self) -> usize {
        self.0.resources()
    }
}
