//! The requests that are under way, by whom: each peer has so many of a kind at a time and no more.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use pserver_guard::admission::Peer;
use pserver_guard::identity::Identity;
use pserver_guard::limits::{
    BYTES_OF_READ, MAX_ANSWERS_OF_PEER, MAX_CHECKPOINTS_OF_PEER, MAX_FOLLOWING_OF_PEER,
    MAX_PUSHES_OF_WORKER,
};
use tonic::{Extensions, Status};

use crate::messages::Member;

/// The requests that are under way.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    /// By number and secret: requests that show another secret are not the worker's.
    pushes: Counts<Member>,
    answers: Counts<String>,
    checkpoints: Counts<String>,
    followed: Counts<String>,
}

impl InFlight {
    /// A push of a worker begins; it is under way until what this gives is dropped.
    ///
    /// # Errors
    ///
    /// A status for a worker that has too many.
    pub(crate) fn begin_push(&self, member: Member) -> Result<UnderWay<Member>, Status> {
        let begun = self.pushes.begin(member, MAX_PUSHES_OF_WORKER);
        begun.ok_or_else(|| {
            Status::unavailable(format!(
                "{MAX_PUSHES_OF_WORKER} pushes of worker {} are under way",
                member.worker
            ))
        })
    }

    /// An answer with variables begins, which is under way until what this gives is dropped.
    ///
    /// # Errors
    ///
    /// A status for a peer that does not read what it asks for.
    pub(crate) fn begin_answer(
        &self,
        extensions: &Extensions,
    ) -> Result<Option<UnderWay<String>>, Status> {
        begin_of_peer(&self.answers, extensions, MAX_ANSWERS_OF_PEER, |who| {
            format!("{MAX_ANSWERS_OF_PEER} answers to {who} are under way and not read")
        })
    }

    /// A checkpoint of so many bytes is sent, which is under way until what this gives is dropped.
    ///
    /// # Errors
    ///
    /// A status for a peer that fetches several already.
    pub(crate) fn begin_checkpoint(
        &self,
        extensions: &Extensions,
        bytes: usize,
    ) -> Result<Option<UnderWay<String>>, Status> {
        if let Some(peer) = extensions.get::<Peer>() {
            peer.charge((bytes / BYTES_OF_READ) as f64);
        }
        begin_of_peer(
            &self.checkpoints,
            extensions,
            MAX_CHECKPOINTS_OF_PEER,
            |who| format!("{who} fetches {MAX_CHECKPOINTS_OF_PEER} checkpoints already"),
        )
    }

    /// The ledger is followed, until what this gives is dropped.
    ///
    /// # Errors
    ///
    /// A status for a peer that follows it several times already.
    pub(crate) fn begin_following(
        &self,
        extensions: &Extensions,
    ) -> Result<Option<UnderWay<String>>, Status> {
        begin_of_peer(&self.followed, extensions, MAX_FOLLOWING_OF_PEER, |who| {
            format!("{who} follows the ledger {MAX_FOLLOWING_OF_PEER} times already")
        })
    }
}

/// One more for the peer of a request. Nothing is counted where there is no connection, as in a simulation.
fn begin_of_peer(
    counts: &Counts<String>,
    extensions: &Extensions,
    most: usize,
    too_many: impl FnOnce(&str) -> String,
) -> Result<Option<UnderWay<String>>, Status> {
    let Some(peer) = extensions.get::<Peer>() else {
        return Ok(None);
    };
    let who = peer.who();
    let begun = counts.begin(who.clone(), most);
    begun
        .map(Some)
        .ok_or_else(|| Status::unavailable(too_many(&who)))
}

/// How many requests of each key are under way.
#[derive(Debug)]
pub(crate) struct Counts<K>(Arc<Mutex<HashMap<K, usize>>>);

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Counts(Arc::default())
    }
}

impl<K: Hash + Eq + Clone> Counts<K> {
    /// One more, unless there are so many already.
    pub(crate) fn begin(&self, key: K, most: usize) -> Option<UnderWay<K>> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(key.clone()).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(UnderWay {
            counts: Arc::clone(&self.0),
            key,
        })
    }
}

/// A request that is under way.
#[derive(Debug)]
pub(crate) struct UnderWay<K: Hash + Eq> {
    counts: Arc<Mutex<HashMap<K, usize>>>,
    key: K,
}

impl<K: Hash + Eq> Drop for UnderWay<K> {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

fn certificate(extensions: &Extensions) -> Option<&Identity> {
    extensions.get::<Peer>()?.certificate()
}

/// The name of a worker that calls itself `chosen`: that of its certificate, if it has one, and the number
/// of its process, which tells several with one certificate apart.
pub(crate) fn name_of(extensions: &Extensions, chosen: String) -> String {
    match certificate(extensions) {
        Some(certificate) => certified_name(&certificate.name, &chosen),
        None => chosen,
    }
}

fn certified_name(certified: &str, chosen: &str) -> String {
    const MAX_DIGITS: usize = 10;
    let process = chosen.rsplit('/').next().unwrap_or_default();
    let is_number = process.bytes().all(|byte| byte.is_ascii_digit());
    match is_number && (1..=MAX_DIGITS).contains(&process.len()) {
        true => format!("{certified}/{process}"),
        false => certified.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::{SECRET_BYTES, Secret, WorkerId};

    #[test]
    fn a_certificate_names_a_worker_whatever_it_calls_itself() {
        assert_eq!(certified_name("worker-3", "node7/4312"), "worker-3/4312");
        for chosen in ["node7", "x/y", "", "a/", "a/123456789012"] {
            assert_eq!(certified_name("worker-3", chosen), "worker-3", "{chosen}");
        }
    }

    #[test]
    fn pushes_of_a_worker_are_counted_until_they_are_over() {
        let in_flight = InFlight::default();
        let member = |worker, secret| Member {
            worker: WorkerId(worker),
            secret: Secret([secret; SECRET_BYTES]),
        };
        let _guesses = [2, 2].map(|wrong| in_flight.begin_push(member(0, wrong)).unwrap());
        let first = in_flight.begin_push(member(0, 1)).unwrap();
        let _second = in_flight.begin_push(member(0, 1)).unwrap();
        assert!(in_flight.begin_push(member(0, 1)).is_err());
        assert!(in_flight.begin_push(member(1, 1)).is_ok());
        drop(first);
        assert!(in_flight.begin_push(member(0, 1)).is_ok());
    }
}
