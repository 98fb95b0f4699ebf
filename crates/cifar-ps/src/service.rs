//! Answers the wire: a lock, a clock and a way to wait, around [`Training`]; and the file that each
//! commit goes to before anybody hears of it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use cifar_params::{Layout, RunConfig, StateDigest, StateFile, StateFileError, Values};
use cifar_wire::client::PULL_HOLD;
use cifar_wire::messages::{
    Assignment, Member, Pull, Push, Refusal, Registered, Registration, Status, Verdict,
};
use cifar_wire::server::{ParameterServer, RequestError};
use tokio::sync::watch;

use crate::training::Training;

/// The run behind a lock, and a signal for whoever waits for it to change.
#[derive(Debug)]
pub struct Service {
    guarded: Mutex<Guarded>,
    changed: watch::Sender<()>,
    num_values: usize,
}

/// The run and the file that holds its newest state.
#[derive(Debug)]
struct Guarded {
    training: Training,
    state_file: StateFile,
    /// The state that the file holds.
    kept: StateDigest,
    failure: Option<StateFileError>,
}

impl Guarded {
    /// Makes the file hold the newest state.
    fn keep(&mut self) {
        let snapshot = self.training.snapshot();
        if snapshot.digest == self.kept {
            return;
        }
        let note = note_of(self.training.run());
        match self
            .state_file
            .commit(&snapshot.state, snapshot.digest, &note)
        {
            Ok(()) => self.kept = snapshot.digest,
            Err(error) => self.failure = Some(error),
        }
    }
}

/// What is kept with each state: the run that it belongs to, as JSON.
///
/// # Panics
///
/// Never: a configuration has no map with keys that JSON lacks.
#[must_use]
pub fn note_of(run: &RunConfig) -> Vec<u8> {
    serde_json::to_vec(run).expect("a configuration is numbers and names")
}

impl Service {
    /// A service for `training`, whose gradients are of `layout`. `state_file` holds its state.
    #[must_use]
    pub fn new(training: Training, state_file: StateFile, layout: &Layout) -> Self {
        let (changed, _) = watch::channel(());
        let kept = training.snapshot().digest;
        let guarded = Guarded {
            training,
            state_file,
            kept,
            failure: None,
        };
        Service {
            guarded: Mutex::new(guarded),
            changed,
            num_values: layout.num_values(),
        }
    }

    /// Why the newest state could not be kept, if so; the run must then not go on.
    pub fn take_failure(&self) -> Option<StateFileError> {
        self.lock().failure.take()
    }

    /// Asks the run something that changes nothing for those who wait.
    pub fn ask<T>(&self, question: impl FnOnce(&mut Training, Instant) -> T) -> T {
        question(&mut self.lock().training, now())
    }

    /// Changes the run and wakes those who wait.
    pub fn change<T>(&self, change: impl FnOnce(&mut Training, Instant) -> T) -> T {
        let answer = self.ask(change);
        self.changed.send_replace(());
        answer
    }

    /// Sees every change from now on.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Guarded> {
        // A panic under the lock is a bug that ends the program; until it does, the others go on.
        self.guarded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Time comes from tokio's clock, which a simulation can set, and is handed down from here.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl ParameterServer for Service {
    async fn run(&self) -> Result<RunConfig, RequestError> {
        Ok(self.ask(|training, _| training.run().clone()))
    }

    async fn register(
        &self,
        registration: Registration,
    ) -> Result<Result<Registered, Refusal>, RequestError> {
        Ok(self.change(|training, now| training.register(now, registration)))
    }

    async fn pull(&self, pull: Pull) -> Result<Assignment, RequestError> {
        let mut changes = self.changes();
        let answer = async {
            loop {
                if let Some(assignment) = self.ask(|training, now| training.pull(now, pull)) {
                    return assignment;
                }
                // The sender lives as long as this service, so that this cannot fail.
                let _ = changes.changed().await;
            }
        };
        Ok(tokio::time::timeout(PULL_HOLD, answer)
            .await
            .unwrap_or(Assignment::Wait))
    }

    async fn push(&self, push: Push) -> Result<Verdict, RequestError> {
        let gradients =
            Values::from_le_bytes(&push.gradients, self.num_values).ok_or_else(|| {
                RequestError::Invalid("the gradients are not of this model".to_owned())
            })?;
        if !self.ask(|training, _| training.has_tower(push.tower_step.tower)) {
            return Err(RequestError::Invalid(format!(
                "there is no tower {}",
                push.tower_step.tower
            )));
        }
        let verdict = {
            let mut guarded = self.lock();
            let verdict = guarded.training.push(now(), &push, gradients);
            guarded.keep();
            verdict
        };
        self.changed.send_replace(());
        Ok(verdict)
    }

    async fn heartbeat(&self, member: Member) -> Result<bool, RequestError> {
        Ok(self.ask(|training, now| training.heartbeat(now, member)))
    }

    async fn leave(&self, member: Member) -> Result<(), RequestError> {
        self.change(|training, _| training.leave(member));
        Ok(())
    }

    async fn status(&self) -> Result<Status, RequestError> {
        Ok(self.ask(|training, _| training.status()))
    }
}
