//! The proof that a run used every example of every epoch exactly once.
//!
//! Which examples a tower step has to use follows from the run's seed alone. The ledger says which
//! tower steps were applied, and holds a digest of the examples that each of them used. Both are
//! compared here, and the uses of every example counted, without the data.
//!
//! Where lines of the ledger are damaged or its beginning is missing, what is left is proven, and the rest named.

use std::ops::Range;

use pserver_run::{ExamplesDigest, GlobalStep, Mode, RunConfig, SampleSequence};

use crate::coverage::{Coverage, Used};
use crate::history::{Committed, History, Worker};
use crate::proof::{Findings, PartialEpoch, Partly, Proof};
use crate::record::TowerRecord;
use crate::units::{count, times};

/// Proves that a run used every example exactly once in every full epoch, as far as the lines of its ledger that
/// can be read show it: [`Proof::is_whole`] says whether that is all of the run.
///
/// # Errors
///
/// [`Findings`], if that is not so, or a ledger without damage does not show it.
pub fn verify(history: &History) -> Result<Proof, Findings> {
    if history.run.mode != Mode::Synchronous {
        return Err(Findings(vec![format!(
            "a run of mode {} may drop gradients and with them examples; only one of mode sync uses each exactly once",
            history.run.mode
        )]));
    }
    let mut check = Check::of(history);
    for (step, committed) in &history.commits {
        check.add_gap(*step);
        check.add_commit(*step, committed);
    }
    check.add_gap(history.reached);
    check.end()
}

/// A proof in the making.
struct Check<'a> {
    history: &'a History,
    sequence: SampleSequence,
    coverage: Coverage,
    /// The step that has to come next.
    next: GlobalStep,
    proof: Proof,
    findings: Vec<String>,
}

impl<'a> Check<'a> {
    fn of(history: &'a History) -> Self {
        let run = &history.run;
        let num_examples = run.data.num_train_examples();
        let first_step = history.first_step();
        Check {
            history,
            sequence: run.sequence(),
            coverage: Coverage::new(num_examples),
            next: first_step,
            proof: Proof {
                steps: Vec::new(),
                num_towers: run.num_towers,
                num_examples,
                full_epochs: Vec::new(),
                partial_epochs: Vec::new(),
                gaps: Vec::new(),
                begins_late: (!history.has_beginning()).then_some(first_step),
                damage: history.damage.clone(),
            },
            findings: history.contradictions.clone(),
        }
    }

    /// The run got as far as `step`.
    fn add_gap(&mut self, step: GlobalStep) {
        if step > self.next {
            self.proof.gaps.push(self.next..step);
            self.next = step;
        }
    }

    fn add_commit(&mut self, step: GlobalStep, committed: &Committed) {
        let mut has_come = vec![false; self.proof.num_towers as usize];
        for record in &committed.commit.towers {
            let worker = self.history.worker(committed.server_start, record.worker);
            let place = has_come.get_mut(record.of.tower.0 as usize);
            match place.filter(|_| record.of.global_step == step) {
                Some(has_come) => {
                    let is_second = std::mem::replace(has_come, true);
                    self.add_gradient(record, &worker, is_second);
                }
                None => {
                    let of = record.of;
                    self.findings.push(format!(
                        "step {step} counted what {worker} computed for {of}"
                    ));
                }
            }
        }
        for (tower, has_come) in has_come.into_iter().enumerate() {
            if !has_come {
                self.findings
                    .push(format!("step {step} was applied without its tower {tower}"));
            }
        }
        self.next = step.next();
        append(&mut self.proof.steps, step..self.next);
        let (epoch, _) = position(&self.history.run, self.next);
        for (epoch, used) in self.coverage.take_before(epoch) {
            self.end_epoch(epoch, used);
        }
    }

    /// A gradient of one of the towers of its step; its examples count if they are those that the
    /// digest is of.
    fn add_gradient(&mut self, record: &TowerRecord, worker: &Worker, is_second: bool) {
        let of = record.of;
        if is_second {
            self.findings
                .push(format!("{of} counted once more, by {worker}"));
        }
        let samples = self.sequence.samples(of);
        if ExamplesDigest::of(samples.iter().copied()) == record.examples {
            self.coverage.extend(samples);
        } else {
            self.findings
                .push(format!("{worker} did not use the examples of {of}"));
        }
    }

