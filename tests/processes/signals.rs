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
        self.forget(who);
        self.token_may_jump = true;
        kill_process(self.process(who), Signal::KILL).expect("a process to kill");
        self.bury(who);
        self.drain(who);
    }

    /// `kill -9`, without waiting for the end.
    pub(crate) fn kill_now(&mut self, who: Who) {
        self.forget(who);
        self.token_may_jump = true;
        self.members[who.0].killed = true;
        kill_process(self.process(who), Signal::KILL).expect("a process to kill");
    }

    /// Whether it was killed by [`Crew::kill_now`].
    pub(crate) fn is_dead(&self, who: Who) -> bool {
        self.members[who.0].killed
    }

    fn forget(&mut self, who: Who) {
        self.inside.retain(|inside| inside.who != who);
    }

    fn bury(&mut self, who: Who) {
        self.members[who.0].child.wait().expect("its end");
        self.members[who.0].gone = true;
    }

    /// Takes everything that a dead member has said.
    fn drain(&mut self, who: Who) {
        while self.line(who) != "gone" {}
    }

    /// Waits for the end of a process and tells the signal that ended it.
    pub(crate) fn signal_of(&mut self, who: Who) -> Option<i32> {
        let status = self.members[who.0].child.wait().expect("its end");
        self.members[who.0].gone = true;
        status.signal()
    }

    /// Ends a process in good order.
    pub(crate) fn end(&mut self, who: Who) {
        self.tell(who, "end");
        self.forget(who);
        let signal = self.signal_of(who);
        assert_eq!(signal, None, "{who:?} ended by a signal");
        self.drain(who);
    }

    /// SIGSTOP, and the process stands still when this returns.
    pub(crate) fn stop(&mut self, who: Who) {
        assert!(self.stop_unless_dead(who), "{who:?} is dead");
    }

    /// SIGSTOP; `false` when the process died before it.
    pub(crate) fn stop_unless_dead(&mut self, who: Who) -> bool {
        kill_process(self.process(who), Signal::STOP).expect("a process to stop");
        self.has_stopped(who)
    }

    /// Waits until a process has stopped by itself, at a fail point.
    #[cfg(stanchion_test)]
    pub(crate) fn expect_stopped(&mut self, who: Who) {
        assert!(self.has_stopped(who), "{who:?} died instead of stopping");
    }

    /// Whether a process has ended, whatever ended it.
    #[cfg(stanchion_test)]
    pub(crate) fn has_ended(&self, who: Who) -> bool {
        let news = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        let status = waitid(WaitId::Pid(self.process(who)), news).expect("a child");
        status.is_some()
    }

    fn has_stopped(&mut self, who: Who) -> bool {
        // The news stays there for whoever waits for the end.
        let news = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        let status = waitid(WaitId::Pid(self.process(who)), news).expect("a child");
        let stopped = status.expect("a change").stopped();
        self.members[who.0].stopped = stopped;
        stopped
    }

    pub(crate) fn go_on(&mut self, who: Who) {
        self.members[who.0].stopped = false;
        kill_process(self.process(who), Signal::CONT).expect("a process to wake");
    }
}
