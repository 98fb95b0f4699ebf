//! The real server on a simulated host: the one place of the simulation that knows how a service is
//! put together from a train dir.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use pserver_cli::exit::Failure;
use pserver_core::{Fact, Limits, Notice, Phase};
use pserver_run::GlobalStep;
use pserver_run::record::Record;
use pserver_server::calendar::Calendar;
use pserver_server::commit_path::CommitPath;
use pserver_server::commit_point::WatchedFiles;
use pserver_server::event::Event;
use pserver_server::follower_files::FollowerFiles;
use pserver_server::run::{Intervals, Run};
use pserver_server::service::Service;
use pserver_server::snapshot::Snapshot;
use pserver_server::start::{open_files, resume_or_begin};
use pserver_server::train_dir::TrainDir;
use pserver_state::{TrainingState, checkpoint};
use pserver_wire::messages::Goodbye;
use pserver_wire::transport::server_builder;
use tokio::time::Instant;

use crate::death::Life;
use crate::dice::{Dice, Purpose};
use crate::model::{layout, run_args};
use crate::plan::Plan;
use crate::wire::{self, Sockets};
use crate::world::Shared;

/// As `serve.rs` ticks.
const TICK: Duration = Duration::from_millis(250);
/// As `serve.rs` waits for the last answers to go out.
const DRAIN: Duration = Duration::from_secs(5);

/// No run here stands still for so long that it may give up.
const STALL_TIMEOUT: Duration = Duration::from_secs(3600);
const KEEP_CHECKPOINTS: usize = 2;
/// Nobody looks at them here, and no worker makes its part.
const SUMMARY_STEPS: u64 = 3;

/// One life of the server, from its start to the end of the run.
pub(crate) async fn serve(shared: Rc<Shared>) -> turmoil::Result {
    let life = Arc::new(Life::new(&shared.train_dir));
    shared.life.replace(Arc::clone(&life));
    let (service, train_dir) = open(&shared, Arc::clone(&life))?;
    let service = Arc::new(service);

    let router = server_builder(&layout()).add_service(pserver_wire::service::service(
        Arc::clone(&service),
        &layout(),
    ));
    // Dropped after all that the runtime holds, because this future is the simulation's own.
    let sockets = Arc::new(Sockets::default());
    let incoming = wire::incoming(life, Arc::clone(&sockets)).await?;
    tokio::spawn(router.serve_with_incoming(incoming));
    supervise(&shared, &service, &train_dir).await?;
    // tonic's own way to wait for the last answers polls in a random order.
    let _ = tokio::time::timeout(DRAIN, sockets.all_closed()).await;
    shared.server_is_leaving();
    // The process ends here; the simulation takes the host down, and its connections with it.
    std::future::pending().await
}

/// The service for the run in the train dir, put together as `program.rs` does.
fn open(shared: &Shared, life: Arc<Life>) -> turmoil::Result<(Service, TrainDir)> {
    let train_dir = TrainDir::open(&shared.train_dir, KEEP_CHECKPOINTS, false)?;
    let start = resume_or_begin(&run_args(&shared.plan), &train_dir, &layout()).map_err(told)?;
    let number = shared.count_start();
    shared.note(format_args!(
        "server starts, the {number}th time, at step {}",
        start.state.global_step
    ));
    shared
        .history
        .borrow_mut()
        .server_starts(start.state.global_step, start.state.digest());
    let calendar = Calendar {
        moment: tokio::time::Instant::now().into_std(),
        since_1970: shared.now(),
    };
    let opened = open_files(&train_dir, &layout(), &start, calendar);
    let (files, calendar) = opened.map_err(told)?;
    let watched = WatchedFiles::new(files, move |_, _| life.moment());
    let commit_path = CommitPath::new(watched, calendar);
    let intervals = Intervals {
        checkpoint_steps: shared.plan.checkpoint_steps,
        summary_steps: SUMMARY_STEPS,
    };
    let run = Run::new(
        calendar.moment,
        start.run,
        limits(&shared.plan),
        start.state,
        start.applied,
        intervals,
    );
    let files = FollowerFiles::new(train_dir.folder(), calendar);
    let service = Service::new(run, commit_path, &layout(), files);
    Ok((service, train_dir))
}