    /// The run is past an epoch.
    fn end_epoch(&mut self, epoch: u64, used: Used) {
        let unused = self.proof.num_examples - used.examples;
        if unused == 0 && used.repeated == 0 {
            append(&mut self.proof.full_epochs, epoch..epoch + 1);
        } else if self.has_begun_before(epoch) {
            self.add_part(epoch, used, Partly::BegunBefore);
        } else if self.proof.damage.is_empty() {
            self.find_misuse(epoch, unused, used.repeated);
        } else {
            self.add_part(epoch, used, Partly::Gap);
        }
    }

    /// A part of an epoch was used.
    fn add_part(&mut self, epoch: u64, used: Used, why: Partly) {
        if used.repeated > 0 {
            self.find_misuse(epoch, 0, used.repeated);
        }
        if used.examples < self.proof.num_examples {
            self.proof.partial_epochs.push(PartialEpoch {
                epoch,
                used: used.examples,
                why,
            });
        }
    }

    /// Whether a part of an epoch was used before the ledger begins.
    fn has_begun_before(&self, epoch: u64) -> bool {
        let (first_epoch, offset) = position(&self.history.run, self.history.first_step());
        epoch == first_epoch && offset > 0
    }

    /// Examples of an epoch are not known to have been used, or were used again.
    fn find_misuse(&mut self, epoch: u64, unused: u32, repeated: u64) {
        let mut what = Vec::new();
        if unused > 0 {
            let unused = count(u64::from(unused));
            what.push(format!(
                "{unused} of its examples are not on record as used"
            ));
        }
        if repeated > 0 {
            what.push(format!("examples were used again {}", times(repeated)));
        }
        self.findings
            .push(format!("epoch {epoch}: {}", what.join(", ")));
    }

    fn end(mut self) -> Result<Proof, Findings> {
        for (epoch, used) in self.coverage.take_before(u64::MAX) {
            let why = match self.has_begun_before(epoch) {
                true => Partly::BegunBefore,
                false => Partly::InProgress,
            };
            self.add_part(epoch, used, why);
        }
        let Proof { gaps, damage, .. } = &self.proof;
        if damage.is_empty() || !self.findings.is_empty() {
            let gap = |gap: &Range<GlobalStep>| match (gap.start, gap.end.0 - 1) {
                (first, last) if first.0 == last => format!("step {first} is not on record"),
                (first, last) => format!("steps {first} to {last} are not on record"),
            };
            self.findings.extend(gaps.iter().map(gap));
        }
        if self.findings.is_empty() {
            return Ok(self.proof);
        }
        if !damage.is_empty() {
            self.findings.push(damage.to_string().trim_end().to_owned());
        }
        Err(Findings(self.findings))
    }
}

/// Makes the last stretch longer, or begins another one.
fn append<T: PartialEq>(stretches: &mut Vec<Range<T>>, next: Range<T>) {
    match stretches.last_mut() {
        Some(last) if last.end == next.start => last.end = next.end,
        _ => stretches.push(next),
    }
}

