//! Loss, learning rate and speed over the steps, in a bounded number of points.

use std::mem;

use serde::{Serialize, Serializer};

/// A curve has no more points than this, and at least half as many once it has had to be thinned out.
pub const MAX_POINTS: usize = 1024;

/// What a curve learns of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Mean total loss.
    pub loss: f32,
    /// Learning rate that was applied.
    pub learning_rate: f32,
    /// Examples that made the update.
    pub examples: u64,
    /// Time of the step, in microseconds.
    pub micros: u64,
    /// When it was committed, in microseconds since 1970.
    pub at_micros: u64,
}

/// One or several steps, one after the other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// The first step.
    pub first_step: u64,
    /// The last step.
    pub last_step: u64,
    /// How many there are.
    pub num_steps: u64,
    /// Sum of their losses.
    loss_sum: f64,
    /// The lowest loss.
    pub lowest_loss: f32,
    /// The highest loss.
    pub highest_loss: f32,
    /// Learning rate of the last step.
    pub learning_rate: f32,
    /// Examples of all.
    pub examples: u64,
    /// Time of all, in microseconds.
    pub micros: u64,
    /// When the last step was committed, in microseconds since 1970.
    pub at_micros: u64,
}

impl Point {
    fn of(step: u64, sample: Sample) -> Self {
        Point {
            first_step: step,
            last_step: step,
            num_steps: 1,
            loss_sum: f64::from(sample.loss),
            lowest_loss: sample.loss,
            highest_loss: sample.loss,
            learning_rate: sample.learning_rate,
            examples: sample.examples,
            micros: sample.micros,
            at_micros: sample.at_micros,
        }
    }

    /// Takes in the steps that come after those of this point.
    fn absorb(&mut self, next: &Point) {
        self.last_step = next.last_step;
        self.num_steps += next.num_steps;
        self.loss_sum += next.loss_sum;
        self.lowest_loss = self.lowest_loss.min(next.lowest_loss);
        self.highest_loss = self.highest_loss.max(next.highest_loss);
        self.learning_rate = next.learning_rate;
        self.examples = self.examples.saturating_add(next.examples);
        self.micros = self.micros.saturating_add(next.micros);
        self.at_micros = next.at_micros;
    }

    /// Mean loss of its steps.
    #[must_use]
    pub fn mean_loss(&self) -> f64 {
        self.loss_sum / self.num_steps as f64
    }

    /// Examples per second over its steps.
    #[must_use]
    pub fn examples_per_sec(&self) -> f64 {
        self.examples as f64 * 1e6 / self.micros.max(1) as f64
    }
}

/// As numbers in a row: last step, mean, lowest and highest loss, learning rate, examples per second, and when it was.
impl Serialize for Point {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let row = (
            self.last_step,
            self.mean_loss() as f32,
            self.lowest_loss,
            self.highest_loss,
            self.learning_rate,
            self.examples_per_sec() as f32,
            self.at_micros,
        );
        row.serialize(serializer)
    }
}

/// The curve of a run.
///
/// Steps `k * width` up to the next multiple of the width make one point. When there are too many
/// points the width doubles, and neighbours become one.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// Steps that one point may stand for; a power of two.
    width: u64,
    points: Vec<Point>,
    /// Changes when points other than the last have changed.
    shape: u64,
}

impl Default for Curve {
    fn default() -> Self {
        Curve {
            width: 1,
            points: Vec::new(),
            shape: 0,
        }
    }
}

impl Curve {
    /// The points, by step. The last one has the newest step.
    #[must_use]
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// As long as this number stays, points are only added, and only the last one changes.
    #[must_use]
    pub fn shape(&self) -> u64 {
        self.shape
    }

    /// Adds a step, which comes after those that there are; those that do not come before it no
    /// longer count.
    pub fn add(&mut self, step: u64, sample: Sample) {
        if self
            .points
            .last()
            .is_some_and(|last| last.last_step >= step)
        {
            self.go_back(step);
        }
        self.push(Point::of(step, sample));
        while self.points.len() > MAX_POINTS && self.width < 1 << 62 {
            self.thin_out();
        }
    }

    /// The step `to` and those after it no longer count.
    ///
    /// A point that stands for steps on both sides goes as a whole: what no longer counts cannot be
    /// taken out of its sums. That leaves a gap narrower than a point where the run went back.
    pub fn go_back(&mut self, to: u64) {
        let kept = self.points.partition_point(|point| point.last_step < to);
        if kept < self.points.len() {
            self.points.truncate(kept);
            self.shape += 1;
        }
    }

