//! The picture of a score: what the examples of each class were taken for, as an SVG.
//!
//! It has no background and no script. Its text follows the reader's choice of light or dark; the
//! colours of its fields are transparent, and do for both.

use std::fmt::Write;

use pserver_run::data_set::NUM_CLASSES;

use crate::score_record::ScoreRecord;
use crate::units::count;

/// Side of a field.
const FIELD: usize = 44;
/// Left of the fields: the names of the rows.
const LEFT: usize = 104;
/// Above the fields: the title and the names of the columns.
const TOP: usize = 126;
/// Free space at the outer edges.
const MARGIN: usize = 16;

const WIDTH: usize = LEFT + NUM_CLASSES * FIELD + MARGIN;
const HEIGHT: usize = TOP + NUM_CLASSES * FIELD + MARGIN;

const STYLE: &str = "\
text { font: 12px system-ui, sans-serif; fill: #1c2128; }
.title { font-size: 15px; font-weight: 600; }
.note { fill: #59636e; }
.count { text-anchor: middle; font-variant-numeric: tabular-nums; }
.row { text-anchor: end; }
.right { fill: #2f81f7; }
.wrong { fill: #e8703a; }
.frame { fill: none; stroke: #8b949e; stroke-opacity: 0.35; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .note { fill: #9198a1; }
}
";

/// Draws a score: a row for each class, in it a field for each class that its examples were taken
/// for, the stronger in colour the more they are. Right answers are blue, wrong ones orange.
#[must_use]
pub fn confusion_chart(record: &ScoreRecord) -> String {
    let mut svg = String::new();
    write_chart(&mut svg, record).expect("text can be written to a string");
    svg
}

fn write_chart(svg: &mut String, record: &ScoreRecord) -> std::fmt::Result {
    let confusion = &record.score.confusion;
    writeln!(
        svg,
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img">"#
    )?;
    let title = format!(
        "precision @ 1 = {:.4} at step {}",
        confusion.precision_at_1(),
        count(record.score.global_step.0)
    );
    writeln!(svg, "<title>{title}</title>")?;
    writeln!(svg, "<style>\n{STYLE}</style>")?;
    writeln!(
        svg,
        r#"<text class="title" x="{MARGIN}" y="28">{title}</text>"#
    )?;
    writeln!(
        svg,
        r#"<text class="note" x="{MARGIN}" y="47">What {} examples of {} were taken for; rows are what they are.</text>"#,
        count(confusion.num_examples()),
        record.data
    )?;
    let names = record.data.class_names();
    for (index, name) in names.iter().enumerate() {
        let middle = index * FIELD + FIELD / 2;
        writeln!(
            svg,
            r#"<text class="row" x="{}" y="{}">{name}</text>"#,
            LEFT - 8,
            TOP + middle + 4
        )?;
        let (x, y) = (LEFT + middle, TOP - 8);
        writeln!(
            svg,
            r#"<text x="{x}" y="{y}" transform="rotate(-45 {x} {y})">{name}</text>"#
        )?;
    }
    for label in 0..NUM_CLASSES {
        let examples = confusion.examples_of(label).max(1);
        for predicted in 0..NUM_CLASSES {
            let number = confusion.0[label][predicted];
            let share = f64::from(number) / examples as f64;
            write_field(svg, label, predicted, number, share)?;
        }
    }
    writeln!(svg, "</svg>")
}

fn write_field(
    svg: &mut String,
    label: usize,
    predicted: usize,
    number: u32,
    share: f64,
) -> std::fmt::Result {
    let (x, y) = (LEFT + predicted * FIELD, TOP + label * FIELD);
    let kind = if label == predicted { "right" } else { "wrong" };
    // The root shows the few that are wrong beside the many that are right.
    let opacity = 0.75 * share.sqrt();
    writeln!(
        svg,
        r#"<rect class="{kind}" x="{x}" y="{y}" width="{FIELD}" height="{FIELD}" fill-opacity="{opacity:.3}"/>"#
    )?;
    writeln!(
        svg,
        r#"<rect class="frame" x="{x}" y="{y}" width="{FIELD}" height="{FIELD}"/>"#
    )?;
    writeln!(
        svg,
        r#"<text class="count" x="{}" y="{}">{number}</text>"#,
        x + FIELD / 2,
        y + FIELD / 2 + 4
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::score_record::example;

    #[test]
    fn each_count_has_a_field_and_right_answers_have_a_colour_of_their_own() {
        let svg = confusion_chart(&example(1000));
        assert!(svg.contains(">precision @ 1 = 0.9000 at step 1,000<"));
        assert_eq!(svg.matches(r#"<rect class="right""#).count(), 10);
        assert_eq!(svg.matches(r#"<rect class="wrong""#).count(), 90);
        assert_eq!(svg.matches(">9</text>").count(), 10);
        assert_eq!(svg.matches(">1</text>").count(), 10);
        assert_eq!(svg.matches(">automobile</text>").count(), 2);
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    }

    #[test]
    fn a_class_without_examples_has_no_colour() {
        let mut record = example(0);
        record.score.confusion.0[3] = [0; NUM_CLASSES];
        assert!(!confusion_chart(&record).contains("NaN"));
    }
}
