//! Runs the server until the run is over: answers, ticks, logs, saves.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use cifar_cli::exit::{Exit, Failure, OrExit};
use cifar_guard::admission::{PortTls, admit};
use cifar_guard::door::Capacity;
use cifar_guard::gate::Gate;
use cifar_params::Layout;
use cifar_sequence::GlobalStep;
use cifar_wire::doorkeeper::Doorkeeper;
use cifar_wire::messages::{Goodbye, Order};
use cifar_wire::traffic::{Traffic, counted};
use cifar_wire::transport::server_builder;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tracing::{debug, error, info, warn};

use crate::event::{Event, Who};
use crate::service::{Commission, Service};
use crate::step_log::StepLog;
use crate::summary_writer::{Ended, Part, SummaryWriter};
use crate::train_dir::TrainDir;
use crate::training::{Phase, Snapshot};

/// How often leases and intervals are looked at.
const TICK: Duration = Duration::from_millis(250);

/// How long the last answers may take to reach the workers once the run is over.
const DRAIN: Duration = Duration::from_secs(5);

/// Probes come by themselves, one by one.
const HEALTH_CAPACITY: Capacity = Capacity {
    all: 64,
    of_address: 64,
    waiting: 64,
};

/// What is done with the states that training goes through.
#[derive(Debug)]
pub struct Keeper {
    /// Where they are saved.
    pub train_dir: Arc<TrainDir>,
    /// What they are made of.
    pub layout: Arc<Layout>,
    /// A checkpoint is written after this long without one.
    pub interval: Duration,
    /// The step of the newest checkpoint, if there is one.
    pub saved_step: Option<GlobalStep>,
    /// Writes what people look at; `None` if nobody wants to, or it cannot be written.
    pub summary_writer: Option<SummaryWriter>,
}

/// Where the server answers, and whom.
#[derive(Debug)]
pub struct Entrance {
    /// For workers and those who look on.
    pub listener: TcpListener,
    /// TLS there.
    pub tls: PortTls,
    /// Who may ask for what.
    pub gate: Gate,
    /// For whoever wants to know in clear whether the server is well, and nothing else.
    pub health: Option<TcpListener>,
    /// Counts what travels.
    pub traffic: Arc<Traffic>,
}

/// Serves the run at `entrance` until it is over or `leave` resolves.
///
/// Returns how the program ends. The last state is saved before
/// any worker is told that the run is over.
///
/// # Errors
///
/// [`Exit::Disk`] if a state or checkpoint cannot be written.
pub async fn serve(
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
        saved_at: Instant::now(),
        health,
        commissions: Vec::new(),
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
    let Entrance {
        listener,
        tls,
        gate,
        health,
        traffic,
    } = entrance;
    let (reporter, health_service) = tonic_health::server::health_reporter();
    reporter
        .set_service_status("", ServingStatus::Serving)
        .await;
    if let Some(listener) = health {
        let incoming = admit(listener, None, HEALTH_CAPACITY);
        let incoming = counted(ReceiverStream::new(incoming), Arc::default());
        let answering = server_builder(layout)
            .add_service(health_service.clone())
            .serve_with_incoming(incoming);
        tokio::spawn(answering);
    }
    let router = server_builder(layout)
        .layer(Doorkeeper::new(gate))
        .add_service(health_service)
        .add_service(cifar_wire::service::service(service, layout));
    let incoming = ReceiverStream::new(admit(listener, tls, Capacity::default()));
    let incoming = counted(incoming, traffic);
    let answering = tokio::spawn(async move {
        if let Err(error) = router.serve_with_incoming_shutdown(incoming, drained).await {
            error!(%error, "server stops answering");
        }
    });
    (reporter, answering)
}

/// Whether an order ends the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IsToLeave {
    Yes,
    No,
}

struct Supervisor {
    service: Arc<Service>,
    keeper: Keeper,
    step_log: StepLog,
    saved_at: Instant,
    health: HealthReporter,
    /// Orders to leave, whose givers wait for the last checkpoint.
    commissions: Vec<Commission>,
}

