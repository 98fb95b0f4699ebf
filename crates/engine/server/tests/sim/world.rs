//! The simulation of a seed: hosts, network and time, and the faults of the plan done to them.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pserver_ledger::EvalDir;
use pserver_ledger::ledger_file::LEDGER_FILE;
use pserver_run::GlobalStep;
use pserver_server::follower_files::MAX_SCORES_OF_CHECKPOINT;
use turmoil::Sim;

use crate::death::Life;
use crate::dice::{Dice, Purpose};
use crate::fake_follower;
use crate::fake_worker;
use crate::history::{History, Totals};
use crate::plan::{Fault, Plan};
use crate::server_host;
use crate::wire::SERVER;

/// Simulated time goes on in such steps; no message is faster.
const TICK: Duration = Duration::from_millis(10);

/// A run must be over this long after the last fault, however slow its plan.
const BOUND: Duration = Duration::from_secs(90);

/// An operator starts a server that has left too early again after this.
const START_AGAIN: Duration = Duration::from_millis(500);

/// What the hosts and the world share.
pub(crate) struct Shared {
    pub(crate) plan: Plan,
    pub(crate) train_dir: PathBuf,
    pub(crate) history: RefCell<History>,
    /// The server's present life, or its last.
    pub(crate) life: RefCell<Arc<Life>>,
    now: Cell<Duration>,
    server_starts: Cell<u64>,
    worker_lives: Cell<u64>,
    server_leaves: Cell<bool>,
    done: RefCell<Vec<bool>>,
}

impl Shared {
    fn new(plan: Plan, train_dir: PathBuf) -> Self {
        Shared {
            history: RefCell::new(History::new(&plan)),
            life: RefCell::new(Arc::new(Life::new(&train_dir))),
            now: Cell::default(),
            server_starts: Cell::default(),
            worker_lives: Cell::default(),
            server_leaves: Cell::default(),
            done: RefCell::new(vec![false; plan.num_workers]),
            train_dir,
            plan,
        }
    }

    pub(crate) fn note(&self, event: fmt::Arguments<'_>) {
        self.history.borrow_mut().note(self.now.get(), event);
    }

    /// Simulated time since the beginning.
    pub(crate) fn now(&self) -> Duration {
        self.now.get()
    }

    /// Whether the time of faults is over.
    pub(crate) fn is_quiet(&self) -> bool {
        self.now.get() >= self.plan.quiet_from
    }

    pub(crate) fn count_start(&self) -> u64 {
        self.server_starts.set(self.server_starts.get() + 1);
        self.server_starts.get()
    }

    pub(crate) fn count_worker_life(&self) -> u64 {
        self.worker_lives.set(self.worker_lives.get() + 1);
        self.worker_lives.get()
    }

    /// The run is over for the server: its process ends.
    pub(crate) fn server_is_leaving(&self) {
        self.server_leaves.set(true);
    }

    /// The worker has been told that the run is complete.
    pub(crate) fn is_done(&self, worker: usize) {
        self.done.borrow_mut()[worker] = true;
    }
}

/// What came of a seed.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) totals: Totals,
    /// All that happened, one line each.
    pub(crate) events: Vec<String>,
    /// What went wrong, with the events before it.
    pub(crate) failure: Option<String>,
}

/// Runs the simulation of a seed.
pub(crate) fn simulate(seed: u64) -> Outcome {
    let memory = PathBuf::from("/dev/shm");
    let folder = if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    }
    .expect("a temporary folder can be made");
    let shared = Rc::new(Shared::new(Plan::new(seed), folder.path().to_owned()));
    let mut world = World::new(Rc::clone(&shared));
    let result = world.run();
    drop(world);
    if let Err(error) = result {
        shared.history.borrow_mut().violate(error);
    }
    if shared.history.borrow().violation().is_none()
        && let Err(error) = check_final_states(&shared)
    {
        shared.history.borrow_mut().violate(error.to_string());
    }
    let mut history = shared.history.borrow_mut();
    history.totals.simulated = shared.now.get();
    let failure = history
        .violation()
        .map(|violation| format!("{violation}\n{:?}\n{}", shared.plan, history.recent()));
    Outcome {
        totals: history.totals,
        events: history.take_events(),
        failure,
    }
}

