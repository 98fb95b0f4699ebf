//! Runs the server until the run is over: answers, ticks, logs, saves.
//!
//! The last state is saved before any worker is told that the run is over; then the server answers until all have heard
//! it or their leases are over. On SIGTERM it saves and leaves, and workers wait for it to come back.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use pserver_cli::exit::{Exit, Failure, OrExit};
use pserver_core::Phase;
use pserver_guard::admission::{PortTls, admit};
use pserver_guard::door::Capacity;
use pserver_guard::gate::Gate;
use pserver_run::{GlobalStep, Layout};
use pserver_wire::doorkeeper::Doorkeeper;
use pserver_wire::messages::{Goodbye, Order};
use pserver_wire::traffic::{Traffic, counted};
use pserver_wire::transport::server_builder;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tracing::{error, info, warn};

use crate::event::Event;
use crate::log_lines::LogLines;
use crate::service::{Commission, Service};
use crate::start;
use crate::step_log::StepLog;
use crate::summaries::Part;
use crate::summary_writer::{Ended, SummaryWriter};
use crate::train_dir::{TrainDir, TrainDirError};

/// How often leases and intervals are looked at.
const TICK: Duration = Duration::from_millis(250);

/// How long the last answers may take to reach the workers once the run is over.
const DRAIN: Duration = Duration::from_secs(5);

/// Orders whose givers wait at a time; more wait to be taken.
const MAX_ORDERS: usize = 16;

/// Probes come by themselves, one by one.
const HEALTH_CAPACITY: Capacity = Capacity {
    all: 64,
    of_address: 64,
    waiting: 64,
};

/// What is done with the states that training goes through.
#[derive(Debug)]
pub(crate) struct Keeper {
    /// Where they are saved.
    pub(crate) train_dir: Arc<TrainDir>,
    /// What they are made of.
    pub(crate) layout: Arc<Layout>,
    /// A checkpoint is written after this long without one.
    pub(crate) interval: Duration,
    /// Writes what people look at; `None` if nobody wants to, or it cannot be written.
    pub(crate) summary_writer: Option<SummaryWriter>,
}

/// Where the server answers, and whom.
#[derive(Debug)]
pub(crate) struct Entrance {
    /// For workers and those who look on.
    pub(crate) listener: TcpListener,
    /// TLS there.
    pub(crate) tls: PortTls,
    /// Who may ask for what.
    pub(crate) gate: Gate,
    /// For health checks, unencrypted, and nothing else.
    pub(crate) health: Option<TcpListener>,
    /// Counts what travels.
    pub(crate) traffic: Arc<Traffic>,
}

/// Serves the run at `entrance` until it is over or `leave` resolves.
///
/// Returns how the program ends. The last state is saved before
/// any worker is told that the run is over.
///
/// # Errors
///
/// [`Exit::Disk`] if a state or checkpoint cannot be written.
pub(crate) async fn serve(
    service: Arc<Service>,
    entrance: Entrance,
    leave: impl Future<Output = Exit>,
    keeper: Keeper,
    step_log: StepLog,
) -> Result<Exit, Failure> {
    let (drain, drained) = oneshot::channel::<()>();
    let (health, answering) = answer(Arc::clone(&service), entrance, &keeper.layout, async {
        let _ = drained.await;
    })
    .await;
    let mut supervisor = Supervisor {
        service,
        keeper,
        step_log,
        log_lines: LogLines::default(),
        saving: None,
        saved_at: Instant::now(),
        health,
        given: Vec::new(),
    };
    let result = supervisor.run(leave).await;
    let _ = drain.send(());
    if let Some(writer) = supervisor.keeper.summary_writer {
        writer.finish(DRAIN).await;
    }
    if tokio::time::timeout(DRAIN, answering).await.is_err() {
        warn!("some connections did not close in time");
    }
    result
}

