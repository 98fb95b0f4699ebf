//! The screen: a run at a glance.

use std::fmt::Write;

use pserver_ledger::{count, duration};
use pserver_view::lane::Lane;
use pserver_view::{RunState, RunView};
use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Axis, Block, Chart, Dataset, GraphType, Paragraph};

use crate::lanes::{Doing, doings, remark, spans};

/// Steps that a lane shows.
const STEPS_SHOWN: u64 = 6;

/// Columns of a lane before its time: number, name, tower steps.
const LANE_LABEL: usize = 32;

/// Columns of what is said behind a lane.
const LANE_REMARK: usize = 11;

/// Columns of a bar that is the whole of a step.
const BAR_COLUMNS: usize = 6;

/// Rows of the curve and of the parts of a step.
const CURVE_ROWS: u16 = 12;

/// What the screen shows besides the run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Address of the server.
    pub server: String,
    /// Why the server does not answer, if it does not.
    pub away: Option<String>,
    /// Bytes of the ledger that were read, of how many.
    pub read: (u64, u64),
}

/// Draws a run.
pub fn draw(frame: &mut Frame<'_>, view: &RunView, around: &Surroundings) {
    let lanes = view.lanes().iter().len() as u16;
    let area = frame.area();
    let lane_rows = (lanes + 2).clamp(3, (area.height / 2).max(3));
    let [head, curve, workers, events] = Layout::vertical([
        Constraint::Length(3),
        Constraint::Length(CURVE_ROWS),
        Constraint::Length(lane_rows),
        Constraint::Min(3),
    ])
    .areas(area);
    let [loss, parts] =
        Layout::horizontal([Constraint::Percentage(35), Constraint::Percentage(65)]).areas(curve);
    frame.render_widget(header(view, around), head);
    draw_loss(frame, loss, view);
    draw_parts(frame, parts, view);
    draw_lanes(frame, workers, view);
    draw_events(frame, events, view);
}

fn title(text: &str) -> Block<'_> {
    let dim = Style::default().fg(Color::DarkGray);
    Block::bordered().border_style(dim).title(Span::styled(
        format!(" {text} "),
        Style::default().add_modifier(Modifier::BOLD),
    ))
}

fn header<'a>(view: &RunView, around: &Surroundings) -> Paragraph<'a> {
    let bold = Style::default().add_modifier(Modifier::BOLD);
    let mut first = vec![Span::styled(format!("{} ", around.server), bold)];
    if let Some(run) = view.run() {
        let facts = format!(
            " {}, {} of {}, {}, seed {}",
            run.data,
            plural(run.num_towers, "tower"),
            run.batch_size,
            run.mode,
            run.seed
        );
        first.push(Span::raw(facts));
    }
    let second = Line::from(vec![state_of(view, around), Span::raw(figures_of(view))]);
    let dim = Style::default().fg(Color::DarkGray);
    let help = Line::from(vec![Span::styled("q leaves", dim), damage_of(view)]);
    Paragraph::new(vec![Line::from(first), second, help])
}

fn plural(number: u32, thing: &str) -> String {
    let end = if number == 1 { "" } else { "s" };
    format!("{number} {thing}{end}")
}

fn state_of(view: &RunView, around: &Surroundings) -> Span<'static> {
    let (read, of) = around.read;
    let (text, color) = match (view.state(), &around.away) {
        (RunState::Complete, _) => ("complete".to_owned(), Color::Green),
        (RunState::Diverged, _) => ("diverged".to_owned(), Color::Red),
        (_, Some(away)) => (format!("server is away: {away}"), Color::Yellow),
        (_, None) if read < of => (
            format!("reads the ledger: {} %", 100 * read / of),
            Color::Yellow,
        ),
        (RunState::Empty, None) => ("waits for the first line".to_owned(), Color::Yellow),
        (RunState::Stopped, None) => ("stopped".to_owned(), Color::Yellow),
        (RunState::Running, None) => ("trains".to_owned(), Color::Green),
    };
    Span::styled(text, Style::default().fg(color))
}

