//! Who speaks for a worker, under what name, and with how many pushes at a time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cifar_guard::admission::Peer;
use cifar_guard::identity::Identity;
use cifar_guard::limits::MAX_PUSHES_OF_WORKER;
use tonic::{Extensions, Status};

use crate::messages::Member;

/// What the server knows of its workers' connections.
#[derive(Debug, Default)]
pub(crate) struct Claims(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// The common name of the certificate that a worker registered with.
    owners: BTreeMap<Member, String>,
    pushes: BTreeMap<Member, usize>,
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
        let mut inner = self.lock();
        inner.owners.retain(|member, _| is_member(*member));
        inner.owners.insert(member, certificate.name.clone());
    }

    /// Sees that a request of a worker comes from whoever it registered as.
    ///
    /// # Errors
    ///
    /// A status for somebody else.
    pub(crate) fn check(&self, member: Member, extensions: &Extensions) -> Result<(), Status> {
        let inner = self.lock();
        let Some(owner) = inner.owners.get(&member) else {
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

    /// A push of a worker begins; it is under way until what this gives is dropped.
    ///
    /// # Errors
    ///
    /// A status for a worker that has too many.
    pub(crate) fn begin_push(self: &Arc<Self>, member: Member) -> Result<PushUnderWay, Status> {
        let mut inner = self.lock();
        let pushes = inner.pushes.entry(member).or_default();
        if *pushes >= MAX_PUSHES_OF_WORKER {
            return Err(Status::unavailable(format!(
                "{MAX_PUSHES_OF_WORKER} pushes of worker {} are under way",
                member.worker
            )));
        }
        *pushes += 1;
        drop(inner);
        Ok(PushUnderWay {
            claims: Arc::clone(self),
            member,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A push that is under way.
#[derive(Debug)]
pub(crate) struct PushUnderWay {
    claims: Arc<Claims>,
    member: Member,
}

impl Drop for PushUnderWay {
    fn drop(&mut self) {
        let mut inner = self.claims.lock();
        if let Some(pushes) = inner.pushes.get_mut(&self.member) {
            *pushes -= 1;
            if *pushes == 0 {
                inner.pushes.remove(&self.member);
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
        let claims = Arc::new(Claims::default());
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
