//! A worker as the server sees one: the real client, the real loop of requests, made-up gradients. Some share
//! memory with the server.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use pserver_run::request::PULL_HOLD;
use pserver_run::{GlobalStep, StateDigest};
use pserver_state::{Copied, StateReader, Values};
use pserver_wire::client::{Client, ClientError};
use pserver_wire::gradient_slot::WorkerSlot;
use pserver_wire::messages::{
    Assignment, Attachment, Delivery, Goodbye, Gradients, Losses, Member, PROTOCOL_VERSION, Pull,
    Push, Pushed, Registration, SharedMemory, Then, Verdict, Work, WorkerId,
};

use crate::dice::{Dice, Purpose};
use crate::model::{self, DATA_SET, NUM_VALUES, layout, numerics};
use crate::wire;
use crate::world::Shared;

/// How long a request may go without an answer before the worker tries again.
const PATIENCE: Duration = Duration::from_secs(2);

/// One life of a worker, from its start until it is told that the run is complete.
pub(crate) async fn work(shared: Rc<Shared>, number: usize) -> turmoil::Result {
    let life = shared.count_worker_life();
    let client = wire::client();
    let mut worker = FakeWorker {
        dice: Dice::new(shared.plan.seed, Purpose::Worker, number as u64, life),
        signs: Rc::new(Signs::default()),
        held: None,
        memory: None,
        client,
        number,
        shared,
    };
    tokio::task::spawn_local(give_signs_of_life(
        worker.client.clone(),
        Rc::clone(&worker.signs),
        worker.shared.plan.lease / 3,
    ));
    loop {
        let member = worker.register().await;
        if worker.train(member).await == Over::Complete {
            break;
        }
    }
    worker.note(format_args!("is told that the run is complete"));
    worker.shared.is_done(number);
    // The process ends here; the simulation takes the host down, and its connection with it.
    std::future::pending().await
}

/// Why a membership is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    Complete,
    Unregistered,
}

/// What the heartbeat and the worker share.
#[derive(Debug, Default)]
struct Signs {
    member: Cell<Option<Member>>,
    /// The whole process stands still.
    hangs: Cell<bool>,
}

async fn give_signs_of_life(mut client: Client, signs: Rc<Signs>, interval: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        if let Some(member) = signs.member.get().filter(|_| !signs.hangs.get()) {
            let _ = tokio::time::timeout(PATIENCE, client.heartbeat(member)).await;
        }
    }
}

struct FakeWorker {
    shared: Rc<Shared>,
    number: usize,
    client: Client,
    dice: Dice,
    signs: Rc<Signs>,
    held: Option<(StateDigest, Bytes)>,
    memory: Option<Memory>,
}

/// What a worker has open of its server's memory.
struct Memory {
    state: StateReader,
    slot: WorkerSlot,
}

impl FakeWorker {
    fn note(&self, event: std::fmt::Arguments<'_>) {
        self.shared
            .note(format_args!("worker {} {event}", self.number));
    }

    /// Repeats a request until it is answered, with growing pauses.
    async fn answer<T>(
        &mut self,
        patience: Duration,
        mut request: impl AsyncFnMut(&mut Client) -> Result<T, ClientError>,
    ) -> T {
        let mut pause_millis = 20;
        loop {
            match tokio::time::timeout(patience, request(&mut self.client)).await {
                Ok(Ok(answer)) => return answer,
                Ok(Err(error)) if !error.is_transient() => {
                    let what = format!("worker {}: {error}", self.number);
                    self.shared.history.borrow_mut().violate(what);
                }
                Ok(Err(_)) => self.note(format_args!("finds no server")),
                Err(_) => self.note(format_args!("gets no answer")),
            }
            tokio::time::sleep(self.dice.millis(pause_millis / 2, pause_millis)).await;
            pause_millis = (2 * pause_millis).min(1000);
        }
    }

    async fn register(&mut self) -> Member {
        let registration = Registration {
            protocol_version: PROTOCOL_VERSION,
            layout_fingerprint: layout().fingerprint(),
            data_digest: DATA_SET.digest(),
            numerics: numerics(),
            name: format!("worker {}", self.number),
        };
        let registered = self
            .answer(PATIENCE, async |client| {
                client.register(registration.clone()).await
            })
            .await;
        let member = registered.member;
        self.note(format_args!("is member {}", member.worker));
        self.signs.member.set(Some(member));
        self.memory = match self.dice.chance(60) {
            true => self.share_memory(member).await,
            false => None,
        };
        member
    }

