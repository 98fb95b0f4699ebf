//! Where two runs part: their configurations, and the first step that left another state.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use pserver_run::{GlobalStep, StateDigest, Tower};

use crate::history::History;
use crate::units::{counted, steps, write_lines};

/// How two runs, A and B, compare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The settings that differ, each as `flag: A's -> B's`.
    pub settings: Vec<String>,
    /// The first and the last of the steps that both began with the same state.
    pub equal: Option<(GlobalStep, GlobalStep)>,
    /// Where they part.
    pub parting: Option<Parting>,
    /// The step that each is at.
    pub reached: [GlobalStep; 2],
    /// How many lines of each were skipped: steps that they told of are not compared.
    pub damaged_lines: [u64; 2],
}

/// The first state that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parting {
    /// The step that it is the state before.
    pub at: GlobalStep,
    /// Its digest in each run.
    pub digests: [StateDigest; 2],
    /// What differs on record in the step that led to it, if both have it.
    pub in_step: Option<Vec<String>>,
}

/// Compares two runs.
#[must_use]
pub fn diff(a: &History, b: &History) -> Difference {
    let begins = [a.starts[0].start.global_step];
    let goes_on = a.commits.keys().map(|step| step.next());
    let mut in_both = begins.into_iter().chain(goes_on).filter_map(|at| {
        let digests = [a.digest_at(at)?, b.digest_at(at)?];
        Some((at, digests))
    });
    let mut equal = None;
    let parting = in_both.find_map(|(at, digests)| {
        if digests[0] == digests[1] {
            let (first, _) = equal.unwrap_or((at, at));
            equal = Some((first, at));
            return None;
        }
        Some(Parting {
            at,
            digests,
            in_step: differences_before(a, b, at),
        })
    });
    Difference {
        settings: a.run.differences(&b.run),
        equal,
        parting,
        reached: [a.reached, b.reached],
        damaged_lines: [a, b].map(|history| history.damage.num_lines()),
    }
}

/// What differs on record in the step before `at`.
fn differences_before(a: &History, b: &History, at: GlobalStep) -> Option<Vec<String>> {
    let step = GlobalStep(at.0.checked_sub(1)?);
    let (in_a, in_b) = (facts(a, step)?, facts(b, step)?);
    let either: BTreeSet<&Fact> = in_a.keys().chain(in_b.keys()).collect();
    let differ = either
        .into_iter()
        .filter(|fact| in_a.get(fact) != in_b.get(fact));
    let mut differences = Vec::new();
    let mut towers = BTreeSet::new();
    for fact in differ {
        let [in_a, in_b] = [&in_a, &in_b].map(|facts| match facts.get(fact) {
            Some(value) => value.as_str(),
            None => "nothing",
        });
        differences.push(format!("{fact}: {in_a} in A, {in_b} in B"));
        towers.extend(fact.tower());
    }
    for tower in towers {
        let [by_a, by_b] = [a, b].map(|history| computed_by(history, step, tower));
        differences.push(format!(
            "tower {tower} was computed by {by_a} in A, {by_b} in B"
        ));
    }
    Some(differences)
}

/// Something on record about a step that is the same in equal runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fact {
    LearningRate,
    Loss,
    Examples(Tower),
    TowerLoss(Tower),
    Norm(Tower),
    Numerics,
    Server,
}

impl Fact {
    fn tower(self) -> Option<Tower> {
        match self {
            Fact::Examples(tower) | Fact::TowerLoss(tower) | Fact::Norm(tower) => Some(tower),
            _ => None,
        }
    }
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fact::LearningRate => f.write_str("learning rate"),
            Fact::Loss => f.write_str("loss"),
            Fact::Examples(tower) => write!(f, "examples of tower {tower}"),
            Fact::TowerLoss(tower) => write!(f, "loss of tower {tower}"),
            Fact::Norm(tower) => write!(f, "norm of the gradient of tower {tower}"),
            Fact::Numerics => f.write_str("workers compute with"),
            Fact::Server => f.write_str("version of the server"),
        }
    }
}

/// The text form of a number tells every bit of it, so that texts can be compared.
fn facts(history: &History, step: GlobalStep) -> Option<BTreeMap<Fact, String>> {
    let committed = history.commits.get(&step)?;
    let start = &history.starts[committed.server_start];
    let commit = &committed.commit;
    let mut facts = BTreeMap::from([
        (Fact::LearningRate, commit.learning_rate.to_string()),
        (Fact::Loss, commit.loss.to_string()),
        (Fact::Server, start.start.version.clone()),
    ]);
    let mut numerics = BTreeSet::new();
    for record in &commit.towers {
        let tower = record.of.tower;
        facts.insert(Fact::Examples(tower), record.examples.to_string());
        facts.insert(Fact::TowerLoss(tower), record.loss.to_string());
        facts.insert(Fact::Norm(tower), record.norm.to_string());
        let worker = start.workers.get(&record.worker);
        numerics.extend(worker.map(|worker| worker.numerics.as_str()));
    }
    let numerics: Vec<&str> = numerics.into_iter().collect();
    facts.insert(Fact::Numerics, numerics.join(" and "));
    Some(facts)
}

fn computed_by(history: &History, step: GlobalStep, tower: Tower) -> String {
    let worker = history.commits.get(&step).and_then(|committed| {
        let mut records = committed.commit.towers.iter();
        let record = records.find(|record| record.of.tower == tower)?;
        Some(history.worker(committed.server_start, record.worker))
    });
    worker.map_or_else(|| "nobody".to_owned(), |worker| worker.to_string())
}

