//! Numbers about numbers.

/// The middle one of these numbers, or the mean of the middle two; `None` if there are none.
#[must_use]
pub fn median(numbers: &[f64]) -> Option<f64> {
    let mut sorted = numbers.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        length if length % 2 == 1 => Some(sorted[middle]),
        _ => Some(sorted[middle - 1].midpoint(sorted[middle])),
    }
}

/// The smallest of these numbers; `None` if there are none.
#[must_use]
pub fn smallest(numbers: &[f64]) -> Option<f64> {
    numbers.iter().copied().min_by(f64::total_cmp)
}

/// The mean of these numbers; `None` if there are none.
#[must_use]
pub fn mean(numbers: impl IntoIterator<Item = f64>) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0_u32);
    for number in numbers {
        sum += number;
        count += 1;
    }
    (count > 0).then(|| sum / f64::from(count))
}

/// A straight line: `at_zero + per_unit * x`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line {
    /// Its value at 0.
    pub at_zero: f64,
    /// What it rises by from one unit to the next.
    pub per_unit: f64,
}

impl Line {
    /// The line through points `(x, y)`, `y` above 0, with the smallest sum of squares of relative
    /// errors: a point ten times as high may be ten times as far off. `None` of fewer than two
    /// different `x`.
    ///
    /// ```text
    /// minimise  sum ((a + b x - y) / y)^2,  that is least squares with weights 1 / y^2
    /// ```
    #[must_use]
    pub fn through(points: &[(f64, f64)]) -> Option<Line> {
        let sum = |term: fn(f64, f64) -> f64| -> f64 {
            points.iter().map(|(x, y)| term(*x, *y) / (y * y)).sum()
        };
        let (ones, xs, ys) = (sum(|_, _| 1.0), sum(|x, _| x), sum(|_, y| y));
        let (squares, products) = (sum(|x, _| x * x), sum(|x, y| x * y));
        let determinant = ones * squares - xs * xs;
        // Of equal x rounding leaves about this much.
        if points.len() < 2 || determinant <= 1e-12 * ones * squares {
            return None;
        }
        Some(Line {
            at_zero: (squares * ys - xs * products) / determinant,
            per_unit: (ones * products - xs * ys) / determinant,
        })
    }

    /// How far the point farthest off is from the line, as a part of its height.
    #[must_use]
    pub fn largest_deviation(self, points: &[(f64, f64)]) -> f64 {
        let deviation = |(x, y): &(f64, f64)| (self.at_zero + self.per_unit * x - y).abs() / y;
        points.iter().map(deviation).fold(0.0, f64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[]), None);
        assert_eq!(smallest(&[3.0, 1.0, 2.0]), Some(1.0));
        assert_eq!(mean([1.0, 2.0, 6.0]), Some(3.0));
        assert_eq!(mean([]), None);
    }

    #[test]
    fn a_line_goes_through_the_points_of_a_line() {
        let points: Vec<(f64, f64)> = [1.0, 2.0, 4.0, 64.0].map(|x| (x, 3.0 + 2.0 * x)).into();
        let line = Line::through(&points).unwrap();
        assert!((line.at_zero - 3.0).abs() < 1e-9, "{line:?}");
        assert!((line.per_unit - 2.0).abs() < 1e-9, "{line:?}");
        assert!(line.largest_deviation(&points) < 1e-9);
    }

    #[test]
    fn a_cliff_is_seen_as_a_deviation() {
        let points = [(1.0, 1.0), (2.0, 2.0), (4.0, 4.0), (8.0, 40.0)];
        let line = Line::through(&points).unwrap();
        assert!(line.largest_deviation(&points) > 0.5, "{line:?}");
    }

    #[test]
    fn a_line_needs_two_points() {
        assert_eq!(Line::through(&[(1.0, 1.0)]), None);
        assert_eq!(Line::through(&[(3.0, 1.0), (3.0, 2.0)]), None);
    }
}