fn damage_of(view: &RunView) -> Span<'static> {
    let text = match view.damage().num_lines() {
        0 => String::new(),
        1 => "   1 line of the ledger is damaged: `cifar-ps verify` names it".to_owned(),
        many => format!(
            "   {} lines of the ledger are damaged: `cifar-ps verify` names them",
            count(many)
        ),
    };
    Span::styled(text, Style::default().fg(Color::Yellow))
}

fn figures_of(view: &RunView) -> String {
    let mut text = format!("   step {}", count(view.global_step().0));
    let mut add = |part: std::fmt::Arguments<'_>| {
        text.write_fmt(part)
            .expect("text can be written to a string");
    };
    if let Some(last) = view.last() {
        let rate = view.times().examples_per_sec() as u64;
        add(format_args!("   loss {:.3}", last.loss));
        add(format_args!("   learning rate {}", last.learning_rate));
        add(format_args!("   {} examples/s", count(rate)));
        add(format_args!(
            "   trained {}",
            duration(view.trained_micros())
        ));
    }
    if let Some(step) = view.checkpoint() {
        add(format_args!("   checkpoint {}", count(step.0)));
    }
    text
}

fn draw_loss(frame: &mut Frame<'_>, area: Rect, view: &RunView) {
    let points = view.curve().points();
    let data: Vec<(f64, f64)> = points
        .iter()
        .map(|point| (point.last_step as f64, point.mean_loss()))
        .filter(|(_, loss)| loss.is_finite())
        .collect();
    let steps = [
        data.first().map_or(0.0, |point| point.0),
        data.last().map_or(1.0, |point| point.0).max(1.0),
    ];
    let highest = data.iter().map(|point| point.1).fold(0.0, f64::max);
    let losses = [0.0, if highest > 0.0 { highest } else { 1.0 }];
    let curve = Dataset::default()
        .marker(Marker::Braille)
        .graph_type(GraphType::Line)
        .style(Style::default().fg(Color::Cyan))
        .data(&data);
    let dim = Style::default().fg(Color::DarkGray);
    let step_labels = steps.map(|step| count(step as u64));
    let loss_labels = losses.map(|loss| format!("{loss:.1}"));
    let chart = Chart::new(vec![curve])
        .block(title("loss"))
        .x_axis(Axis::default().bounds(steps).labels(step_labels).style(dim))
        .y_axis(
            Axis::default()
                .bounds(losses)
                .labels(loss_labels)
                .style(dim),
        );
    frame.render_widget(chart, area);
}

fn draw_parts(frame: &mut Frame<'_>, area: Rect, view: &RunView) {
    let Some(median) = view.times().median_step() else {
        frame.render_widget(title("a step, in the median"), area);
        return;
    };
    let name = format!(
        "a step: {:.1} ms in the median",
        median.median_micros as f64 / 1000.0
    );
    let width = usize::from(area.width.saturating_sub(2));
    let whole = median.median_micros.max(1) as f64;
    let lines = median.parts.iter().map(|part| {
        let share = part.median_micros as f64 / whole;
        let bar = "▆".repeat((share.min(1.0) * BAR_COLUMNS as f64).round() as usize);
        let text = format!("{:>3.0} % ", 100.0 * share);
        let name: String = part
            .name
            .chars()
            .take(width.saturating_sub(BAR_COLUMNS + 7))
            .collect();
        Line::from(vec![
            Span::raw(text),
            Span::styled(
                format!("{bar:<BAR_COLUMNS$} "),
                Style::default().fg(Color::Magenta),
            ),
            Span::raw(name),
        ])
    });
    let lines: Vec<Line<'_>> = lines.collect();
    frame.render_widget(Paragraph::new(lines).block(title(&name)), area);
}

