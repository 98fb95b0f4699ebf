//! Draws what `cifar-ps top` shows at the end of a ledger as an SVG on stdout: for the documents.
//!
//! `cargo run -p pserver-top --example picture -- runs/default/ledger > docs/page/top.svg`

use std::env;
use std::io::{self, Write};

use anyhow::Context;
use pserver_ledger::LedgerTail;
use pserver_top::screen::{Surroundings, draw};
use pserver_view::RunView;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Cell;
use ratatui::style::{Color, Modifier};

const COLUMNS: u16 = 110;
const ROWS: u16 = 32;

/// Size of a character.
const WIDTH: f32 = 8.4;
const HEIGHT: f32 = 17.0;

fn main() -> anyhow::Result<()> {
    let path = env::args_os().nth(1).context("name a ledger")?;
    let mut view = RunView::default();
    let mut tail = LedgerTail::new(path.as_ref());
    loop {
        let news = tail.look()?;
        news.lines.iter().for_each(|line| view.add(line));
        if !news.has_more() {
            break;
        }
    }
    let around = Surroundings {
        server: "127.0.0.1:2222".to_owned(),
        ..Surroundings::default()
    };
    let mut terminal = Terminal::new(TestBackend::new(COLUMNS, ROWS))?;
    terminal.draw(|frame| draw(frame, &view, &around))?;
    let svg = picture(terminal.backend().buffer().content());
    io::stdout().write_all(svg.as_bytes())?;
    Ok(())
}

fn picture(cells: &[Cell]) -> String {
    let (width, height) = (
        f32::from(COLUMNS) * WIDTH + 16.0,
        f32::from(ROWS) * HEIGHT + 16.0,
    );
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"monospace\" \
         font-size=\"14\">\n<rect width=\"100%\" height=\"100%\" fill=\"#0d1117\"/>\n"
    );
    for (row, cells) in cells.chunks(usize::from(COLUMNS)).enumerate() {
        let mut column = 0;
        for stretch in cells.chunk_by(|a, b| a.style() == b.style()) {
            let text: String = stretch.iter().map(Cell::symbol).collect();
            if !text.trim().is_empty() {
                svg += &element(&text, &stretch[0], row, column);
            }
            column += stretch.len();
        }
    }
    svg + "</svg>\n"
}

fn element(text: &str, cell: &Cell, row: usize, column: usize) -> String {
    let color = match cell.fg {
        Color::Blue => "#4c8dff",
        Color::Yellow => "#e3b341",
        Color::DarkGray => "#6e7681",
        Color::Cyan => "#39c5cf",
        Color::Magenta => "#bc8cff",
        Color::Green => "#3fb950",
        Color::Red => "#ff7b72",
        _ => "#e6edf3",
    };
    let weight = match cell.modifier.contains(Modifier::BOLD) {
        true => " font-weight=\"bold\"",
        false => "",
    };
    let escaped = text.replace('&', "&amp;").replace('<', "&lt;");
    let (x, y) = (
        8.0 + column as f32 * WIDTH,
        8.0 + (row as f32 + 0.8) * HEIGHT,
    );
    let length = text.chars().count() as f32 * WIDTH;
    format!(
        "<text x=\"{x:.1}\" y=\"{y:.1}\" fill=\"{color}\"{weight} textLength=\"{length:.1}\" \
         lengthAdjust=\"spacingAndGlyphs\" xml:space=\"preserve\">{escaped}</text>\n"
    )
}
