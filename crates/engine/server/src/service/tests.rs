//! A service whose workers share memory with it, and its followers.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use pserver_guard::Credentials;
use pserver_run::{Initializer, TowerStep, VariableSpec};
use pserver_state::{Copied, Folder, StateFile, StateReader, Stored, Values};
use pserver_wire::client::Client;
use pserver_wire::gradient_slot::WorkerSlot;
use pserver_wire::messages::{Gradients, Work, WorkerId, WorkerStatus};
use pserver_wire::transport::{incoming, server_builder};
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::*;
use crate::commit_path::Files;
use crate::fixtures::{
    self, calendar, one_and_two, push_of, registration, run_config, score, some_time,
};
use crate::run::Intervals;

/// Two towers over two numbers, which begin as 1 and 2; the learning rate is a half.
struct Bench {
    service: Arc<Service>,
    layout: Layout,
    folder: TempDir,
}

impl Bench {
    fn new() -> Self {
        let layout = Layout::new(vec![VariableSpec {
            name: "a".to_owned(),
            shape: vec![2],
            initializer: Initializer::Constant(0.0),
        }]);
        let folder = tempfile::tempdir().unwrap();
        let state = one_and_two();
        let stored = Stored {
            digest: state.digest(),
            state,
            note: Vec::new(),
        };
        let state_path = folder.path().join("state");
        let state_file = StateFile::create(&state_path, &layout, 10_000, &stored).unwrap();
        let ledger = pserver_ledger::LedgerFile::open(&folder.path().join("ledger")).unwrap();
        let calendar = calendar(0);
        let files = Files {
            state_file,
            ledger: ledger.0,
        };
        let commit_path = CommitPath::new(files, calendar);
        let intervals = Intervals {
            checkpoint_steps: 100,
            summary_steps: 0,
        };
        let run = fixtures::run(some_time(), intervals);
        let files = FollowerFiles::new(&Folder::open(folder.path()).unwrap(), calendar);
        let service = Service::new(run, commit_path, &layout, files);
        Bench {
            service: Arc::new(service),
            layout,
            folder,
        }
    }

    /// A client of the service behind a socket.
    async fn client(&self) -> Client {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let service = pserver_wire::service::service(Arc::clone(&self.service), &self.layout);
        let server = server_builder(&self.layout)
            .add_service(service)
            .serve_with_incoming(incoming(listener));
        tokio::spawn(server);
        Client::new(&address, &self.layout, &Credentials::default()).unwrap()
    }