    /// Adds a point, or makes the last one stand for its steps too.
    fn push(&mut self, point: Point) {
        match self.points.last_mut() {
            Some(last) if last.first_step / self.width == point.first_step / self.width => {
                last.absorb(&point);
            }
            _ => self.points.push(point),
        }
    }

    fn thin_out(&mut self) {
        self.width *= 2;
        self.shape += 1;
        for point in mem::take(&mut self.points) {
            self.push(point);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample(loss: f32) -> Sample {
        Sample {
            loss,
            learning_rate: 0.1,
            examples: 256,
            micros: 20_000,
            at_micros: 5,
        }
    }

    /// The loss of a step in these tests.
    fn loss_of(step: u64) -> f32 {
        (step % 1000) as f32
    }

    fn curve_of(steps: impl Iterator<Item = u64>) -> Curve {
        let mut curve = Curve::default();
        steps.for_each(|step| curve.add(step, sample(loss_of(step))));
        curve
    }

    #[test]
    fn a_short_run_has_a_point_for_each_step() {
        let curve = curve_of(0..MAX_POINTS as u64);
        assert_eq!(curve.points().len(), MAX_POINTS);
        assert_eq!(curve.points()[7], Point::of(7, sample(7.0)));
        assert_eq!(curve.shape(), 0);
    }

    #[test]
    fn millions_of_steps_are_about_a_thousand_points_and_the_last_is_there() {
        let steps = 3_000_001;
        let curve = curve_of(0..steps);
        assert!((MAX_POINTS / 2..=MAX_POINTS).contains(&curve.points().len()));
        assert!(curve.points.capacity() <= 2 * MAX_POINTS);
        let last = curve.points().last().unwrap();
        assert_eq!(last.last_step, steps - 1);
        let counted: u64 = curve.points().iter().map(|point| point.num_steps).sum();
        assert_eq!(counted, steps);
        assert!((12_799.0..12_801.0).contains(&last.examples_per_sec()));
    }

    proptest! {
        /// Each point is what it says of its steps, whatever was added and taken back.
        #[test]
        fn points_tell_of_the_steps_that_count(
            first in 0_u64..5000,
            parts in prop::collection::vec((1_u64..3000, 0_u64..4000), 1..5),
        ) {
            let mut curve = Curve::default();
            let mut next = first;
            for (steps, back) in &parts {
                let undone = next + steps..next + steps + back;
                for step in next..undone.start {
                    curve.add(step, sample(loss_of(step)));
                }
                for step in undone.clone() {
                    curve.add(step, sample(f32::NAN));
                }
                next = undone.start;
                curve.go_back(next);
            }
            prop_assert!(curve.points().len() <= MAX_POINTS);
            prop_assert!(curve.points().is_sorted_by(|one, next| one.last_step < next.first_step));
            for point in curve.points() {
                // A gap may be left where the run went back; what was undone had no number as loss.
                let losses: Vec<f32> = (point.first_step..=point.last_step).map(loss_of).collect();
                let lowest = losses.iter().copied().fold(f32::MAX, f32::min);
                let highest = losses.iter().copied().fold(f32::MIN, f32::max);
                prop_assert!(point.num_steps <= losses.len() as u64);
                prop_assert!(lowest <= point.lowest_loss && point.highest_loss <= highest);
                let range = f64::from(point.lowest_loss)..=f64::from(point.highest_loss);
                prop_assert!(range.contains(&point.mean_loss()));
                if point.num_steps == losses.len() as u64 {
                    let sum: f64 = losses.iter().map(|loss| f64::from(*loss)).sum();
                    prop_assert!((point.mean_loss() - sum / losses.len() as f64).abs() < 1e-6);
                }
            }
        }

        #[test]
        fn nothing_of_what_was_undone_is_shown(steps in 1_u64..5000, to in 0_u64..5000) {
            let mut curve = curve_of(0..steps);
            curve.go_back(to);
            prop_assert!(curve.points().iter().all(|point| point.last_step < to));
            let kept = curve.points().last().map_or(0, |point| point.last_step + 1);
            let width = curve.width;
            prop_assert!(kept == steps.min(to) || to - kept < width);
        }

        #[test]
        fn any_steps_in_any_order_leave_a_curve(steps in prop::collection::vec(any::<u64>(), 0..3000)) {
            let curve = curve_of(steps.iter().copied());
            prop_assert!(curve.points().len() <= MAX_POINTS);
            prop_assert!(curve.points().is_sorted_by(|one, next| one.last_step < next.first_step));
            prop_assert_eq!(curve.points().last().map(|last| last.last_step), steps.last().copied());
        }
    }
}