/// The files must hold the right end, and the ledger prove the way to it.
fn check_final_states(shared: &Shared) -> turmoil::Result {
    let ledger = pserver_ledger::History::read(&shared.train_dir.join(LEDGER_FILE))?;
    if let Some(rewind) = ledger.rewinds.first() {
        return Err(format!("the ledger tells of {rewind:?}").into());
    }
    let proof = pserver_ledger::verify(&ledger).map_err(|findings| findings.to_string())?;
    let end = proof.steps.last().map(|steps| steps.end);
    if !proof.is_whole() || end != Some(GlobalStep(shared.plan.num_steps)) {
        return Err(format!("the ledger proves {:?} only", proof.steps).into());
    }
    check_scores(shared)?;
    let history = shared.history.borrow();
    let last = history.reference().last_step();
    let expected = history
        .reference()
        .at(last)
        .expect("the reference has its last state")
        .digest;
    for state in server_host::final_states(&shared.train_dir)? {
        let found = state.digest();
        if found != expected {
            let step = state.global_step;
            return Err(format!(
                "the run ended at step {step} with state {found}, not step {last} with {expected}"
            )
            .into());
        }
    }
    Ok(())
}

/// Whatever followers tell, what is kept of it is bounded by the checkpoints that there were.
fn check_scores(shared: &Shared) -> turmoil::Result {
    let scores = EvalDir::of_train_dir(&shared.train_dir).scores()?;
    let num_checkpoints = shared.history.borrow().totals.checkpoints as usize + 1;
    match scores.len() <= num_checkpoints * MAX_SCORES_OF_CHECKPOINT {
        true => Ok(()),
        false => Err(format!("{} scores are kept", scores.len()).into()),
    }
}

/// The simulated hosts, and who of them is up.
struct World {
    sim: Sim<'static>,
    shared: Rc<Shared>,
    dice: Dice,
    /// Faults that are still to come, the next one last.
    faults: Vec<(Duration, Fault)>,
    server_is_up: bool,
    /// When a server that died or left by itself is started again.
    start_server_at: Option<Duration>,
    worker_is_up: Vec<bool>,
    link_is_whole: Vec<bool>,
}

impl World {
    fn new(shared: Rc<Shared>) -> Self {
        let plan = &shared.plan;
        let mut sim = turmoil::Builder::new()
            .rng_seed(plan.seed)
            .epoch(SystemTime::UNIX_EPOCH)
            .tick_duration(TICK)
            .min_message_latency(Duration::from_millis(1))
            .max_message_latency(plan.max_latency)
            .simulation_duration(Duration::MAX)
            .enable_random_order()
            .build();
        let of_server = Rc::clone(&shared);
        sim.host(SERVER, move || server_host::serve(Rc::clone(&of_server)));
        for number in 0..plan.num_workers {
            let of_worker = Rc::clone(&shared);
            sim.host(name(number), move || {
                fake_worker::work(Rc::clone(&of_worker), number)
            });
        }
        for number in 0..plan.num_followers {
            let of_follower = Rc::clone(&shared);
            sim.client(format!("follower-{number}"), async move {
                fake_follower::follow(of_follower, number).await
            });
        }
        World {
            sim,
            dice: Dice::new(plan.seed, Purpose::Server, 0, 0),
            faults: plan.faults.iter().rev().copied().collect(),
            server_is_up: true,
            start_server_at: None,
            worker_is_up: vec![true; plan.num_workers],
            link_is_whole: vec![true; plan.num_workers],
            shared,
        }
    }

