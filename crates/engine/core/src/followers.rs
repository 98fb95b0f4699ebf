//! The followers of the run: who looks at its checkpoints, and who still has to be told that it is over.
//!
//! They look at the run without taking part. An evaluator draws a number for itself, asks for a newer checkpoint than
//! it has, scores it and reports the counts, from which everything else that is said of a score follows. It gives signs
//! of life while it scores; a run that is over waits for those that live until they ask for more and hear that there is
//! none, ten minutes at most.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use pserver_run::member::FOLLOWER_LEASE;
use pserver_run::member::FollowerId;

/// More than anybody runs; it bounds what a client can make the server remember.
const MAX_FOLLOWERS: usize = 64;

/// A run that is over waits no longer than this for its last score.
const LAST_SCORE_TIMEOUT: Duration = Duration::from_secs(600);

/// The followers that hold a lease. A run that is over waits until all of them have been told, which
/// they are when they have told their last score and ask for a newer checkpoint.
///
/// Pure: the caller says what time it is.
#[derive(Debug, Default)]
pub(crate) struct Followers {
    followers: BTreeMap<FollowerId, Follower>,
    /// When the run was over.
    over: Option<Instant>,
}

#[derive(Debug)]
struct Follower {
    last_seen: Instant,
    told_goodbye: bool,
}

impl Followers {
    /// Takes a heartbeat. A follower that is one too many is answered, but not remembered.
    pub(crate) fn seen(&mut self, now: Instant, id: FollowerId) {
        if let Some(follower) = self.followers.get_mut(&id) {
            follower.last_seen = now;
            return;
        }
        self.followers
            .retain(|_, follower| follower.holds_a_lease(now));
        if self.followers.len() < MAX_FOLLOWERS {
            let follower = Follower {
                last_seen: now,
                told_goodbye: false,
            };
            self.followers.insert(id, follower);
        }
    }

    /// Notes that a follower was told that the run is over.
    pub(crate) fn told(&mut self, id: FollowerId) {
        if let Some(follower) = self.followers.get_mut(&id) {
            follower.told_goodbye = true;
        }
    }

    /// The run is over.
    pub(crate) fn close(&mut self, now: Instant) {
        self.over = Some(now);
    }

    /// Whether nobody is left to be waited for.
    pub(crate) fn everyone_told(&self, now: Instant) -> bool {
        let is_late = |over: Instant| now.saturating_duration_since(over) >= LAST_SCORE_TIMEOUT;
        let is_done = |follower: &Follower| follower.told_goodbye || !follower.holds_a_lease(now);
        self.over.is_some_and(is_late) || self.followers.values().all(is_done)
    }
}

impl Follower {
    fn holds_a_lease(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last_seen) < FOLLOWER_LEASE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::some_time;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_run_waits_for_those_that_live_until_they_are_told() {
        let start = some_time();
        let mut followers = Followers::default();
        assert!(followers.everyone_told(start));
        followers.seen(start, FollowerId(1));
        followers.seen(start, FollowerId(2));
        followers.close(start);
        followers.told(FollowerId(1));
        assert!(!followers.everyone_told(start + 14 * SECOND));
        followers.seen(start + 14 * SECOND, FollowerId(2));
        assert!(!followers.everyone_told(start + 16 * SECOND));
        followers.told(FollowerId(2));
        assert!(followers.everyone_told(start + 16 * SECOND));
    }

    #[test]
    fn a_run_does_not_wait_for_one_that_was_killed() {
        let start = some_time();
        let mut followers = Followers::default();
        followers.seen(start, FollowerId(1));
        followers.close(start);
        assert!(!followers.everyone_told(start + FOLLOWER_LEASE / 2));
        assert!(followers.everyone_told(start + FOLLOWER_LEASE));
    }

    #[test]
    fn a_run_does_not_wait_for_ever_for_one_that_lives() {
        let start = some_time();
        let mut followers = Followers::default();
        followers.close(start);
        let (soon, late) = (
            start + LAST_SCORE_TIMEOUT / 2,
            start + 2 * LAST_SCORE_TIMEOUT,
        );
        followers.seen(soon, FollowerId(1));
        assert!(!followers.everyone_told(soon));
        followers.seen(late, FollowerId(1));
        assert!(followers.everyone_told(late));
    }

    #[test]
    fn only_so_many_are_remembered_and_the_dead_make_room() {
        let start = some_time();
        let mut followers = Followers::default();
        for id in 0..2 * MAX_FOLLOWERS as u64 {
            followers.seen(start, FollowerId(id));
        }
        assert_eq!(followers.followers.len(), MAX_FOLLOWERS);
        followers.seen(start + FOLLOWER_LEASE, FollowerId(1000));
        assert_eq!(followers.followers.len(), 1);
    }
}
