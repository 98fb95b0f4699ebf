//! What a run's ledger says of a stretch of time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pserver_ledger::history::{Committed, History};
use pserver_ledger::record::{Commit, TowerRecord};

use crate::figures::{
    APPLY_MS, ASK_MS, BARRIER_MS, COMPUTE_MS, DIGEST_MS, Figures, LEDGER_MS, STEP_MS, TRANSPORT_MS,
    WRITE_MS,
};
use crate::statistics::mean;

/// A stretch of time.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Its beginning, in microseconds since 1970.
    pub from_micros: u64,
    /// Its end, the same.
    pub to_micros: u64,
}

/// Microseconds since 1970.
#[must_use]
pub fn now_micros() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    since_1970.unwrap_or(Duration::ZERO).as_micros() as u64
}

/// The commits of a stretch of time, in order.
#[derive(Clone, Debug)]
pub struct Commits<'a>(Vec<&'a Committed>);

impl<'a> Commits<'a> {
    /// Those of `window`.
    #[must_use]
    pub fn within(history: &'a History, window: Window) -> Self {
        let times = window.from_micros..window.to_micros;
        let commits = history.commits.values();
        Commits(commits.filter(|it| times.contains(&it.at_micros)).collect())
    }

    /// How many steps there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Time of a step: from the first of these commits to the last, over the steps between them.
    #[must_use]
    pub fn step_time(&self) -> Option<Duration> {
        let (first, last) = (self.0.first()?, self.0.last()?);
        let micros = last.at_micros.saturating_sub(first.at_micros);
        let steps = self.0.len() as u64 - 1;
        micros.checked_div(steps).map(Duration::from_micros)
    }

    /// The parts of a step, each the mean over these commits. Those of [`ASK_MS`], [`TRANSPORT_MS`],
    /// [`COMPUTE_MS`], [`BARRIER_MS`] and of the commit follow each other:
    ///
    /// ```text
    /// commit before --ask--> given out --transport, compute--> gradient here --barrier--> all here --apply ..--> commit
    ///               '---------------------------- gather ------------------------------------'
    /// ```
    #[must_use]
    pub fn phases(&self) -> Figures {
        let step_ms = self.step_time().map(|time| 1000.0 * time.as_secs_f64());
        let mut figures = Figures::default().with_some(STEP_MS, step_ms);
        let parts: Vec<_> = self.0.iter().map(|it| parts_of(&it.commit)).collect();
        let Some(first) = parts.first() else {
            return figures;
        };
        for (index, (name, _)) in first.iter().enumerate() {
            let micros = mean(parts.iter().map(|parts| parts[index].1));
            figures = figures.with_some(name, micros.map(|micros| micros / 1000.0));
        }
        figures
    }

    /// What the server did for all of these commits, besides taking gradients.
    #[must_use]
    pub fn commit_time(&self) -> Duration {
        let micros = |it: &&Committed| {
            let phases = it.commit.phases;
            phases.apply_micros + phases.digest_micros + phases.write_micros + phases.ledger_micros
        };
        Duration::from_micros(self.0.iter().map(micros).sum())
    }

    /// How many tower steps each of the workers `0..workers` computed.
    #[must_use]
    pub fn tower_steps_by_worker(&self, workers: u32) -> Vec<u64> {
        let mut tower_steps = vec![0; workers as usize];
        let towers = self.0.iter().flat_map(|it| &it.commit.towers);
        for tower in towers {
            if let Some(count) = tower_steps.get_mut(tower.worker as usize) {
                *count += 1;
            }
        }
        tower_steps
    }
}

/// The parts of a step in microseconds, those of a tower as the mean over the towers.
fn parts_of(commit: &Commit) -> [(&'static str, f64); 8] {
    let of_towers = |part: fn(&TowerRecord) -> u64| {
        mean(commit.towers.iter().map(|tower| part(tower) as f64)).unwrap_or(0.0)
    };
    let held = of_towers(|tower| tower.held_micros);
    let computed = of_towers(|tower| tower.compute_micros);
    let waited = of_towers(|tower| tower.waited_micros);
    let phases = commit.phases;
    [
        (ASK_MS, commit.gather_micros as f64 - held - waited),
        (TRANSPORT_MS, held - computed),
        (COMPUTE_MS, computed),
        (BARRIER_MS, waited),
        (APPLY_MS, phases.apply_micros as f64),
        (DIGEST_MS, phases.digest_micros as f64),
        (WRITE_MS, phases.write_micros as f64),
        (LEDGER_MS, phases.ledger_micros as f64),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLES: &str = "00000000000000000000000000000000";

    fn committed(step: u64, at_micros: u64) -> Committed {
        let tower = |tower: u32, held: u64, waited: u64| {
            format!(
                r#"{{"step":{step},"tower":{tower},"worker":{tower},"examples":"{EXAMPLES}","loss":1,"norm":1,
                "held_micros":{held},"compute_micros":6000,"waited_micros":{waited}}}"#
            )
        };
        let commit = format!(
            r#"{{"global_step":{step},"learning_rate":0.1,"loss":1,"towers":[{},{}],"gather_micros":10000,
            "phases":{{"apply_micros":1000,"digest_micros":500,"write_micros":2000,"ledger_micros":250}},
            "digest":"{EXAMPLES}"}}"#,
            tower(0, 7000, 2000),
            tower(1, 9000, 0),
        );
        Committed {
            at_micros,
            server_start: 0,
            commit: serde_json::from_str(&commit).unwrap(),
        }
    }

    #[test]
    fn the_parts_of_a_step_add_up_to_it() {
        let steps: Vec<Committed> = (0..3)
            .map(|step| committed(step, 13_750 * (1 + step)))
            .collect();
        let commits = Commits(steps.iter().collect());
        let phases = commits.phases();
        let part = |name: &str| phases.get(name).unwrap();
        assert_eq!(part(COMPUTE_MS), 6.0);
        assert_eq!(part(TRANSPORT_MS), 2.0);
        assert_eq!(part(BARRIER_MS), 1.0);
        assert_eq!(part(ASK_MS), 1.0);
        let names = phases.names().filter(|name| *name != STEP_MS);
        let sum: f64 = names.map(part).sum();
        assert_eq!((sum, part(STEP_MS)), (13.75, 13.75));
        assert_eq!(commits.commit_time(), Duration::from_micros(3 * 3750));
        assert_eq!(commits.tower_steps_by_worker(3), [3, 3, 0]);
    }

    #[test]
    fn without_commits_there_are_no_figures() {
        let commits = Commits(Vec::new());
        assert_eq!(commits.phases(), Figures::default());
        assert_eq!(commits.step_time(), None);
        let one = committed(0, 5);
        assert_eq!(Commits(vec![&one]).step_time(), None);
    }
}