fn told(failure: Failure) -> String {
    failure.to_string()
}

fn limits(plan: &Plan) -> Limits {
    Limits {
        max_steps: GlobalStep(plan.num_steps),
        worker_lease: plan.lease,
        mixed: false,
        min_workers: 1,
        stall_timeout: STALL_TIMEOUT,
        audit_fraction: plan.audit_fraction,
    }
}

/// What `serve.rs` does while the service answers: ticks, saves, and waits until all are told.
async fn supervise(shared: &Shared, service: &Service, train_dir: &TrainDir) -> turmoil::Result {
    let mut ticks = tokio::time::interval(TICK);
    let mut disk = SlowDisk::default();
    loop {
        tokio::select! {
            biased;
            snapshot = disk.written() => save(shared, service, train_dir, &snapshot)?,
            () = service.changed() => {}
            _ = ticks.tick() => service.change(|run, now| run.core.tick(now)),
        }
        if let Some(error) = service.take_failure() {
            return Err(error.into());
        }
        for event in service.take_events() {
            handle(shared, &mut disk, event);
        }
        match service.ask(|run, _| run.core.phase()) {
            Phase::Training => {}
            Phase::Closing(goodbye) => {
                if goodbye != Goodbye::Complete {
                    let what = format!("the server ends the run as {goodbye:?}");
                    shared.history.borrow_mut().violate(what);
                }
                let is_saved = service.ask(|run, _| {
                    run.want_checkpoint();
                    run.saves.is_idle()
                });
                if is_saved {
                    service.end(goodbye)?;
                    service.saved();
                }
            }
            Phase::Closed(_) => {
                if service.ask(|run, now| run.core.everyone_told(now)) {
                    shared.note(format_args!("server has told everyone"));
                    return Ok(());
                }
            }
        }
        if let Some(snapshot) = service.ask(|run, _| run.saves.begin()) {
            disk.write(shared, snapshot);
        }
    }
}

/// The disk takes its time for a checkpoint, and a death meanwhile leaves nothing of it.
#[derive(Default)]
struct SlowDisk {
    writing: Option<(Instant, Arc<Snapshot>)>,
    /// The step of the newest checkpoint that was due.
    newest_due: GlobalStep,
}

impl SlowDisk {
    fn write(&mut self, shared: &Shared, snapshot: Arc<Snapshot>) {
        let step = snapshot.state.global_step;
        shared.note(format_args!("the checkpoint of step {step} is begun"));
        let until = Instant::now() + shared.plan.save_time;
        let mut history = shared.history.borrow_mut();
        if let Some((_, before)) = self.writing.replace((until, snapshot)) {
            let before = before.state.global_step;
            history.violate(format!(
                "the checkpoint of step {step} is begun while that of step {before} is written"
            ));
        }
        if step < self.newest_due {
            history.violate(format!(
                "the checkpoint of step {step} is begun when that of step {} is due",
                self.newest_due
            ));
        }
        history.totals.checkpoints += 1;
    }

    /// What is being written, once it is.
    async fn written(&mut self) -> Arc<Snapshot> {
        match &self.writing {
            None => std::future::pending().await,
            Some((until, _)) => tokio::time::sleep_until(*until).await,
        }
        let (_, snapshot) = self.writing.take().expect("it is being written");
        snapshot
    }
}