    /// Opens the server's memory, if that is still the server that offered it.
    async fn share_memory(&mut self, member: Member) -> Option<Memory> {
        let offer = self
            .answer(PATIENCE, async |client| client.share_memory(member).await)
            .await;
        let SharedMemory::Offered {
            state_path,
            slot_path,
        } = offer
        else {
            return None;
        };
        let memory = Memory {
            state: StateReader::open(&state_path, &layout()).ok()?,
            slot: WorkerSlot::open(&slot_path, NUM_VALUES).ok()?,
        };
        let nonce = memory.slot.nonce();
        let attachment = self
            .answer(PATIENCE, async |client| client.attach(member, nonce).await)
            .await;
        if attachment != Attachment::Attached {
            return None;
        }
        self.note(format_args!("shares memory"));
        Some(memory)
    }

    async fn train(&mut self, member: Member) -> Over {
        let mut next = None;
        loop {
            let assignment = match next.take() {
                Some(assignment) => assignment,
                None => self.pull(member).await,
            };
            let work = match assignment {
                Assignment::Work(work) => work,
                Assignment::Wait => continue,
                Assignment::Goodbye(Goodbye::Quarantined) => return Over::Unregistered,
                Assignment::Goodbye(_) => return Over::Complete,
                Assignment::Unregistered => return Over::Unregistered,
            };
            if self.held.as_ref().map(|(digest, _)| *digest) != Some(work.state_digest) {
                self.note(format_args!("was overtaken"));
                continue;
            }
            self.misbehave(member);
            self.impersonate(member, &work);
            self.compute().await;
            let (push, gradients) = self.push_of(member, &work);
            self.repeat_later(push, &gradients);
            let gradients = self.overwrite(push, gradients).await;
            let pushed = self.push(push, gradients).await;
            if pushed.verdict == Verdict::Unregistered {
                return Over::Unregistered;
            }
            next = pushed.next;
            if self.may(self.shared.plan.habits.leave) {
                self.leave(member).await;
                return Over::Unregistered;
            }
        }
    }

    async fn pull(&mut self, member: Member) -> Assignment {
        let held = self.held.as_ref().map(|(digest, _)| *digest);
        let shared = Rc::clone(&self.shared);
        let (floor, assignment) = self
            .answer(PULL_HOLD + PATIENCE, async |client| {
                let floor = shared.history.borrow().heard();
                Ok((floor, client.pull(Pull { member, held }).await?))
            })
            .await;
        self.take(floor, &assignment);
        assignment
    }

    /// Looks at the answer to a pull.
    fn take(&mut self, floor: GlobalStep, assignment: &Assignment) {
        let mut history = self.shared.history.borrow_mut();
        match assignment {
            Assignment::Work(work) => history.work(floor, work),
            Assignment::Goodbye(goodbye) => history.goodbye(*goodbye),
            Assignment::Wait | Assignment::Unregistered => {}
        }
        drop(history);
        match assignment {
            Assignment::Work(work) => {
                self.note(format_args!("gets {}", work.tower_step));
                match &work.variables {
                    Delivery::Held => {}
                    Delivery::Sent(variables) => {
                        self.held = Some((work.state_digest, variables.clone()));
                    }
                    Delivery::InStateFile { sequence } => self.read(*sequence, work.state_digest),
                }
            }
            other => self.note(format_args!("pulls: {other:?}")),
        }
    }

    /// Reads the variables out of the server's state file; it may come too late for them.
    fn read(&mut self, sequence: u64, digest: StateDigest) {
        self.held = None;
        let memory = self.memory.as_ref();
        let memory = memory.expect("the server shares with those who do");
        let mut variables = Values::zeros(NUM_VALUES);
        let copied = memory
            .state
            .read_variables(sequence, digest, &mut variables);
        match copied {
            Ok(Copied::Whole) => {
                let bytes = Bytes::copy_from_slice(variables.as_bytes());
                self.held = Some((digest, bytes));
            }
            Ok(Copied::Overtaken) => {}
            Err(error) => {
                let what = format!("worker {}: {error}", self.number);
                self.shared.history.borrow_mut().violate(what);
            }
        }
    }