impl Difference {
    /// Whether the runs have a state in common, and nothing on record says that they differ.
    #[must_use]
    pub fn is_equal(&self) -> bool {
        self.settings.is_empty() && self.parting.is_none() && self.equal.is_some()
    }

    fn tell_longer(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b] = self.reached;
        match a.cmp(&b) {
            Ordering::Less => writeln!(f, "A is at step {a}, B further on at step {b}"),
            Ordering::Equal => writeln!(f, "both are at step {a}"),
            Ordering::Greater => writeln!(f, "B is at step {b}, A further on at step {a}"),
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.settings.is_empty() {
            writeln!(f, "settings of A -> B:")?;
            write_lines(f, &self.settings)?;
        }
        match (&self.equal, &self.parting) {
            (None, None) => writeln!(f, "A and B have no step in common")?,
            (None, Some(_)) => {}
            (Some((first, at)), _) if first == at => {
                writeln!(f, "both have the same state before step {at}")?;
            }
            (Some((first, at)), _) => writeln!(
                f,
                "equal: {} left the same state in both, bit by bit",
                steps(*first, GlobalStep(at.0 - 1))
            )?,
        }
        match &self.parting {
            Some(parting) => parting.fmt(f)?,
            None => self.tell_longer(f)?,
        }
        for (run, number) in ["A", "B"].into_iter().zip(self.damaged_lines) {
            if number > 0 {
                let lines = counted(number, "damaged line");
                writeln!(
                    f,
                    "the ledger of {run} has {lines}, and what stood there is not compared"
                )?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Parting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Parting { at, digests, .. } = self;
        let [a, b] = digests;
        match &self.in_step {
            None => {
                writeln!(f, "before step {at} their states differ:")?;
                writeln!(f, "  state: {a} in A, {b} in B")
            }
            Some(differences) => {
                let step = at.0 - 1;
                writeln!(f, "step {step} left different states:")?;
                writeln!(f, "  state: {a} in A, {b} in B")?;
                if differences.is_empty() {
                    return writeln!(
                        f,
                        "  nothing else on record differs in it: the updates differ, not the gradients"
                    );
                }
                write_lines(f, differences)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{committed, digest_at, history, started, undisturbed};
    use crate::record::{Commit, Record};

    /// A run of five steps whose commit of step 3 is changed like this, and so all states after it.
    fn changed(change: impl Fn(&mut Commit)) -> History {
        let mut records = undisturbed(5);
        for record in &mut records {
            match record {
                Record::Commit(commit) if commit.global_step.0 >= 3 => {
                    commit.digest = digest_at(100 + commit.global_step.0);
                    if commit.global_step.0 == 3 {
                        change(commit);
                    }
                }
                _ => {}
            }
        }
        history(records)
    }

    #[test]
    fn a_run_is_equal_to_itself_and_to_its_beginning() {
        let long = history(undisturbed(5));
        let same = diff(&long, &long);
        assert!(same.is_equal());
        assert_eq!(
            same.to_string(),
            "equal: steps 0 to 4 left the same state in both, bit by bit\nboth are at step 5\n"
        );
        let shorter = diff(&history(undisturbed(3)), &long);
        assert!(shorter.is_equal());
        assert!(
            shorter
                .to_string()
                .ends_with("A is at step 3, B further on at step 5\n")
        );
        let unbegun = diff(&history(undisturbed(0)), &long);
        assert!(
            unbegun
                .to_string()
                .starts_with("both have the same state before step 0\n")
        );
    }

    #[test]
    fn the_step_that_parts_two_runs_is_named_with_what_differs_in_it() {
        let a = history(undisturbed(5));
        let b = changed(|commit| {
            commit.learning_rate = 0.01;
            commit.towers[1].norm = 0.5;
        });
        let difference = diff(&a, &b);
        assert!(!difference.is_equal());
        let text = difference.to_string();
        let told: Vec<&str> = text.lines().collect();
        assert_eq!(
            told[0],
            "equal: steps 0 to 2 left the same state in both, bit by bit"
        );
        assert_eq!(told[1], "step 3 left different states:");
        assert!(told[2].starts_with("  state: 0000"));
        assert_eq!(
            told[3..],
            [
                "  learning rate: 0.1 in A, 0.01 in B",
                "  norm of the gradient of tower 1: 0.25 in A, 0.5 in B",
                "  tower 1 was computed by worker 1 (host/11) in A, worker 1 (host/11) in B"
            ]
        );
    }

    #[test]
    fn an_update_that_differs_by_itself_is_told_from_gradients_that_do() {
        let a = history(undisturbed(5));
        let same_gradients = diff(&a, &changed(|_| {}));
        assert!(same_gradients.to_string().contains("not the gradients"));
        let without_tower = diff(&a, &changed(|commit| commit.towers.truncate(1)));
        let text = without_tower.to_string();
        assert!(
            text.contains("loss of tower 1: 4.5 in A, nothing in B"),
            "{text}"
        );
    }

    #[test]
    fn other_settings_are_a_difference_of_equal_states_too() {
        let a = history(undisturbed(2));
        let mut b = a.clone();
        b.run.threads = 2;
        let difference = diff(&a, &b);
        assert!(!difference.is_equal());
        assert!(difference.to_string().contains("--threads: 1 -> 2"));
    }

    #[test]
    fn a_run_begun_with_the_state_of_another_is_compared_from_there() {
        let mut records = vec![started(3)];
        records.extend((3..6).map(committed));
        let difference = diff(&history(undisturbed(5)), &history(records));
        assert_eq!(difference.equal, Some((GlobalStep(3), GlobalStep(5))));
        let apart = diff(&history(undisturbed(2)), &history(vec![started(9)]));
        assert!(!apart.is_equal());
        assert!(apart.to_string().contains("no step in common"));
    }
}