    /// Waits until so many pulls wait for work.
    async fn until_waiting(&self, number: usize) {
        while self.service.inner.lock().unwrap().waiting.len() != number {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn join(&self) -> Member {
        self.try_to_join().await.unwrap()
    }

    async fn try_to_join(&self) -> Result<Member, RequestError> {
        let registration = registration(self.layout.fingerprint());
        let registered = self.service.register(registration).await?;
        Ok(registered.unwrap().member)
    }

    async fn share(&self, member: Member) -> (StateReader, WorkerSlot) {
        let offer = self.service.share_memory(member).await.unwrap();
        let messages::SharedMemory::Offered {
            state_path,
            slot_path,
        } = offer
        else {
            panic!("{offer:?}");
        };
        let reader = StateReader::open(&state_path, &self.layout).unwrap();
        let slot = WorkerSlot::open(&slot_path, 2).unwrap();
        let attachment = self.service.attach(member, slot.nonce()).await.unwrap();
        assert_eq!(attachment, Attachment::Attached);
        (reader, slot)
    }

    async fn pull(&self, member: Member) -> Result<Assignment, RequestError> {
        self.service.pull(Pull { member, held: None }).await
    }

    async fn work(&self, member: Member) -> Work {
        match self.pull(member).await.unwrap() {
            Assignment::Work(work) => work,
            other => panic!("expected work, got {other:?}"),
        }
    }

    async fn push(
        &self,
        member: Member,
        work: &Work,
        gradients: Gradients,
    ) -> Result<Verdict, RequestError> {
        let pushed = self.hand_in(member, work, gradients, Then::Nothing).await?;
        Ok(pushed.verdict)
    }

    /// The next work of a worker, once there is some.
    async fn push_and_pull(&self, member: Member, work: &Work, gradients: Gradients) -> Pushed {
        let answer = self.hand_in(member, work, gradients, Then::Pull).await;
        answer.unwrap()
    }

    /// As requests of a worker arrive.
    async fn hand_in(
        &self,
        member: Member,
        work: &Work,
        gradients: Gradients,
        then: Then,
    ) -> Result<Pushed, RequestError> {
        let Landing { mut memory, slot } = match self.service.land(member)? {
            Ok(landing) => landing,
            Err(verdict) => {
                return Ok(Pushed {
                    verdict,
                    next: None,
                });
            }
        };
        let gradient = match gradients {
            Gradients::Sent(parts) => {
                memory.as_bytes_mut().copy_from_slice(&parts.concat());
                Gradient::new(memory)
            }
            Gradients::InSlot(generation) => slot
                .and_then(|slot| Gradient::out_of(&slot, generation, memory))
                .ok_or_else(not_in_slot)?,
        };
        self.service
            .push(push_of(member, work), gradient, then)
            .await
    }

    fn variables(&self) -> Vec<f32> {
        let snapshot = self.service.ask(|run, _| run.snapshot());
        snapshot.state.variables.to_vec()
    }
}

/// Gradients that travel.
fn sent(numbers: [f32; 2]) -> Gradients {
    let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
    Gradients::Sent(vec![bytes.into()])
}

/// What comes next after a push that was accepted.
fn next(answer: Pushed) -> Assignment {
    assert_eq!(answer.verdict, Verdict::Accepted);
    answer.next.unwrap()
}

fn next_work(answer: Pushed) -> Work {
    match next(answer) {
        Assignment::Work(work) => work,
        other => panic!("expected work, got {other:?}"),
    }
}

fn not_in_slot() -> RequestError {
    RequestError::Invalid("not in the worker's slot".to_owned())
}

#[tokio::test]
async fn a_run_takes_so_many_workers_and_no_more() {
    let bench = Bench::new();
    let mut members = Vec::new();
    for _ in 0..max_workers(run_config().num_towers) {
        members.push(bench.join().await);
    }
    let refused = bench.try_to_join().await.unwrap_err();
    assert!(
        matches!(&refused, RequestError::NotNow(why) if why.contains("72 workers")),
        "{refused}"
    );
    bench.service.leave(members[0]).await.unwrap();
    bench.join().await;
}

#[tokio::test]
async fn a_worker_that_shares_memory_reads_variables_and_hands_gradients_over_in_it() {
    let bench = Bench::new();
    let member = bench.join().await;
    let (reader, mut slot) = bench.share(member).await;
    for (gradient, before) in [([2.0, 0.0], [1.0, 2.0]), ([0.0, 4.0], [1.0, 2.0])] {
        let work = bench.work(member).await;
        let Delivery::InStateFile { sequence } = work.variables else {
            panic!("{work:?}");
        };
        let mut variables = Values::zeros(2);
        let copied = reader.read_variables(sequence, work.state_digest, &mut variables);
        assert_eq!(copied.unwrap(), Copied::Whole);
        assert_eq!(variables[..], before);
        let generation = slot.write(&gradient);
        let verdict = bench.push(member, &work, Gradients::InSlot(generation));
        assert_eq!(verdict.await, Ok(Verdict::Accepted));
    }
    assert_eq!(bench.variables(), [0.5, 1.0]);
    let work = bench.work(member).await;
    let next = Delivery::InStateFile { sequence: 2 };
    assert_eq!(work.variables, next, "the state after the commit");
}

/// The keys cannot tell where the tower step is open: only the generation can.
#[tokio::test]
async fn a_late_push_never_takes_the_gradients_of_a_newer_one_for_its_own() {
    let bench = Bench::new();
    let member = bench.join().await;
    let (_, mut slot) = bench.share(member).await;
    let first = bench.work(member).await;
    let late = Gradients::InSlot(slot.write(&[8.0, 8.0]));
    let newer = Gradients::InSlot(slot.write(&[2.0, 0.0]));
    let answer = bench.push(member, &first, late.clone()).await;
    assert_eq!(answer, Err(not_in_slot()));
    let answer = bench.push(member, &first, newer).await;
    assert_eq!(
        answer,
        Ok(Verdict::Accepted),
        "the tower step is open still"
    );

    let second = bench.work(member).await;
    let answer = bench.push(member, &first, late).await;
    assert_eq!(answer, Err(not_in_slot()));
    let last = Gradients::InSlot(slot.write(&[0.0, 4.0]));
    let answer = bench.push(member, &first, last.clone()).await;
    assert_eq!(
        answer,
        Ok(Verdict::Accepted),
        "a duplicate, which counts no more"
    );
    let answer = bench.push(member, &second, last).await;
    assert_eq!(answer, Ok(Verdict::Accepted));
    assert_eq!(bench.variables(), [0.5, 1.0]);
}

/// Whatever a worker does with its slot while the others compute.
#[tokio::test]
async fn a_gradient_counts_as_it_was_when_it_was_pushed() {
    let bench = Bench::new();
    let (a, b) = (bench.join().await, bench.join().await);
    let (_, mut slot) = bench.share(a).await;
    let (work_a, work_b) = (bench.work(a).await, bench.work(b).await);
    let from_a = Gradients::InSlot(slot.write(&[2.0, 0.0]));
    let from_b = sent([0.0, 4.0]);
    let others = async {
        // The other worker's push is under way meanwhile, and waits for the next step.
        tokio::task::yield_now().await;
        slot.write(&[9.0, 9.0]);
        bench.push_and_pull(b, &work_b, from_b).await
    };
    let (next_a, next_b) = tokio::join!(bench.push_and_pull(a, &work_a, from_a), others);
    assert_eq!(bench.variables(), [0.5, 1.0]);
    for (answer, before) in [(next_a, work_a), (next_b, work_b)] {
        let next = TowerStep {
            global_step: GlobalStep(1),
            ..before.tower_step
        };
        assert_eq!(next_work(answer).tower_step, next);
    }
}

/// One for what arrives, and one for the gradient, the commit and all answers.
#[tokio::test]
async fn a_push_that_is_answered_within_its_hold_takes_the_lock_twice() {
    let bench = Bench::new();
    let mut client = bench.client().await;
    let (a, b) = (bench.join().await, bench.join().await);
    let (_, mut slot) = bench.share(b).await;
    let (work_a, work_b) = (bench.work(a).await, bench.work(b).await);
    let (push_a, push_b) = (push_of(a, &work_a), push_of(b, &work_b));
    let from_b = Gradients::InSlot(slot.write(&[0.0, 4.0]));
    let acquisitions = || bench.service.acquisitions.load(Ordering::Relaxed);
    let before = acquisitions();
    let mut other = client.clone();
    let waits = client.push(push_a, sent([2.0, 0.0]), Then::Pull);
    let commits = async {
        bench.until_waiting(1).await;
        other.push(push_b, from_b, Then::Pull).await
    };
    let (waited, committed) = tokio::join!(waits, commits);
    for pushed in [waited.unwrap(), committed.unwrap()] {
        assert_eq!(next_work(pushed).tower_step.global_step, GlobalStep(1));
    }
    assert_eq!(acquisitions() - before, 2 * 2);
}

#[tokio::test]
async fn workers_that_wait_get_work_in_the_order_in_which_they_came() {
    let bench = Bench::new();
    let (a, b, c) = (bench.join().await, bench.join().await, bench.join().await);
    let (work_a, work_b) = (bench.work(a).await, bench.work(b).await);
    let gone = tokio::time::timeout(Duration::from_millis(1), bench.pull(c)).await;
    assert!(gone.is_err(), "{gone:?}");
    let from_a = bench.push_and_pull(a, &work_a, sent([2.0, 0.0]));
    let from_b = async {
        bench.until_waiting(2).await;
        bench.push_and_pull(b, &work_b, sent([0.0, 4.0])).await
    };
    let (next_a, next_b) = tokio::join!(from_a, from_b);
    next_work(next_a);
    next_work(next_b);
    let status = bench.service.status().await.unwrap();
    let at_work = |of: &WorkerStatus| of.tower.is_some().then_some(of.worker);
    let at_work: Vec<WorkerId> = status.workers.iter().filter_map(at_work).collect();
    assert_eq!(
        at_work,
        [a.worker, b.worker],
        "the one that gave up has none"
    );
}

/// A client that was cut off pulls again, and the server may not know yet that it was.
#[tokio::test]
async fn a_newer_pull_takes_the_place_of_the_one_before() {
    let bench = Bench::new();
    let (a, b) = (bench.join().await, bench.join().await);
    let (work_a, work_b) = (bench.work(a).await, bench.work(b).await);
    bench.push(a, &work_a, sent([2.0, 0.0])).await.unwrap();
    let rest = async {
        bench.until_waiting(1).await;
        tokio::task::yield_now().await;
        bench.push(b, &work_b, sent([0.0, 4.0])).await
    };
    let (older, newer, pushed) = tokio::join!(bench.pull(a), bench.pull(a), rest);
    assert_eq!(older, Ok(Assignment::Wait));
    assert!(matches!(newer, Ok(Assignment::Work(_))), "{newer:?}");
    assert_eq!(pushed, Ok(Verdict::Accepted));
}

/// Only the generation tells: the keys are those of an open tower step.
#[tokio::test]
async fn a_gradient_that_is_overwritten_while_it_is_pushed_is_refused() {
    let bench = Bench::new();
    let member = bench.join().await;
    let (_, mut slot) = bench.share(member).await;
    let work = bench.work(member).await;
    let pushed = Gradients::InSlot(slot.write(&[2.0, 0.0]));
    let under_way = slot.begin();
    let answer = bench.push(member, &work, pushed).await;
    assert_eq!(answer, Err(not_in_slot()));
    let whole = Gradients::InSlot(under_way.finish());
    let answer = bench.push(member, &work, whole).await;
    assert_eq!(answer, Ok(Verdict::Accepted));
}

#[tokio::test]
async fn memory_is_shared_from_attaching_to_leaving_and_with_nobody_else() {
    let bench = Bench::new();
    let (member, other) = (bench.join().await, bench.join().await);
    let work = bench.work(member).await;
    assert!(matches!(work.variables, Delivery::Sent(_)));
    let (_, mut slot) = bench.share(member).await;
    let in_slot = Gradients::InSlot(slot.write(&[1.0, 1.0]));
    let answer = bench.push(other, &work, in_slot.clone()).await;
    assert_eq!(answer, Err(not_in_slot()));
    assert!(matches!(
        bench.work(other).await.variables,
        Delivery::Sent(_)
    ));

    bench.service.leave(member).await.unwrap();
    let answer = bench.push(member, &work, in_slot).await;
    assert_eq!(answer, Ok(Verdict::Unregistered));
    let offer = bench.service.share_memory(member).await.unwrap();
    assert_eq!(offer, messages::SharedMemory::Unregistered);
    let attachment = bench.service.attach(member, slot.nonce()).await.unwrap();
    assert_eq!(attachment, Attachment::Unregistered);
}

#[tokio::test]
async fn a_score_is_kept_once_and_one_that_is_none_of_this_run_is_refused() {
    let bench = Bench::new();
    let follower = FollowerId(1);
    let num_examples = run_config().data.num_test_examples();
    for (step, num_examples) in [(1, num_examples), (0, 0), (0, num_examples + 1)] {
        let report = bench
            .service
            .report_score(follower, score(step, num_examples));
        let refused = report.await;
        assert!(
            matches!(refused, Err(RequestError::Invalid(_))),
            "{refused:?}"
        );
    }
    bench.service.checkpoint_saved(GlobalStep(0));
    for _ in 0..2 {
        let report = bench.service.report_score(follower, score(0, num_examples));
        assert_eq!(report.await, Ok(()));
    }
    let kept = pserver_ledger::EvalDir::of_train_dir(bench.folder.path()).scores();
    let [record] = kept.unwrap().try_into().unwrap();
    assert_eq!(record.score, score(0, num_examples));
    assert_eq!(record.data, run_config().data);
}

#[tokio::test]
async fn a_follower_gets_the_newest_checkpoint_and_then_hears_that_the_run_is_over() {
    let bench = Bench::new();
    let path = bench.folder.path().join("model.ckpt-0.safetensors");
    std::fs::write(path, "a checkpoint").unwrap();
    let ask = |newer_than| {
        let follower = FollowerId(1);
        bench.service.checkpoint(CheckpointRequest {
            follower,
            newer_than,
        })
    };
    let saved = async { bench.service.checkpoint_saved(GlobalStep(0)) };
    let (reply, ()) = tokio::join!(ask(None), saved);
    let checkpoint = CheckpointReply::Checkpoint {
        global_step: GlobalStep(0),
        file: Bytes::from_static(b"a checkpoint"),
    };
    assert_eq!(reply, Ok(checkpoint));

    let everyone_told = || bench.service.ask(|run, now| run.core.everyone_told(now));
    let (reply, was_told) = tokio::join!(ask(Some(GlobalStep(0))), async {
        bench.service.change(|run, _| run.core.stop());
        bench.service.saved();
        everyone_told()
    });
    assert!(!was_told);
    assert_eq!(reply, Ok(CheckpointReply::Goodbye(Goodbye::Stopping)));
    assert!(everyone_told());
}