async fn answer(
    service: Arc<Service>,
    entrance: Entrance,
    layout: &Layout,
    drained: impl Future<Output = ()> + Send + 'static,
) -> (HealthReporter, JoinHandle<()>) {
    let (reporter, health_service) = tonic_health::server::health_reporter();
    reporter
        .set_service_status("", ServingStatus::Serving)
        .await;
    if let Some(listener) = entrance.health {
        let incoming = admit(listener, None, HEALTH_CAPACITY);
        let incoming = counted(ReceiverStream::new(incoming), Arc::default());
        let answering = server_builder(layout)
            .add_service(health_service.clone())
            .serve_with_incoming(incoming);
        tokio::spawn(answering);
    }
    let router = server_builder(layout)
        .layer(Doorkeeper::new(entrance.gate))
        .add_service(health_service)
        .add_service(pserver_wire::service::service(service, layout));
    let incoming = admit(entrance.listener, entrance.tls, Capacity::default());
    let incoming = counted(ReceiverStream::new(incoming), entrance.traffic);
    let answering = tokio::spawn(async move {
        if let Err(error) = router.serve_with_incoming_shutdown(incoming, drained).await {
            error!(%error, "server stops answering");
        }
    });
    (reporter, answering)
}

/// A checkpoint that is being written, on a thread of its own.
type Saving = JoinHandle<Result<Saved, TrainDirError>>;

/// A checkpoint that was written.
struct Saved {
    global_step: GlobalStep,
    path: PathBuf,
}

/// Waits for `saving`; for ever where nothing is being saved.
async fn saved(saving: &mut Option<Saving>) -> Result<Result<Saved, TrainDirError>, JoinError> {
    match saving {
        Some(saving) => saving.await,
        None => std::future::pending().await,
    }
}

/// An order that is carried out, and whose giver waits.
struct Given {
    commission: Commission,
    /// The newest when it came: a checkpoint is answered with once this state, or a newer one, is saved.
    global_step: GlobalStep,
}

/// Its loop waits for no checkpoint, so that whatever happens meanwhile is looked at as it happens.
struct Supervisor {
    service: Arc<Service>,
    keeper: Keeper,
    step_log: StepLog,
    log_lines: LogLines,
    saving: Option<Saving>,
    /// When the last checkpoint was begun.
    saved_at: Instant,
    health: HealthReporter,
    /// Whose givers wait: for a checkpoint, or for the last one.
    given: Vec<Given>,
}

impl Supervisor {
    async fn run(&mut self, leave: impl Future<Output = Exit>) -> Result<Exit, Failure> {
        let mut ticks = tokio::time::interval(TICK);
        let mut orders = self
            .service
            .orders()
            .context("the service is served twice")?;
        let (mut asked_to_leave, mut is_signalled) = (None, false);
        tokio::pin!(leave);
        loop {
            tokio::select! {
                exit = &mut leave, if !is_signalled => {
                    (asked_to_leave, is_signalled) = (Some(exit), true);
                    self.say_that_it_leaves().await;
                    self.service.change(|run, _| run.core.stop());
                }
                Some(commission) = orders.recv(), if self.given.len() < MAX_ORDERS => {
                    info!(order = ?commission.order, "somebody gives an order");
                    if commission.order != Order::SaveCheckpoint {
                        asked_to_leave.get_or_insert(Exit::Terminated);
                    }
                    self.carry_out(commission).await;
                }
                result = saved(&mut self.saving) => self.keep_saved(result)?,
                () = self.service.changed() => {}
                _ = ticks.tick() => self.service.change(|run, now| run.core.tick(now)),
            }
            if let Some(error) = self.service.take_failure() {
                return Err(Failure::new(Exit::Disk, error));
            }
            self.handle_events();
            self.want_after_interval();
            match self.service.ask(|run, _| run.core.phase()) {
                Phase::Training => {}
                Phase::Closing(goodbye) => self.close(goodbye)?,
                Phase::Closed(goodbye) => {
                    let (told, is_saving) = self
                        .service
                        .ask(|run, now| (run.core.everyone_told(now), !run.saves.is_idle()));
                    if !is_saving
                        && let Some(exit) =
                            asked_to_leave.or_else(|| told.then(|| exit_of(goodbye)))
                    {
                        return Ok(exit);
                    }
                }
            }
            self.begin_save();
        }
    }

    fn handle_events(&mut self) {
        for event in self.service.take_events() {
            match event {
                Event::Happened(fact) => self.log_lines.write(&fact),
                Event::Committed {
                    global_step,
                    loss,
                    step_time,
                } => self.step_log.committed(global_step, loss, step_time),
                Event::Summary(part) => self.summarize(part),
            }
        }
    }

    fn summarize(&mut self, part: Part) {
        let Some(writer) = &self.keeper.summary_writer else {
            return;
        };
        if let Err(Ended) = writer.write(part) {
            self.keeper.summary_writer = None;
            self.service.ask(|run, _| run.stop_summaries());
        }
    }