impl Supervisor {
    async fn run(&mut self, leave: impl Future<Output = Exit>) -> Result<Exit, Failure> {
        let mut changes = self.service.changes();
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
                    self.service.change(|training, _| training.stop());
                }
                Some(commission) = orders.recv() => {
                    info!(order = ?commission.order, "somebody gives an order");
                    if self.carry_out(commission).await? == IsToLeave::Yes {
                        asked_to_leave.get_or_insert(Exit::Terminated);
                    }
                }
                _ = changes.recv() => {}
                _ = ticks.tick() => self.service.change(|training, now| training.tick(now)),
            }
            if let Some(error) = self.service.take_failure() {
                return Err(Failure::new(Exit::Disk, error));
            }
            self.handle_events().await?;
            self.save_after_interval().await?;
            match self.service.ask(|training, _| training.phase()) {
                Phase::Training => {}
                Phase::Closing(goodbye) => self.close(goodbye).await?,
                Phase::Closed(goodbye) => {
                    let told = self
                        .service
                        .ask(|training, now| training.everyone_told(now));
                    if let Some(exit) = asked_to_leave.or_else(|| told.then(|| exit_of(goodbye))) {
                        return Ok(exit);
                    }
                }
            }
        }
    }

    async fn handle_events(&mut self) -> Result<(), Failure> {
        for event in self.service.take_events() {
            match event {
                Event::Joined {
                    who: Who { worker, name },
                    numerics,
                } => info!(worker = worker.0, name, numerics, "worker joins"),
                Event::Left(Who { worker, name }) => {
                    info!(worker = worker.0, name, "worker leaves");
                }
                Event::Lost(Who { worker, name }) => {
                    warn!(
                        worker = worker.0,
                        name, "worker gave no sign of life for its lease and is given up"
                    );
                }
                Event::Overdue {
                    tower_step,
                    slow,
                    also_given_to,
                } => {
                    let (worker, other) = (slow.0, also_given_to.0);
                    info!(%tower_step, worker, other, "tower step is overdue, an idle worker computes it too");
                }
                Event::Dropped {
                    tower_step,
                    worker,
                    reason,
                } => debug!(%tower_step, worker = worker.0, ?reason, "gradient does not count"),
                Event::InDoubt {
                    tower_step,
                    who: Who { worker, name },
                    reason,
                } => {
                    let worker = worker.0;
                    warn!(%tower_step, worker, name, reason, "gradient is in doubt, the tower step is computed once more");
                }
                Event::Audited {
                    tower_step,
                    workers: [a, b],
                    equal: true,
                } => {
                    let (worker, other) = (a.worker.0, b.worker.0);
                    debug!(%tower_step, worker, other, "two workers agree");
                }
                Event::Audited {
                    tower_step,
                    workers: [a, b],
                    equal: false,
                } => {
                    let (worker, other) = (a.worker.0, b.worker.0);
                    let (name, other_name) = (a.name, b.name);
                    warn!(%tower_step, worker, name, other, other_name, "two workers came to different gradients of the same tower step: one of them is faulty");
                }
                Event::Quarantined {
                    who: Who { worker, name },
                    reason,
                } => error!(
                    worker = worker.0,
                    name, reason, "worker computed something wrong and takes no further part"
                ),
                Event::Suspended { pause } => warn!(
                    pause_secs = pause.as_secs(),
                    "server itself was suspended, leases are extended"
                ),
                Event::StandsStill { waits_for } => warn!(waits_for, "run stands still"),
                Event::GoesOn { after } => info!(after_secs = after.as_secs(), "run goes on"),
                Event::Stalled { waits_for } => {
                    error!(
                        waits_for,
                        "run has stood still for --stall-timeout-secs, and ends for now"
                    );
                }
                Event::Committed {
                    global_step,
                    loss,
                    step_time,
                } => {
                    self.step_log.committed(global_step, loss, step_time);
                }
                Event::CheckpointDue(snapshot) => self.save(snapshot).await?,
                Event::SummaryDue(update) => self.summarize(Part::Update(update)),
                Event::TowerSummarised { at, summary } => {
                    self.summarize(Part::Tower(at, summary));
                }
                Event::Diverged {
                    tower_step,
                    worker,
                    loss,
                } => {
                    let reason = reason_of_divergence(loss);
                    error!(%tower_step, name = worker, loss, "Model diverged with loss = {reason}");
                }
            }
        }
        Ok(())
    }

    fn summarize(&mut self, part: Part) {
        let Some(writer) = &self.keeper.summary_writer else {
            return;
        };
        if let Err(Ended) = writer.write(part) {
            self.keeper.summary_writer = None;
            self.service.ask(|training, _| training.stop_summaries());
        }
    }

    async fn save_after_interval(&mut self) -> Result<(), Failure> {
        if self.saved_at.elapsed() < self.keeper.interval {
            return Ok(());
        }
        let snapshot = self.service.ask(|training, _| training.snapshot());
        self.save(snapshot).await
    }

    async fn close(&mut self, goodbye: Goodbye) -> Result<(), Failure> {
        // A state from which training diverges would only take the place of a good one.
        if goodbye != Goodbye::Diverged {
            let snapshot = self.service.ask(|training, _| training.snapshot());
            self.save(snapshot).await?;
        }
        self.service.end(goodbye).or_exit(Exit::Disk)?;
        self.service.saved();
        let global_step = self.saved_step();
        for commission in self.commissions.drain(..) {
            // Whoever gave the order may have gone.
            let _ = commission.done.send(global_step);
        }
        Ok(())
    }

    fn saved_step(&self) -> GlobalStep {
        self.keeper.saved_step.unwrap_or(GlobalStep(0))
    }

    async fn carry_out(&mut self, commission: Commission) -> Result<IsToLeave, Failure> {
        if commission.order != Order::SaveCheckpoint {
            self.say_that_it_leaves().await;
        }
        match commission.order {
            Order::SaveCheckpoint => {
                let snapshot = self.service.ask(|training, _| training.snapshot());
                self.save(snapshot).await?;
                let _ = commission.done.send(self.saved_step());
                return Ok(IsToLeave::No);
            }
            Order::Drain => self.service.change(|training, now| training.drain(now)),
            Order::Stop => self.service.change(|training, _| training.stop()),
        }
        self.commissions.push(commission);
        Ok(IsToLeave::Yes)
    }

    /// Before the last checkpoint is written: whoever sends workers here is to send no more.
    async fn say_that_it_leaves(&self) {
        self.health
            .set_service_status("", ServingStatus::NotServing)
            .await;
    }

    async fn save(&mut self, snapshot: Arc<Snapshot>) -> Result<(), Failure> {
        let global_step = snapshot.state.global_step;
        self.saved_at = Instant::now();
        // The newest may have been saved before those that were due meanwhile, as the run ended: a
        // follower that hears of an older one would take the run for over without its last.
        if self.keeper.saved_step >= Some(global_step) {
            return Ok(());
        }
        let run = self.service.ask(|training, _| training.run().clone());
        let (train_dir, layout) = (
            Arc::clone(&self.keeper.train_dir),
            Arc::clone(&self.keeper.layout),
        );
        let mut saving =
            tokio::task::spawn_blocking(move || train_dir.save(&layout, &snapshot.state, &run));
        let mut ticks = tokio::time::interval(TICK);
        let saved = loop {
            tokio::select! {
                saved = &mut saving => break saved,
                // However long the disk takes, leases and patience go on.
                _ = ticks.tick() => self.service.change(|training, now| training.tick(now)),
            }
        };
        let saved = saved.map_err(|error| anyhow!("saving a checkpoint failed: {error}"))?;
        let path = saved
            .context("cannot save a checkpoint, and goes no further")
            .or_exit(Exit::Disk)?;
        info!(global_step = global_step.0, path = %path.display(), "checkpoint is written");
        let kept = self.service.checkpoint_is_written(global_step);
        kept.or_exit(Exit::Disk)?;
        self.keeper.saved_step = Some(global_step);
        self.service.checkpoint_saved(global_step);
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

/// The loss with which the model diverged, which may itself be a good number.
fn reason_of_divergence(loss: f32) -> String {
    match loss {
        // As Python prints it, because the tutorial's users look for it so.
        loss if loss.is_nan() => "NaN".to_owned(),
        loss if loss.is_infinite() => loss.to_string(),
        loss => format!("{loss}, but gradients or variables that are not finite or absurdly large"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_that_diverged_with_a_finite_loss_is_not_said_to_have_none() {
        assert_eq!(reason_of_divergence(f32::NAN), "NaN");
        assert_eq!(reason_of_divergence(f32::NEG_INFINITY), "-inf");
        let finite = reason_of_divergence(2.5);
        assert!(finite.starts_with("2.5, but gradients"), "{finite}");
    }
}