    /// The time that a gradient takes.
    async fn compute(&mut self) {
        let habits = self.shared.plan.habits;
        let (low, high) = self.shared.plan.compute_millis;
        let lease_millis = self.shared.plan.lease.as_millis() as u64;
        let mut time = self.dice.millis(low, high);
        if self.may(habits.slow) {
            time += self.dice.millis(300, 2 * lease_millis);
            self.note(format_args!("is slow"));
        }
        let hangs = self.may(habits.hang);
        if hangs {
            time += self.dice.millis(lease_millis, 3 * lease_millis);
            self.note(format_args!("hangs"));
        }
        // It may be only the thread that computes: then the heartbeat goes on.
        self.signs.hangs.set(hangs && self.dice.chance(50));
        tokio::time::sleep(time).await;
        self.signs.hangs.set(false);
    }

    fn push_of(&mut self, member: Member, work: &Work) -> (Push, Gradients) {
        let (_, variables) = self
            .held
            .as_ref()
            .expect("the server sends what is not held");
        let mut gradient = model::gradient(variables, self.shared.plan.seed, work.tower_step);
        // Never twice in a row: two that agree on nonsense are believed, and end the run.
        if work.attempt == 0 && self.may(self.shared.plan.habits.nonsense) {
            gradient[0] = f32::NAN;
            self.note(format_args!("computes nonsense"));
        }
        let push = Push {
            losses: model::losses(&gradient),
            ..self.push_at(member, work)
        };
        let gradients = match &mut self.memory {
            Some(memory) => {
                self.shared.history.borrow_mut().totals.in_slots += 1;
                Gradients::InSlot(memory.slot.write(&gradient))
            }
            None => {
                let bytes: Vec<u8> = gradient.iter().flat_map(|g| g.to_le_bytes()).collect();
                Gradients::Sent(self.in_parts(bytes.into()))
            }
        };
        let both = (push, gradients);
        self.shared.history.borrow_mut().pushes.push(both.clone());
        both
    }

    /// A push of no losses for this work.
    fn push_at(&self, member: Member, work: &Work) -> Push {
        Push {
            member,
            tower_step: work.tower_step,
            state_digest: work.state_digest,
            losses: Losses::default(),
            examples_digest: model::examples(&self.shared.plan, work.tower_step).0,
            attempt: work.attempt,
            compute_time: Duration::from_millis(1),
        }
    }

    /// Now and then as workers on other hosts send them: the last part before the rest.
    fn in_parts(&mut self, mut bytes: Bytes) -> Vec<Bytes> {
        if self.dice.chance(50) {
            return vec![bytes];
        }
        let last = bytes.split_off(bytes.len() / 2);
        vec![bytes, last]
    }

    /// Hands a gradient in, and pulls with it as real workers do, or not.
    async fn push(&mut self, push: Push, gradients: Gradients) -> Pushed {
        let shared = Rc::clone(&self.shared);
        let mut first = true;
        let then = match self.dice.chance(70) {
            true => Then::Pull,
            false => Then::Nothing,
        };
        let (floor, pushed) = self
            .answer(PULL_HOLD + PATIENCE, async |client| {
                let floor = shared.history.borrow().heard();
                if !std::mem::take(&mut first) {
                    shared.history.borrow_mut().totals.duplicates += 1;
                }
                let pushed = client.push(push, gradients.clone(), then).await?;
                Ok((floor, pushed))
            })
            .await;
        let Pushed { verdict, next } = &pushed;
        self.shared
            .history
            .borrow_mut()
            .verdict(floor, &push, *verdict);
        self.note(format_args!("pushes {}: {verdict:?}", push.tower_step));
        if let Some(assignment) = next {
            self.take(floor, assignment);
        }
        pushed
    }

    /// The same push once more, at once or later; by the membership that the worker has by then, or by that of now.
    fn repeat_later(&mut self, push: Push, gradients: &Gradients) {
        if self.may(self.shared.plan.habits.repeat) {
            let longest = *self.dice.pick(&[0, 100, 1000, 5000]);
            let delay = self.dice.millis(0, longest);
            self.send_again(push, gradients.clone(), delay);
        }
    }