    fn want_after_interval(&mut self) {
        if self.saved_at.elapsed() >= self.keeper.interval && self.saving.is_none() {
            self.saved_at = Instant::now();
            self.service.ask(|run, _| run.want_checkpoint());
        }
    }

    /// Has the last state saved, and tells the workers once it is.
    fn close(&mut self, goodbye: Goodbye) -> Result<(), Failure> {
        let is_saved = self.service.ask(|run, _| {
            // A state from which training diverges would only take the place of a good one.
            if goodbye != Goodbye::Diverged {
                run.want_checkpoint();
            }
            run.saves.is_idle()
        });
        if is_saved {
            self.service.end(goodbye).or_exit(Exit::Disk)?;
            self.service.saved();
            self.answer_orders(|_| true);
        }
        Ok(())
    }

    async fn carry_out(&mut self, commission: Commission) {
        if commission.order != Order::SaveCheckpoint {
            self.say_that_it_leaves().await;
        }
        let order = commission.order;
        let global_step = self.service.change(|run, now| {
            match order {
                Order::SaveCheckpoint => run.want_checkpoint(),
                Order::Drain => run.core.drain(now),
                Order::Stop => run.core.stop(),
            }
            run.core.at().global_step
        });
        self.given.push(Given {
            commission,
            global_step,
        });
        self.answer_saved();
    }

    /// Answers the orders whose checkpoint is written.
    fn answer_saved(&mut self) {
        let saved = self.service.ask(|run, _| run.saves.saved());
        self.answer_orders(|given| {
            given.commission.order == Order::SaveCheckpoint && Some(given.global_step) <= saved
        });
    }

    fn answer_orders(&mut self, is_done: impl Fn(&Given) -> bool) {
        let saved = self.service.ask(|run, _| run.saves.saved());
        for Given { commission, .. } in self.given.extract_if(.., |given| is_done(given)) {
            // The client may have gone.
            let _ = commission.done.send(saved.unwrap_or(GlobalStep(0)));
        }
    }

    /// Before the last checkpoint is written: what sends workers here is to send no more.
    async fn say_that_it_leaves(&self) {
        self.health
            .set_service_status("", ServingStatus::NotServing)
            .await;
    }

    /// Begins to write the checkpoint that comes next, if one does.
    fn begin_save(&mut self) {
        let next = self.service.ask(|run, _| {
            let snapshot = run.saves.begin()?;
            let left_out = run.saves.take_left_out();
            Some((snapshot, left_out, run.core.run().clone()))
        });
        let Some((snapshot, left_out, run)) = next else {
            return;
        };
        if left_out > 0 {
            warn!(
                left_out,
                "checkpoints are due faster than the disk takes them: saves the newest, leaves out those before"
            );
        }
        self.saved_at = Instant::now();
        let (train_dir, layout) = (
            Arc::clone(&self.keeper.train_dir),
            Arc::clone(&self.keeper.layout),
        );
        self.saving = Some(tokio::task::spawn_blocking(move || {
            let path = train_dir.save(&layout, &snapshot.state, &run)?;
            let global_step = snapshot.state.global_step;
            Ok(Saved { global_step, path })
        }));
    }

    fn keep_saved(
        &mut self,
        result: Result<Result<Saved, TrainDirError>, JoinError>,
    ) -> Result<(), Failure> {
        self.saving = None;
        let saved = result.map_err(|error| anyhow!("saving a checkpoint failed: {error}"))?;
        let Saved { global_step, path } = saved.map_err(|error| {
            let exit = start::exit_of(&error);
            let error = anyhow::Error::new(error);
            Failure::new(
                exit,
                error.context("cannot save a checkpoint, and goes no further"),
            )
        })?;
        info!(global_step = global_step.0, path = %path.display(), "checkpoint is written");
        let kept = self.service.checkpoint_is_written(global_step);
        kept.or_exit(Exit::Disk)?;
        self.service.checkpoint_saved(global_step);
        self.answer_saved();
        Ok(())
    }
}

fn exit_of(goodbye: Goodbye) -> Exit {
    match goodbye {
        Goodbye::Complete => Exit::Complete,
        Goodbye::Diverged => Exit::Diverged,
        // A server that was asked to stop ends with the code of the signal; else the run stood still.
        Goodbye::Stopping | Goodbye::Quarantined => Exit::TryAgain,
    }
}