fn handle(shared: &Shared, disk: &mut SlowDisk, event: Event) {
    match event {
        Event::Committed { global_step, .. } => {
            let next = global_step.next();
            if next.0.is_multiple_of(shared.plan.checkpoint_steps) {
                disk.newest_due = next;
            }
            shared.note(format_args!("step {global_step} is committed"));
            shared.history.borrow_mut().totals.commits += 1;
        }
        Event::Happened(Fact::Kept(record)) => handle_record(shared, &record),
        Event::Happened(Fact::Told(
            notice @ (Notice::Diverged { .. } | Notice::Stalled { .. }),
        )) => {
            shared.history.borrow_mut().violate(format!("{notice:?}"));
        }
        _ => {}
    }
}

fn handle_record(shared: &Shared, record: &Record) {
    match record {
        Record::InDoubt { of, .. } => {
            shared.history.borrow_mut().totals.doubts += 1;
            shared.note(format_args!("{of} is in doubt"));
        }
        Record::Quarantined { worker, reason } if !reason.contains("it is not finite") => {
            let what = format!("member {worker} is put into quarantine: {reason}");
            shared.history.borrow_mut().violate(what);
        }
        Record::Lost { worker } => {
            shared.note(format_args!("member {worker} is lost"));
            shared.history.borrow_mut().totals.lost_leases += 1;
        }
        Record::Overdue { of, .. } => {
            shared.note(format_args!("{of} is overdue"));
            shared.history.borrow_mut().totals.overdue += 1;
        }
        Record::Audited { equal: false, .. } => {
            shared.history.borrow_mut().violate(format!("{record:?}"));
        }
        _ => {}
    }
}

fn save(
    shared: &Shared,
    service: &Service,
    train_dir: &TrainDir,
    snapshot: &Snapshot,
) -> turmoil::Result {
    let run = service.ask(|run, _| run.core.run().clone());
    let step = snapshot.state.global_step;
    damage_newest(shared, step)?;
    let before = good_checkpoints(&shared.train_dir)?;
    train_dir.save(&layout(), &snapshot.state, &run)?;
    let after = good_checkpoints(&shared.train_dir)?;
    if let Some(removed) = before.difference(&after).next()
        && after.range(removed..).count() < KEEP_CHECKPOINTS
    {
        shared.history.borrow_mut().violate(format!(
            "the checkpoint of step {removed} is removed, and {after:?} are all that can be loaded"
        ));
    }
    service.checkpoint_saved(step);
    Ok(())
}

/// The disk damages a file, if the plan says so. The state file has the run.
fn damage_newest(shared: &Shared, next: GlobalStep) -> turmoil::Result {
    let Plan { seed, habits, .. } = shared.plan;
    let mut dice = Dice::new(seed, Purpose::Disk, next.0, 0);
    if dice.chance(habits.damage)
        && let Some((step, path)) = checkpoint::list(&shared.train_dir)?.first()
    {
        shared.note(format_args!(
            "the disk damages the checkpoint of step {step}"
        ));
        fs::write(path, "damaged")?;
    }
    Ok(())
}

/// The steps of the checkpoints that can be loaded.
fn good_checkpoints(train_dir: &Path) -> turmoil::Result<BTreeSet<GlobalStep>> {
    let all = checkpoint::list(train_dir)?.into_iter();
    let good = all.filter(|(_, path)| checkpoint::load(path, &layout()).is_ok());
    Ok(good.map(|(step, _)| step).collect())
}

/// The states that the train dir holds once the run is over: the state file's and the newest
/// checkpoint's.
pub(crate) fn final_states(train_dir: &Path) -> turmoil::Result<[TrainingState; 2]> {
    let train_dir = TrainDir::open(train_dir, KEEP_CHECKPOINTS, false)?;
    let ledger = train_dir.witness()?;
    let kept = train_dir
        .kept_state(&layout(), ledger.as_ref())?
        .ok_or("there is no state file")?;
    let saved = train_dir
        .newest(&layout(), ledger.as_ref())?
        .ok_or("there is no checkpoint")?;
    Ok([kept.state, saved.state])
}