/// Epoch of the first example of a step, and how far in it that stands.
fn position(run: &RunConfig, step: GlobalStep) -> (u64, u64) {
    let position = step.0 * u64::from(run.num_towers) * u64::from(run.batch_size);
    let num_examples = u64::from(run.data.num_train_examples());
    (position / num_examples, position % num_examples)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::damage::Place;
    use crate::fixtures::{
        committed, ended, history, joined, rewound, start, started, undisturbed,
    };
    use crate::record::{Commit, Record};

    /// What is found when the commit of step 3 of five is changed like this.
    fn findings_after(change: impl Fn(&mut Commit)) -> Vec<String> {
        let mut records = undisturbed(5);
        for record in &mut records {
            match record {
                Record::Commit(commit) if commit.global_step.0 == 3 => change(commit),
                _ => {}
            }
        }
        told(records)
    }

    fn told(records: Vec<Record>) -> Vec<String> {
        let Findings(findings) = verify(&history(records)).expect_err("it is no proof");
        findings
    }

    #[test]
    fn a_run_is_proven_epoch_by_epoch() {
        // 8 examples a step and 20 an epoch.
        let proof = verify(&history(undisturbed(6))).unwrap();
        assert_eq!(proof.full_epochs.first(), Some(&(0..2)));
        assert!(proof.is_whole());
        assert_eq!(
            proof.to_string(),
            "proven: steps 0 to 5 took 2 tower steps each, of exactly the examples that were theirs\n\
             epochs 0 to 1 used each of the 20 examples exactly once: 2 full epochs\n\
             epoch 2 is in progress: 8 of its 20 examples are on record, none twice\n"
        );
        let whole = verify(&history(undisturbed(5))).unwrap();
        assert_eq!(whole.partial_epochs, []);
        let begun = verify(&history(undisturbed(0))).unwrap().to_string();
        assert_eq!(
            begun,
            "no step is committed yet: there is nothing to prove\n"
        );
    }

    #[test]
    fn a_run_that_drops_gradients_is_not_proven() {
        let mut of_quorum = history(undisturbed(6));
        of_quorum.run.mode = Mode::Quorum {
            replicas_to_aggregate: 1,
        };
        let findings = verify(&of_quorum).unwrap_err();
        assert_eq!(
            findings.to_string(),
            "not proven: 1 finding\n  a run of mode quorum:1 may drop gradients and with them \
             examples; only one of mode sync uses each exactly once\n"
        );
    }

    #[test]
    fn a_run_that_began_in_an_epoch_is_proven_from_the_next_one_on() {
        let mut begun = start(3);
        begun.digest = begun.run.initial_digest;
        let mut records = vec![Record::Start(begun)];
        records.extend((3..9).map(committed));
        let proof = verify(&history(records)).unwrap();
        assert!(proof.is_whole(), "{proof}");
        assert_eq!(proof.full_epochs.first(), Some(&(2..3)));
        let parts: Vec<_> = proof
            .partial_epochs
            .iter()
            .map(|part| (part.epoch, part.used, part.why))
            .collect();
        let expected = [(1, 16, Partly::BegunBefore), (3, 12, Partly::InProgress)];
        assert_eq!(parts, expected);
    }

    #[test]
    fn what_was_undone_does_not_count() {
        let mut records = undisturbed(4);
        records.extend([started(2), rewound(2), joined(0, "host/10")]);
        records.extend((2..6).map(committed));
        assert!(verify(&history(records)).is_ok());
    }

    #[test]
    fn a_finding_names_step_tower_and_worker() {
        let other_examples = findings_after(|commit| commit.towers[1].examples.0[0] ^= 1);
        assert_eq!(
            other_examples,
            [
                "worker 1 (host/11) did not use the examples of step 3 tower 1",
                "epoch 1: 4 of its examples are not on record as used"
            ]
        );
        let missing = findings_after(|commit| {
            commit.towers.remove(0);
        });
        assert_eq!(missing[0], "step 3 was applied without its tower 0");
        let twice = findings_after(|commit| commit.towers.push(commit.towers[0].clone()));
        assert_eq!(
            twice,
            [
                "step 3 tower 0 counted once more, by worker 0 (host/10)",
                "epoch 1: examples were used again 4 times"
            ]
        );
        let foreign = findings_after(|commit| commit.towers[0].of.global_step.0 = 2);
        assert_eq!(
            foreign[0],
            "step 3 counted what worker 0 (host/10) computed for step 2 tower 0"
        );
        let no_tower = findings_after(|commit| commit.towers[0].of.tower.0 = 5);
        assert!(no_tower[0].ends_with("for step 3 tower 5"), "{no_tower:?}");
    }

    #[test]
    fn steps_that_are_not_on_record_are_a_gap() {
        let mut records = undisturbed(2);
        records.extend([committed(4), ended(7)]);
        let told = told(records);
        let gaps = &told[told.len() - 2..];
        assert_eq!(
            gaps,
            [
                "steps 2 to 3 are not on record",
                "steps 5 to 6 are not on record"
            ]
        );
    }

    /// The history of these records whose ledger has a damaged line besides.
    fn damaged(records: Vec<Record>) -> History {
        let mut history = history(records);
        let (line, offset) = (7, 4711);
        history.damage.add(Place { line, offset }, "it is empty");
        history
    }

    #[test]
    fn of_a_damaged_ledger_only_what_can_be_read_is_proven() {
        // Steps 4 and 5 are of epochs 1 and 2.
        let mut records = undisturbed(4);
        records.extend((6..13).map(committed));
        let proof = verify(&damaged(records)).unwrap();
        assert!(!proof.is_whole());
        assert_eq!(
            proof.to_string(),
            "proven in part: steps 0 to 3 and steps 6 to 12 took 2 tower steps each, of exactly the examples that were theirs\n\
             epoch 0 used each of the 20 examples exactly once\n\
             epochs 3 to 4 used each of the 20 examples exactly once: 2 full epochs\n\
             epoch 1 is not proven: 12 of its 20 examples are on record, none twice\n\
             epoch 2 is not proven: 12 of its 20 examples are on record, none twice\n\
             epoch 5 is in progress: 4 of its 20 examples are on record, none twice\n\
             not proven: the ledger lacks steps 4 to 5\n\
             1 line of the ledger is damaged and was skipped:\n  line 7, at byte 4,711: it is empty\n"
        );
    }

    #[test]
    fn damage_is_told_where_no_step_is_missing() {
        let proof = verify(&damaged(undisturbed(5))).unwrap();
        assert!(!proof.is_whole() && proof.gaps.is_empty());
        assert!(
            proof
                .to_string()
                .contains("proven in part: steps 0 to 4 took ")
        );
    }

    #[test]
    fn what_contradicts_the_proof_is_found_in_a_damaged_ledger_too() {
        let mut records = undisturbed(3);
        records.extend([committed(1), committed(4)]);
        let findings = verify(&damaged(records)).unwrap_err().to_string();
        for told in [
            "step 1 was committed twice",
            "step 3 is not on record",
            "line 7, at byte 4,711",
        ] {
            assert!(findings.contains(told), "{findings}");
        }
    }

    #[test]
    fn a_ledger_without_its_beginning_proves_only_what_is_left() {
        let mut records = vec![started(5), joined(0, "host/10"), joined(1, "host/11")];
        records.extend((5..10).map(committed));
        let proof = verify(&history(records)).unwrap();
        assert!(!proof.is_whole());
        assert_eq!(
            proof.to_string(),
            "proven in part: steps 5 to 9 took 2 tower steps each, of exactly the examples that were theirs\n\
             epochs 2 to 3 used each of the 20 examples exactly once: 2 full epochs\n\
             not proven: what came before this ledger, which begins at step 5 of a run that had begun earlier\n"
        );
    }

    #[test]
    fn of_many_findings_the_first_are_told() {
        let mut records = undisturbed(2);
        records.extend((0..30).map(|step| committed(step * 2 + 10)));
        let findings = verify(&history(records)).unwrap_err();
        let text = findings.to_string();
        assert_eq!(text.lines().count(), 1 + 20 + 1);
        assert!(text.ends_with("more\n"), "{text}");
    }

    proptest! {
        #[test]
        fn any_single_change_is_found(
            steps in 1_u64..12, step: prop::sample::Index, tower in 0_usize..2, change in 0..5, bit in 0_usize..128,
        ) {
            let mut records = undisturbed(steps);
            let at = 3 + step.index(steps as usize);
            records.push(ended(steps));
            prop_assert!(verify(&history(records.clone())).is_ok());
            let Record::Commit(commit) = &mut records[at] else { unreachable!() };
            match change {
                0 => commit.towers[tower].examples.0[bit / 8] ^= 1 << (bit % 8),
                1 => { commit.towers.remove(tower); }
                2 => commit.towers.push(commit.towers[tower].clone()),
                3 => commit.towers[tower] = commit.towers[1 - tower].clone(),
                _ => { records.remove(at); }
            }
            prop_assert!(verify(&history(records)).is_err());
        }
    }
}
