//! Deaths, stops and ends of the members of a crew.

use std::os::unix::process::ExitStatusExt;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

use super::{Crew, Who};

impl Crew {
    fn process(&self, who: Who) -> Pid {
        Pid::from_child(&self.members[who.0].child)
    }

    /// `kill -9`, and the process is gone when this returns.
    pub(crate) fn kill(&mut self, who: Who) {
        self.kill_now(who);
        self.bury(who);
    }

    /// `kill -9`, without waiting for the end.
    pub(crate) fn kill_now(&mut self, who: Who) {
        self.forget(who);
        kill_process(self.process(who), Signal::KILL).expect("a process to kill");
    }

    /// Waits for the end of one that was killed, and takes everything that it has said.
    pub(crate) fn bury(&mut self, who: Who) {
        let status = self.members[who.0].child.wait().expect("its end");
        self.members[who.0].gone = true;
        assert_eq!(status.signal(), Some(9), "{who:?} died of something else");
        while self.line(who) != "gone" {}
    }

    /// It has killed itself, and said its last word.
    #[cfg(stanchion_test)]
    pub(crate) fn wait_for_the_dead(&mut self, who: Who) {
        let status = self.members[who.0].child.wait().expect("its end");
        self.members[who.0].gone = true;
        assert_eq!(status.signal(), Some(9), "{who:?} died of something else");
    }

    /// Its permits are not counted from now on. Of a grant that it did not live to tell of nothing is known.
    fn forget(&mut self, who: Who) {
        self.out.retain(|place, _| place.0 != who);
        self.asked.retain(|place, _| place.0 != who);
        self.leaving.retain(|place, _| place.0 != who);
    }

    /// Ends a process in good order.
    pub(crate) fn end(&mut self, who: Who) {
        self.tell(who, "end");
        self.forget(who);
        let status = self.members[who.0].child.wait().expect("its end");
        self.members[who.0].gone = true;
        assert_eq!(status.code(), Some(0), "{who:?} ended in good order");
        while self.line(who) != "gone" {}
    }

    /// SIGSTOP, and the process stands still when this returns.
    pub(crate) fn stop(&mut self, who: Who) {
        kill_process(self.process(who), Signal::STOP).expect("a process to stop");
        // The news stays there for whoever waits for the end.
        let news = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        let status = waitid(WaitId::Pid(self.process(who)), news).expect("a child");
        assert!(status.expect("a change").stopped(), "{who:?} is dead");
    }

    pub(crate) fn go_on(&mut self, who: Who) {
        kill_process(self.process(who), Signal::CONT).expect("a process to wake");
    }
}
