//! Curves over the steps of a run, as an SVG without background or script that does for dark and light.

use std::fmt::Write;

const WIDTH: f64 = 720.0;
/// Height of a panel with all that is around it.
const PANEL: f64 = 240.0;
/// Around the curve: numbers at the left, a title above, steps below.
const LEFT: f64 = 56.0;
const RIGHT: f64 = 32.0;
const TOP: f64 = 36.0;
const BOTTOM: f64 = 28.0;

/// Lines across a panel, about.
const LINES: f64 = 5.0;

const STYLE: &str = "\
text { font: 12px system-ui, sans-serif; fill: #59636e; }
.title { font-weight: 600; fill: #1c2128; }
.y { text-anchor: end; }
.x { text-anchor: middle; }
.grid { stroke: #8b949e; stroke-opacity: 0.35; }
.curve { fill: none; stroke: #2f81f7; stroke-width: 1.5; stroke-linejoin: round; }
@media (prefers-color-scheme: dark) { text { fill: #9198a1; } .title { fill: #e6edf3; } }
";

/// One curve with its axes.
#[derive(Clone, Debug)]
pub struct Panel<'a> {
    /// What it shows.
    pub title: &'a str,
    /// Step and value, in the order of steps.
    pub points: Vec<(f64, f64)>,
}

/// Draws panels one below the other. One without points is left out.
#[must_use]
pub fn curve_chart(panels: &[Panel<'_>]) -> String {
    let panels: Vec<&Panel<'_>> = panels.iter().filter(|it| !it.points.is_empty()).collect();
    let height = PANEL * panels.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         width=\"{WIDTH}\" height=\"{height}\" role=\"img\">\n<style>\n{STYLE}</style>\n"
    );
    for (index, panel) in panels.into_iter().enumerate() {
        // Writing to a string cannot fail.
        let _ = draw(&mut svg, panel, PANEL * index as f64);
    }
    svg += "</svg>\n";
    svg
}

fn draw(svg: &mut String, panel: &Panel<'_>, top: f64) -> std::fmt::Result {
    let steps = Axis::of(panel.points.iter().map(|(step, _)| *step));
    let values = Axis::of(panel.points.iter().map(|(_, value)| *value));
    let x = |step| LEFT + steps.share(step) * (WIDTH - LEFT - RIGHT);
    let (above, below) = (top + TOP, top + PANEL - BOTTOM);
    let y = |value| below - values.share(value) * (below - above);

    let title = panel.title;
    writeln!(
        svg,
        r#"<text class="title" x="{LEFT}" y="{}">{title}</text>"#,
        top + 22.0
    )?;
    for line in values.lines() {
        let (at, right) = (y(line), WIDTH - RIGHT);
        writeln!(svg, r#"<path class="grid" d="M{LEFT} {at:.1}H{right}"/>"#)?;
        writeln!(
            svg,
            r#"<text class="y" x="{}" y="{:.1}">{line}</text>"#,
            LEFT - 8.0,
            at + 4.0
        )?;
    }
    for line in steps.lines() {
        writeln!(
            svg,
            r#"<text class="x" x="{:.1}" y="{}">{line}</text>"#,
            x(line),
            below + 18.0
        )?;
    }
    write!(svg, r#"<polyline class="curve" points=""#)?;
    for (step, value) in &panel.points {
        write!(svg, "{:.1},{:.1} ", x(*step), y(*value))?;
    }
    writeln!(svg, r#""/>"#)
}

/// A range of numbers that begins and ends at a round one.
#[derive(Clone, Copy, Debug)]
struct Axis {
    low: f64,
    high: f64,
    distance: f64,
}

impl Axis {
    fn of(numbers: impl Iterator<Item = f64> + Clone) -> Self {
        let low = numbers.clone().fold(f64::INFINITY, f64::min);
        let high = numbers.fold(f64::NEG_INFINITY, f64::max);
        let distance = round_distance((high - low) / LINES);
        Axis {
            low: (low / distance).floor() * distance,
            high: (high / distance).ceil() * distance,
            distance,
        }
    }

    fn share(self, number: f64) -> f64 {
        (number - self.low) / (self.high - self.low).max(self.distance)
    }

    /// The round numbers of the range, without what arithmetic adds to their last digits.
    fn lines(self) -> impl Iterator<Item = f64> {
        let count = ((self.high - self.low) / self.distance).round() as u32;
        let precise = move |number: f64| (number / self.distance).round() * self.distance;
        let short = |number: f64| (number * 1e6).round() / 1e6;
        (0..=count).map(move |index| short(precise(self.low + f64::from(index) * self.distance)))
    }
}

/// 1, 2 or 5 times a power of ten that is not below `distance`; 1 where there is none.
fn round_distance(distance: f64) -> f64 {
    if distance <= 0.0 || !distance.is_finite() {
        return 1.0;
    }
    let power = 10_f64.powf(distance.log10().floor());
    let factors = [1.0, 2.0, 5.0, 10.0];
    let factor = factors
        .into_iter()
        .find(|factor| factor * power >= distance);
    factor.unwrap_or(10.0) * power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_are_marked_at_round_numbers() {
        let marks = |numbers: [f64; 2]| Axis::of(numbers.into_iter()).lines().collect::<Vec<f64>>();
        assert_eq!(marks([0.62, 0.86]), [0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9]);
        assert_eq!(marks([0.0, 29_940.0]), [0.0, 10_000.0, 20_000.0, 30_000.0]);
        assert_eq!(marks([3.0, 3.0]), [3.0]);
    }

    #[test]
    fn a_chart_has_a_curve_for_each_panel_that_has_points() {
        let panel = |points| Panel {
            title: "loss",
            points,
        };
        let svg = curve_chart(&[panel(vec![(0.0, 4.0), (10.0, 1.0)]), panel(Vec::new())]);
        assert_eq!(svg.matches("<polyline").count(), 1);
        assert!(svg.contains(r#"points="56.0,36.0 688.0,212.0 ""#), "{svg}");
        assert!(!svg.contains("NaN"), "{svg}");
    }
}
