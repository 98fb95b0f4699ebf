//! The lane of a worker as a line of characters: what it did when.
//!
//! ```text
//!   █ computes   ▒ its gradient and variables travel   · waits for the others
//! ```

use pserver_view::lane::{Lane, LaneStep, WorkerState};
use ratatui::style::{Color, Style};
use ratatui::text::Span;

/// What a worker does at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// Nothing that is on record.
    Nothing,
    /// It computes.
    Compute,
    /// Its gradient and variables travel.
    Push,
    /// It waits for the others.
    Wait,
}

impl Doing {
    /// How it is drawn.
    #[must_use]
    pub fn span(self) -> (char, Style) {
        let style = Style::default();
        match self {
            Doing::Nothing => (' ', style),
            Doing::Compute => ('█', style.fg(Color::Blue)),
            Doing::Push => ('▒', style.fg(Color::Yellow)),
            Doing::Wait => ('·', style.fg(Color::DarkGray)),
        }
    }
}

/// What a worker did in each of `columns` equal pieces of the time that ends at `until_micros`: what it
/// did for the longest part of the piece.
#[must_use]
pub fn doings(lane: &Lane, until_micros: u64, window_micros: u64, columns: usize) -> Vec<Doing> {
    let from = until_micros.saturating_sub(window_micros);
    let piece = (window_micros / columns.max(1) as u64).max(1);
    let mut times = vec![[0_u64; 3]; columns];
    for step in &lane.steps {
        for (kind, (start, end)) in phases(step).into_iter().enumerate() {
            let first = start.saturating_sub(from) / piece;
            for column in first..columns as u64 {
                let (left, right) = (from + column * piece, from + (column + 1) * piece);
                if left >= end {
                    break;
                }
                let overlap = end.min(right).saturating_sub(start.max(left));
                times[column as usize][kind] += overlap;
            }
        }
    }
    times
        .into_iter()
        .map(|times| longest(times, piece))
        .collect()
}

/// Begin and end of computing, travelling and waiting.
fn phases(step: &LaneStep) -> [(u64, u64); 3] {
    let computed = step.given_micros.saturating_add(step.compute_micros);
    let arrived = step.arrived_micros();
    [
        (step.given_micros, computed),
        (computed, arrived),
        (arrived, arrived.saturating_add(step.wait_micros)),
    ]
}

fn longest([compute, push, wait]: [u64; 3], piece: u64) -> Doing {
    let nothing = piece.saturating_sub(compute + push + wait);
    let most = compute.max(push).max(wait).max(nothing);
    match most {
        0 => Doing::Nothing,
        most if most == compute => Doing::Compute,
        most if most == push => Doing::Push,
        most if most == wait => Doing::Wait,
        _ => Doing::Nothing,
    }
}

/// A lane as spans, one for each stretch of the same doing.
#[must_use]
pub fn spans(doings: &[Doing]) -> Vec<Span<'static>> {
    let stretches = doings.chunk_by(|a, b| a == b);
    let span = |stretch: &[Doing]| {
        let (character, style) = stretch[0].span();
        Span::styled(String::from(character).repeat(stretch.len()), style)
    };
    stretches.map(span).collect()
}

/// What is said of a worker besides.
#[must_use]
pub fn remark(lane: &Lane) -> String {
    match lane.state {
        WorkerState::Active => match lane.late_with {
            Some(_) => "overdue".to_owned(),
            None => {
                let micros = lane.median_compute_micros();
                format!("{:.1} ms", micros as f64 / 1000.0)
            }
        },
        WorkerState::Left => "left".to_owned(),
        WorkerState::Lost => "lost".to_owned(),
        WorkerState::Quarantined => "quarantine".to_owned(),
    }
}
