//! What happens in the simulation of a seed: the size of the run, and every fault with its time.

use std::time::Duration;

use crate::dice::{Dice, Purpose};

/// One thing that is done to the simulated world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    KillServer,
    /// The server dies at some moment of its own work, the `countdown`th that is looked at from now.
    DoomServer {
        countdown: u32,
    },
    StartServer,
    KillWorker(usize),
    StartWorker(usize),
    /// Nothing that is sent between the worker and the server arrives.
    Partition(usize),
    /// Only what the worker sends is lost.
    Mute(usize),
    /// Only what the server sends is lost.
    Deafen(usize),
    /// What is sent waits.
    Hold(usize),
    /// The end of any of the last four.
    Mend(usize),
}

/// How often workers do what only a disturbed one does, in percent of tower steps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Habits {
    /// Computes for so long that the tower step is overdue, and sends heartbeats.
    pub(crate) slow: u64,
    /// Stops for longer than the lease, without a heartbeat.
    pub(crate) hang: u64,
    /// Sends the push again, at once or later.
    pub(crate) repeat: u64,
    /// Sends a push of any worker and any time before.
    pub(crate) old_push: u64,
    /// Leaves, and comes back later.
    pub(crate) leave: u64,
    /// Pushes what is not finite.
    pub(crate) nonsense: u64,
    /// Pushes what is not finite under another worker's number.
    pub(crate) impersonate: u64,
    /// The disk damages the newest checkpoint before another is written.
    pub(crate) damage: u64,
    /// Followers tell scores that nobody has seen.
    pub(crate) make_up_scores: bool,
}

/// The plan of a seed.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) num_steps: u64,
    pub(crate) num_towers: u32,
    pub(crate) num_workers: usize,
    pub(crate) num_followers: u64,
    pub(crate) checkpoint_steps: u64,
    pub(crate) lease: Duration,
    /// Range of the time for a tower step, in milliseconds.
    pub(crate) compute_millis: (u64, u64),
    pub(crate) max_latency: Duration,
    pub(crate) habits: Habits,
    /// How long the disk takes for a checkpoint: often longer than it is until the next is due.
    pub(crate) save_time: Duration,
    /// Share of the tower steps that two workers compute.
    pub(crate) audit_fraction: f64,
    /// By time.
    pub(crate) faults: Vec<(Duration, Fault)>,
    /// From here on nothing goes wrong any more.
    pub(crate) quiet_from: Duration,
}

/// The longest time that something stays broken, in milliseconds: beyond every lease here.
const MAX_OUTAGE_MILLIS: u64 = 4000;

impl Plan {
    pub(crate) fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed, Purpose::Plan, 0, 0);
        let (num_steps, num_towers) = (dice.between(10, 18), dice.between(1, 4) as u32);
        let num_workers = dice.between(1, 5) as usize;
        let mut plan = Plan {
            seed,
            num_steps,
            num_towers,
            num_workers,
            num_followers: *dice.pick(&[0, 0, 1, 2]),
            checkpoint_steps: dice.between(2, 12),
            lease: dice.millis(600, 2000),
            compute_millis: *dice.pick(&[(1, 10), (20, 60), (50, 200)]),
            max_latency: dice.millis(2, 60),
            habits: Habits {
                slow: *dice.pick(&[0, 2, 8]),
                hang: *dice.pick(&[0, 0, 2]),
                repeat: *dice.pick(&[0, 20, 60]),
                old_push: *dice.pick(&[0, 20, 60]),
                leave: *dice.pick(&[0, 0, 3]),
                nonsense: *dice.pick(&[0, 0, 3]),
                impersonate: *dice.pick(&[0, 20]),
                damage: *dice.pick(&[0, 0, 40]),
                make_up_scores: dice.chance(30),
            },
            save_time: Duration::ZERO,
            audit_fraction: *dice.pick(&[0.0, 0.0, 0.3]),
            faults: Vec::new(),
            quiet_from: Duration::ZERO,
        };
        let window = plan.undisturbed_millis();
        plan.let_some_join_late(&mut dice, window);
        for _ in 0..*dice.pick(&[0, 2, 5, 8, 12]) {
            plan.break_something(&mut dice, window);
        }
        let (quickest, slowest) = *dice.pick(&[(0, 0), (50, 500), (500, 5000)]);
        plan.save_time = dice.millis(quickest, slowest);
        plan.faults.sort_by_key(|(time, _)| *time);
        let last_fault = plan.faults.last().map(|(time, _)| *time);
        plan.quiet_from = last_fault
            .unwrap_or_default()
            .max(Duration::from_millis(window));
        plan
    }

    /// About how long the run takes if nothing goes wrong.
    fn undisturbed_millis(&self) -> u64 {
        let rounds = u64::from(self.num_towers).div_ceil(self.num_workers as u64);
        let (low, high) = self.compute_millis;
        // A request goes there and back on a tick of the simulation each, at the least.
        let talk = 4 * (10 + self.max_latency.as_millis() as u64 / 4);
        self.num_steps * rounds * ((low + high) / 2 + talk)
    }

    fn let_some_join_late(&mut self, dice: &mut Dice, window: u64) {
        for worker in 1..self.num_workers {
            if dice.chance(20) {
                let joins = dice.millis(0, window);
                self.faults
                    .push((Duration::ZERO, Fault::KillWorker(worker)));
                self.faults.push((joins, Fault::StartWorker(worker)));
            }
        }
    }

    fn break_something(&mut self, dice: &mut Dice, window: u64) {
        let begin = dice.millis(0, window);
        let longest = *dice.pick(&[100, 1000, MAX_OUTAGE_MILLIS]);
        let end = begin + dice.millis(1, longest);
        let worker = dice.between(0, self.num_workers as u64 - 1) as usize;
        let countdown = dice.between(0, 24) as u32;
        let (fault, repair) = *dice.pick(&[
            (Fault::KillServer, Fault::StartServer),
            (Fault::KillServer, Fault::StartServer),
            (Fault::DoomServer { countdown }, Fault::StartServer),
            (Fault::DoomServer { countdown }, Fault::StartServer),
            (Fault::KillWorker(worker), Fault::StartWorker(worker)),
            (Fault::KillWorker(worker), Fault::StartWorker(worker)),
            (Fault::Partition(worker), Fault::Mend(worker)),
            (Fault::Mute(worker), Fault::Mend(worker)),
            (Fault::Deafen(worker), Fault::Mend(worker)),
            (Fault::Hold(worker), Fault::Mend(worker)),
        ]);
        self.faults.push((begin, fault));
        self.faults.push((end, repair));
    }
}