    /// Now and then writes something else to its slot while a push of what was there is on its way, and then the
    /// same gradient once more, to be pushed as it should be.
    async fn overwrite(&mut self, push: Push, gradients: Gradients) -> Gradients {
        if !self.may(self.shared.plan.habits.repeat) {
            return gradients;
        }
        let Some(memory) = self.memory.as_mut() else {
            return gradients;
        };
        let mut under_way = memory.slot.begin();
        let gradient = under_way.to_vec();
        under_way.fill(1.0);
        self.send_again(push, gradients, Duration::ZERO);
        tokio::time::sleep(self.dice.millis(0, 100)).await;
        under_way.copy_from_slice(&gradient);
        Gradients::InSlot(under_way.finish())
    }

    /// Sends what must have no effect.
    fn misbehave(&mut self, member: Member) {
        if self.may(self.shared.plan.habits.old_push) {
            let history = self.shared.history.borrow();
            if history.pushes.is_empty() {
                return;
            }
            let (mut push, gradients) = self.dice.pick(&history.pushes).clone();
            drop(history);
            if self.dice.chance(70) && may_be_anothers(&gradients) {
                push.member = member;
            }
            let delay = self.dice.millis(0, 100);
            self.send_again(push, gradients, delay);
        }
    }

    /// Pushes nonsense under the number of another worker, with all else that this one was told.
    fn impersonate(&mut self, member: Member, work: &Work) {
        if !self.may(self.shared.plan.habits.impersonate) {
            return;
        }
        let worker = WorkerId(self.dice.between(0, 9) as u32);
        let push = Push {
            member: Member { worker, ..member },
            losses: model::losses(&[f32::NAN; NUM_VALUES]),
            ..self.push_at(member, work)
        };
        let gradients = Gradients::Sent(vec![vec![0xff; NUM_VALUES * size_of::<f32>()].into()]);
        if worker == member.worker {
            return;
        }
        let (shared, mut client) = (Rc::clone(&self.shared), self.client.clone());
        tokio::task::spawn_local(async move {
            let answer = client.push(push, gradients, Then::Nothing);
            if let Ok(Ok(Pushed { verdict, .. })) = tokio::time::timeout(PATIENCE, answer).await {
                let mut history = shared.history.borrow_mut();
                history.totals.impersonations += 1;
                if verdict != Verdict::Unregistered {
                    let what = format!("a push under the number of worker {worker} is {verdict:?}");
                    history.violate(what);
                }
            }
        });
    }

    fn send_again(&mut self, mut push: Push, gradients: Gradients, delay: Duration) {
        let (shared, signs) = (Rc::clone(&self.shared), Rc::clone(&self.signs));
        let (mut client, number) = (self.client.clone(), self.number);
        let as_of_then = self.dice.chance(50) && may_be_anothers(&gradients);
        tokio::task::spawn_local(async move {
            tokio::time::sleep(delay).await;
            if let Some(member) = signs.member.get().filter(|_| as_of_then) {
                push.member = member;
            }
            let floor = shared.history.borrow().heard();
            shared.history.borrow_mut().totals.duplicates += 1;
            let answer = client.push(push, gradients, Then::Nothing);
            if let Ok(Ok(Pushed { verdict, .. })) = tokio::time::timeout(PATIENCE, answer).await {
                let tower_step = push.tower_step;
                shared.history.borrow_mut().verdict(floor, &push, verdict);
                shared.note(format_args!(
                    "worker {number} pushes {tower_step} again: {verdict:?}"
                ));
            }
        });
    }

    async fn leave(&mut self, member: Member) {
        self.note(format_args!("leaves"));
        self.signs.member.set(None);
        let _ = tokio::time::timeout(PATIENCE, self.client.leave(member)).await;
        let pause = self.dice.millis(0, 1000);
        tokio::time::sleep(pause).await;
    }

    /// Whether something happens that happens `percent` times of a hundred, while anything does.
    fn may(&mut self, percent: u64) -> bool {
        self.dice.chance(percent) && !self.shared.is_quiet()
    }
}

/// Whether these gradients can be pushed as another member's: a slot is of one member, and the same number in
/// another slot means other gradients.
fn may_be_anothers(gradients: &Gradients) -> bool {
    matches!(gradients, Gradients::Sent(_))
}
