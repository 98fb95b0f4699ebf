//! What can be seen of a run.

use pserver_ledger::Line;
use pserver_view::curve::MAX_POINTS;
use pserver_view::lane::WINDOW;
use pserver_view::scores::MAX_SCORES;
use pserver_view::{Cursor, RunView};

/// Lines of a ledger, and among them lines of a file of scores.
///
/// Any lines in any order give a view that is bounded and whose points are in order, and a look after each of
/// them has a text form.
pub fn run_view(text: &[u8]) {
    let mut view = RunView::default();
    let mut cursor = Cursor::default();
    for text in text.split(|byte| *byte == b'\n') {
        match serde_json::from_slice::<Line>(text) {
            Ok(line) => view.add(&line),
            Err(_) => view.add_score_line(&String::from_utf8_lossy(text)),
        }
        let update = view.since(&mut cursor);
        let update = serde_json::to_string(&update).expect("a look has a text form");
        assert!(update.starts_with('{'));
    }
    assert!(view.curve().points().len() <= MAX_POINTS);
    assert!(view.scores().iter().len() <= MAX_SCORES);
    let steps = view.curve().points().windows(2);
    assert!(
        steps
            .clone()
            .all(|pair| pair[0].last_step < pair[1].first_step)
    );
    for lane in view.lanes().iter() {
        assert!(lane.steps.len() <= WINDOW);
    }
    let whole = serde_json::to_string(&view.since(&mut Cursor::default()));
    assert!(whole.expect("a look has a text form").starts_with('{'));
}