fn draw_lanes(frame: &mut Frame<'_>, area: Rect, view: &RunView) {
    let legend = Line::from(legend()).alignment(Alignment::Right);
    let block = title("workers").title(legend);
    let width = usize::from(area.width.saturating_sub(2));
    let columns = width.saturating_sub(LANE_LABEL + LANE_REMARK);
    let until = view.last().map_or(0, |last| last.at_micros);
    let step = view.times().median_step();
    let window = STEPS_SHOWN * step.map_or(1, |step| step.median_micros.max(1));
    let lanes = view.lanes();
    let rows = usize::from(area.height.saturating_sub(2));
    let slow = lanes.slowness();
    let lines = lanes
        .iter()
        .iter()
        .zip(slow)
        .take(rows)
        .map(|(lane, slow)| {
            let is_straggler = slow.is_some_and(|slow| slow.is_straggler);
            let color = if is_straggler {
                Color::Red
            } else {
                Color::Reset
            };
            let mut line = vec![Span::styled(label(lane), Style::default().fg(color))];
            line.extend(spans(&doings(lane, until, window, columns)));
            line.push(Span::styled(
                format!("{:>LANE_REMARK$}", remark(lane)),
                Style::default().fg(color),
            ));
            Line::from(line)
        });
    let lines: Vec<Line<'_>> = lines.collect();
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn label(lane: &Lane) -> String {
    let name: String = lane
        .name
        .as_deref()
        .unwrap_or("")
        .chars()
        .take(16)
        .collect();
    format!(
        "{:>3} {name:<16} {:>9}  ",
        lane.number,
        count(lane.tower_steps)
    )
}

fn legend() -> Vec<Span<'static>> {
    let entries = [
        (Doing::Compute, "computes"),
        (Doing::Push, "travels"),
        (Doing::Wait, "waits"),
    ];
    entries
        .into_iter()
        .flat_map(|(doing, name)| {
            let (character, style) = doing.span();
            [
                Span::styled(format!(" {character}"), style),
                Span::raw(format!(" {name} ")),
            ]
        })
        .collect()
}

fn draw_events(frame: &mut Frame<'_>, area: Rect, view: &RunView) {
    let rows = usize::from(area.height.saturating_sub(2));
    let lines = view.happenings().iter().rev().take(rows).map(|happening| {
        let ago = view.last_micros().saturating_sub(happening.at_micros);
        let times = match happening.times {
            1 => String::new(),
            times => format!(" ({times} times)"),
        };
        Line::from(vec![
            Span::styled(
                format!("{:>12} before  ", duration(ago)),
                Style::default().fg(Color::DarkGray),
            ),
            Span::raw(format!("{}{times}", happening.text)),
        ])
    });
    let lines: Vec<Line<'_>> = lines.collect();
    frame.render_widget(Paragraph::new(lines).block(title("events")), area);
}

#[cfg(test)]
mod tests {
    use pserver_ledger::Record;
    use pserver_ledger::record::{Commit, FORMAT_VERSION, Phases, Start, TowerRecord};
    use pserver_run::{
        DataSet, ExamplesDigest, GlobalStep, RunConfig, StateDigest, Tower, TowerStep,
    };
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;

    const BEGIN_MICROS: u64 = 1_700_000_000_000_000;
    const STEP_MICROS: u64 = 30_000;

    fn run_config(num_towers: u32) -> RunConfig {
        RunConfig {
            num_towers,
            batch_size: 128,
            data: DataSet::Cifar10,
            ..RunConfig::example()
        }
    }

    /// Every worker computes for 20 ms, the last one for 28; gradients travel for one.
    fn commit(step: u64, num_workers: u32) -> Commit {
        let tower = |worker| {
            let compute_micros = if worker + 1 == num_workers {
                28_000
            } else {
                20_000
            };
            TowerRecord {
                of: TowerStep {
                    global_step: GlobalStep(step),
                    tower: Tower(worker),
                },
                worker,
                examples: ExamplesDigest([0; 16]),
                loss: 4.0,
                norm: 1.0,
                held_micros: compute_micros + 1000,
                compute_micros,
                waited_micros: 29_000 - (compute_micros + 1000),
                staleness: 0,
            }
        };
        Commit {
            global_step: GlobalStep(step),
            learning_rate: 0.1,
            loss: 4.0 - step as f32 / 100.0,
            towers: (0..num_workers).map(tower).collect(),
            gather_micros: 29_000,
            phases: Phases {
                apply_micros: 500,
                digest_micros: 200,
                write_micros: 200,
                ledger_micros: 100,
            },
            digest: StateDigest(u128::from(step)),
        }
    }

