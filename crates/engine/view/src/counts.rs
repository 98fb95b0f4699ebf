//! How often things happened.

use pserver_ledger::record::{Dropped, Record};
use serde::Serialize;

/// How often each kind of thing happened in a run, rewound steps included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Steps that were committed.
    pub commits: u64,
    /// Gradients that were applied.
    pub accepted: u64,
    /// Gradients whose step was over.
    pub stale: u64,
    /// Gradients of a tower step of which another had come before.
    pub duplicate: u64,
    /// Gradients of a state that the server had gone back behind.
    pub ahead: u64,
    /// Gradients taken at other variables than those of their step.
    pub other_state: u64,
    /// Gradients that were not believed.
    pub in_doubt: u64,
    /// Tower steps of which two workers came to the same bits.
    pub audits_equal: u64,
    /// Tower steps of which two workers came to different bits.
    pub audits_different: u64,
    /// Tower steps that were overdue and also given to another.
    pub overdue: u64,
    /// Workers that registered.
    pub joined: u64,
    /// Workers that said that they leave.
    pub left: u64,
    /// Workers that sent no heartbeat for their lease.
    pub lost: u64,
    /// Workers that take no further part.
    pub quarantined: u64,
    /// Checkpoints that were written.
    pub checkpoints: u64,
    /// Starts of the server.
    pub starts: u64,
    /// Times that the run went back.
    pub rewinds: u64,
    /// Times that no gradient came for some seconds.
    pub stood_still: u64,
}

impl Counts {
    /// One more of what a record tells.
    pub fn add(&mut self, record: &Record) {
        let one_more: &mut u64 = match record {
            Record::Start(_) => &mut self.starts,
            Record::Rewind(_) => &mut self.rewinds,
            Record::Commit(commit) => {
                self.accepted += commit.towers.len() as u64;
                &mut self.commits
            }
            Record::Joined { .. } => &mut self.joined,
            Record::Left { .. } => &mut self.left,
            Record::Lost { .. } => &mut self.lost,
            Record::Overdue { .. } => &mut self.overdue,
            Record::Dropped { reason, .. } => match reason {
                Dropped::Stale => &mut self.stale,
                Dropped::Duplicate => &mut self.duplicate,
                Dropped::Ahead => &mut self.ahead,
                Dropped::OtherState => &mut self.other_state,
            },
            Record::InDoubt { .. } => &mut self.in_doubt,
            Record::Audited { equal: true, .. } => &mut self.audits_equal,
            Record::Audited { equal: false, .. } => &mut self.audits_different,
            Record::Quarantined { .. } => &mut self.quarantined,
            Record::Checkpoint { .. } => &mut self.checkpoints,
            Record::StoodStill { .. } => &mut self.stood_still,
            Record::Suspended { .. } | Record::End { .. } => return,
        };
        *one_more += 1;
    }
}
