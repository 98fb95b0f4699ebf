//! Who speaks for a worker, under what name, and with how many requests at a time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use cifar_guard::admission::Peer;
use cifar_guard::identity::Identity;
use cifar_guard::limits::{MAX_ANSWERS_OF_PEER, MAX_PUSHES_OF_WORKER};
use tonic::{Extensions, Status};

use crate::convert;
use crate::messages::Member;
use crate::pb;

/// What the server knows of its workers' connections.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    /// The common name of the certificate that a worker registered with.
    owners: Mutex<BTreeMap<Member, String>>,
    pushes: Counts<Member>,
    answers: Counts<String>,
}

impl Claims {
    /// Notes who has registered. Those that are no members any more are forgotten.
    pub(crate) fn registered(
        &self,
        member: Member,
        extensions: &Extensions,
        is_member: impl Fn(Member) -> bool,
    ) {
        let Some(certificate) = certificate(extensions) else {
            return;
        };
        let mut owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        owners.retain(|member, _| is_member(*member));
        owners.insert(member, certificate.name.clone());
    }

    fn check(&self, member: Member, extensions: &Extensions) -> Result<(), Status> {
        let owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(owner) = owners.get(&member) else {
            return Ok(());
        };
        match certificate(extensions) {
            Some(certificate) if certificate.name == *owner => Ok(()),
            _ => Err(Status::permission_denied(format!(
                "worker {} registered with another certificate",
                member.worker
            ))),
        }
    }

    /// The worker that a request names, if whoever asks may speak for it.
    ///
    /// # Errors
    ///
    /// A status for a request that names none, and for somebody else.
    pub(crate) fn member_of(
        &self,
        extensions: &Extensions,
        member: Option<pb::Member>,
    ) -> Result<Member, Status> {
        let member = convert::member(member)?;
        self.check(member, extensions)?;
        Ok(member)
    }

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

    /// An answer with variables or a checkpoint begins, which is under way until what this gives is
    /// dropped. Nothing is counted where there is no connection, as in a simulation.
    ///
    /// # Errors
    ///
    /// A status for a peer that does not read what it asks for.
    pub(crate) fn begin_answer(
        &self,
        extensions: &Extensions,
    ) -> Result<Option<UnderWay<String>>, Status> {
        let Some(peer) = extensions.get::<Peer>() else {
            return Ok(None);
        };
        let who = peer.who();
        let begun = self.answers.begin(who.clone(), MAX_ANSWERS_OF_PEER);
        begun.map(Some).ok_or_else(|| {
            Status::unavailable(format!(
                "{MAX_ANSWERS_OF_PEER} answers to {who} are under way and not read"
            ))
        })
    }
}

/// How many requests of each key are under way.
#[derive(Debug)]
struct Counts<K>(Arc<Mutex<BTreeMap<K, usize>>>);

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Counts(Arc::default())
    }
}

impl<K: Ord + Clone> Counts<K> {
    /// One more, unless there are so many already.
    fn begin(&self, key: K, most: usize) -> Option<UnderWay<K>> {
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
pub(crate) struct UnderWay<K: Ord> {
    counts: Arc<Mutex<BTreeMap<K, usize>>>,
    key: K,
}

impl<K: Ord> Drop for UnderWay<K> {
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
    use crate::messages::{Session, WorkerId};

    #[test]
    fn a_certificate_names_a_worker_whatever_it_calls_itself() {
        assert_eq!(certified_name("worker-3", "node7/4312"), "worker-3/4312");
        for chosen in ["node7", "x/y", "", "a/", "a/123456789012"] {
            assert_eq!(certified_name("worker-3", chosen), "worker-3", "{chosen}");
        }
    }

    #[test]
    fn pushes_of_a_worker_are_counted_until_they_are_over() {
        let claims = Claims::default();
        let member = |worker| Member {
            session: Session(1),
            worker: WorkerId(worker),
        };
        let first = claims.begin_push(member(0)).unwrap();
        let _second = claims.begin_push(member(0)).unwrap();
        assert!(claims.begin_push(member(0)).is_err());
        assert!(claims.begin_push(member(1)).is_ok());
        drop(first);
        assert!(claims.begin_push(member(0)).is_ok());
    }
}