#[cfg(test)]
mod tests {
    use pserver_cli::logging::LogFormat;
    use tempfile::TempDir;

    use super::*;
    use crate::args::RunArgs;
    use crate::commit_path::CommitPath;
    use crate::fixtures::{calendar, limits, state_at};
    use crate::follower_files::FollowerFiles;
    use crate::run::{Intervals, Run};
    use crate::snapshot::Snapshot;
    use crate::start::{open_files, resume_or_begin};

    /// The supervisor of a new run, whose first checkpoint is written.
    fn supervisor(folder: &TempDir) -> Supervisor {
        let layout = Arc::new(Layout::example());
        let train_dir = TrainDir::open(folder.path(), 2, false).unwrap();
        let start = resume_or_begin(&RunArgs::default(), &train_dir, &layout).unwrap();
        let (files, calendar) = open_files(&train_dir, &layout, &start, calendar(0)).unwrap();
        let intervals = Intervals {
            checkpoint_steps: 100,
            summary_steps: 0,
        };
        let mut run = Run::new(
            Instant::now().into_std(),
            start.run.clone(),
            limits(),
            start.state,
            start.applied,
            intervals,
        );
        run.saves.finished(GlobalStep(0));
        let service = Service::new(
            run,
            CommitPath::new(files, calendar),
            &layout,
            FollowerFiles::new(train_dir.folder(), calendar),
        );
        Supervisor {
            service: Arc::new(service),
            keeper: Keeper {
                train_dir: Arc::new(train_dir),
                layout,
                interval: Duration::from_secs(600),
                summary_writer: None,
            },
            step_log: StepLog::new(1, LogFormat::Text, &start.run),
            log_lines: LogLines::default(),
            saving: None,
            saved_at: Instant::now(),
            health: tonic_health::server::health_reporter().0,
            given: Vec::new(),
        }
    }

    /// Has a checkpoint be written for as long as the receiver is not told that it is on the disk.
    fn save_slowly(supervisor: &mut Supervisor) -> oneshot::Sender<()> {
        let (written, is_written) = oneshot::channel();
        let next = Snapshot::new(state_at(&supervisor.keeper.layout, 1));
        supervisor.service.ask(|run, _| {
            run.saves.want(Arc::new(next));
            run.saves.begin()
        });
        supervisor.saving = Some(tokio::spawn(async {
            let _ = is_written.await;
            Ok(Saved {
                global_step: GlobalStep(1),
                path: PathBuf::new(),
            })
        }));
        written
    }

    #[tokio::test]
    async fn a_signal_is_heard_while_a_checkpoint_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let mut supervisor = supervisor(&folder);
        let written = save_slowly(&mut supervisor);
        let service = Arc::clone(&supervisor.service);
        let heard = async {
            while service.ask(|run, _| run.core.phase()) != Phase::Closing(Goodbye::Stopping) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            written.send(()).unwrap();
        };
        let run = supervisor.run(async { Exit::Terminated });
        let both = async { tokio::join!(run, heard).0 };
        let exit = tokio::time::timeout(Duration::from_secs(60), both).await;
        assert_eq!(exit.unwrap().unwrap(), Exit::Terminated);
    }

    #[tokio::test]
    async fn an_order_for_a_checkpoint_is_answered_by_the_first_of_its_step_or_a_later_one() {
        let folder = tempfile::tempdir().unwrap();
        let mut supervisor = supervisor(&folder);
        let written = save_slowly(&mut supervisor);
        let mut answers = Vec::new();
        for global_step in [0, 1, 2] {
            let (done, answer) = oneshot::channel();
            let order = Order::SaveCheckpoint;
            supervisor.given.push(Given {
                commission: Commission { order, done },
                global_step: GlobalStep(global_step),
            });
            answers.push(answer);
        }
        supervisor.answer_saved();
        assert_eq!(answers[0].try_recv(), Ok(GlobalStep(0)));
        assert!(answers[1].try_recv().is_err());
        written.send(()).unwrap();
        let result = saved(&mut supervisor.saving).await;
        supervisor.keep_saved(result).unwrap();
        assert_eq!(answers[1].try_recv(), Ok(GlobalStep(1)));
        assert!(answers[2].try_recv().is_err());
        assert_eq!(supervisor.given.len(), 1);
    }
}