    /// Lets time pass until all is done, something is wrong, or it takes too long.
    fn run(&mut self) -> Result<(), String> {
        let mut bound = self.shared.plan.quiet_from + BOUND;
        loop {
            let now = self.sim.elapsed();
            self.shared.now.set(now);
            while let Some((_, fault)) = self.faults.pop_if(|(time, _)| *time <= now) {
                self.apply(fault);
            }
            if self.shared.is_quiet() {
                self.shared.life.borrow().spare();
            }
            self.sim
                .step()
                .map_err(|error| format!("a host failed: {error}"))?;
            self.look_after_server(now, &mut bound);
            if self.look_after_workers() && !self.server_is_up && self.start_server_at.is_none() {
                return Ok(());
            }
            if self.shared.history.borrow().violation().is_some() {
                return Ok(());
            }
            if now > bound {
                return Err(format!(
                    "the run is not over {BOUND:?} after the last fault"
                ));
            }
        }
    }

    /// Buries a server that died in the middle of its turn, and starts one that is away.
    fn look_after_server(&mut self, now: Duration, bound: &mut Duration) {
        let life = Arc::clone(&self.shared.life.borrow());
        if self.server_is_up && life.is_over() {
            self.stop_server();
            life.restore_files().expect("the train dir can be written");
            self.shared.history.borrow_mut().totals.kills_at_a_moment += 1;
            self.start_server_at = Some(now + self.dice.millis(1, 1000));
            *bound = (*bound).max(now + BOUND);
        }
        if self.shared.server_leaves.take() {
            self.end_server();
            if !self.everyone_is_done() {
                self.start_server_at = Some(now + START_AGAIN);
            }
        }
        if self.start_server_at.is_some_and(|time| time <= now) {
            self.start_server();
        }
    }

    /// Takes the workers down that are done; whether all are.
    fn look_after_workers(&mut self) -> bool {
        for number in 0..self.worker_is_up.len() {
            if self.worker_is_up[number] && self.shared.done.borrow()[number] {
                self.worker_is_up[number] = false;
                self.sim.crash(name(number));
            }
        }
        self.everyone_is_done()
    }

    fn everyone_is_done(&self) -> bool {
        self.shared.done.borrow().iter().all(|done| *done)
    }

    fn stop_server(&mut self) {
        if self.server_is_up {
            self.end_server();
            self.shared.note(format_args!("server is killed"));
            self.shared.history.borrow_mut().totals.server_kills += 1;
        }
    }

    fn end_server(&mut self) {
        self.server_is_up = false;
        self.shared.life.borrow().end();
        self.sim.crash(SERVER);
    }

    fn start_server(&mut self) {
        self.start_server_at = None;
        if !self.server_is_up {
            self.server_is_up = true;
            self.sim.bounce(SERVER);
        }
    }

    fn apply(&mut self, fault: Fault) {
        self.shared.note(format_args!("{fault:?}"));
        match fault {
            Fault::KillServer => self.stop_server(),
            Fault::DoomServer { countdown } => self.shared.life.borrow().doom(countdown),
            Fault::StartServer => self.start_server(),
            Fault::KillWorker(number) => {
                if std::mem::take(&mut self.worker_is_up[number]) {
                    self.sim.crash(name(number));
                    self.shared.history.borrow_mut().totals.worker_kills += 1;
                }
            }
            Fault::StartWorker(number) => {
                if !self.worker_is_up[number] && !self.shared.done.borrow()[number] {
                    self.worker_is_up[number] = true;
                    self.sim.bounce(name(number));
                }
            }
            Fault::Partition(number) => self.break_link(number, Sim::partition),
            Fault::Mute(number) => self.break_link(number, Sim::partition_oneway),
            Fault::Deafen(number) => {
                self.break_link(number, |sim, worker, server| {
                    sim.partition_oneway(server, worker);
                });
            }
            Fault::Hold(number) => self.break_link(number, Sim::hold),
            Fault::Mend(number) => {
                self.link_is_whole[number] = true;
                self.sim.repair(name(number), SERVER);
                self.sim.release(name(number), SERVER);
            }
        }
    }

    /// A link has one fault at a time: the network's own rules for two at once are not of interest.
    fn break_link(&mut self, number: usize, how: impl Fn(&Sim<'static>, String, &'static str)) {
        if std::mem::take(&mut self.link_is_whole[number]) {
            how(&self.sim, name(number), SERVER);
            self.shared.history.borrow_mut().totals.link_faults += 1;
        }
    }
}

fn name(worker: usize) -> String {
    format!("worker-{worker}")
}