    fn view(num_workers: u32, num_steps: u64) -> RunView {
        let mut view = RunView::default();
        let run = run_config(num_workers.max(1));
        let start = Start {
            format_version: FORMAT_VERSION,
            version: "0.1.0".to_owned(),
            digest: run.initial_digest,
            run,
            global_step: GlobalStep(0),
        };
        let joined = (0..num_workers).map(|worker| Record::Joined {
            worker,
            name: format!("host/{}", 100 + worker),
            numerics: "cpu".to_owned(),
        });
        let commits = (0..num_steps).map(|step| Record::Commit(commit(step, num_workers)));
        let records = std::iter::once(Record::Start(start))
            .chain(joined)
            .chain(commits);
        for (number, record) in records.enumerate() {
            view.add(&pserver_ledger::Line {
                at_micros: BEGIN_MICROS + number as u64 * STEP_MICROS,
                record,
            });
        }
        view
    }

    fn around() -> Surroundings {
        Surroundings {
            server: "node7:2222".to_owned(),
            away: None,
            read: (5, 5),
        }
    }

    fn drawn(view: &RunView, around: &Surroundings, size: (u16, u16)) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).unwrap();
        terminal.draw(|frame| draw(frame, view, around)).unwrap();
        let buffer = terminal.backend().buffer();
        let rows = buffer.content().chunks(usize::from(size.0));
        rows.map(|row| row.iter().map(|cell| cell.symbol()).collect())
            .collect()
    }

    fn row_with<'a>(rows: &'a [String], text: &str) -> &'a str {
        let row = rows.iter().find(|row| row.contains(text));
        row.unwrap_or_else(|| panic!("{text:?} is not in\n{}", rows.join("\n")))
    }

    #[test]
    fn a_run_is_seen_at_a_glance() {
        let rows = drawn(&view(3, 200), &around(), (110, 36));
        row_with(&rows, "node7:2222  cifar10, 3 towers of 128, sync, seed 1");
        let figures = row_with(&rows, "trains   step 200   loss 2.010   learning rate 0.1");
        assert!(figures.contains(" examples/s   trained 6.0 s"), "{figures}");
        row_with(&rows, "a step: 30.0 ms in the median");
        row_with(&rows, " 93 % ▆▆▆▆▆▆ a worker computes it");
        row_with(&rows, "worker 1 (host/101) joined: cpu");
        // What waits is seen beside what computes to the end.
        let quick = row_with(&rows, "  0 host/100");
        let slow = row_with(&rows, "  2 host/102");
        let waits = |row: &str| row.matches('·').count();
        assert!(waits(quick) > 10 && waits(slow) == 0, "{}", rows.join("\n"));
        assert!(quick.contains("20.0 ms") && slow.contains("28.0 ms"));
    }

    #[test]
    fn what_the_run_waits_for_is_said() {
        let empty = RunView::default();
        row_with(
            &drawn(&empty, &around(), (80, 24)),
            "waits for the first line",
        );
        let reads = Surroundings {
            read: (1, 4),
            ..around()
        };
        row_with(
            &drawn(&view(1, 2), &reads, (80, 24)),
            "reads the ledger: 25 %",
        );
        let away = Surroundings {
            away: Some("nobody listens".to_owned()),
            ..around()
        };
        row_with(
            &drawn(&view(1, 2), &away, (80, 24)),
            "server is away: nobody listens",
        );
    }

    #[test]
    fn any_terminal_and_any_number_of_workers_will_do() {
        for size in [(1, 1), (10, 3), (40, 12), (200, 60)] {
            for workers in [0, 1, 64] {
                drawn(&view(workers, 5), &around(), size);
            }
        }
        let rows = drawn(&view(64, 20), &around(), (110, 36));
        row_with(&rows, " 15 host/115");
    }
}
