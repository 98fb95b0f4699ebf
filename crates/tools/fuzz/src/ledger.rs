//! The ledger: what is read of it, proven from it and told of it, and how its file is gone on with.

use std::fs;
use std::path::Path;

use pserver_ledger::ledger_file::{LEDGER_FILE, LedgerFile};
use pserver_ledger::record::Record;
use pserver_ledger::{
    History, LedgerTail, Line, Summary, diff, explain, explain_step, read_scores, verify,
};
use pserver_run::RunConfig;

use crate::run_config::assert_in_range;
use crate::scratch;

/// Examples whose use is followed in one input: enough for all that may be in it by honest means.
const MAX_EXAMPLES: u64 = 1 << 16;

/// The text of a ledger.
///
/// A history is read of it, or no start of a server is in it; each line has a text form that says the same.
/// Whatever the history, it can be proven or not, and told, and does not differ from itself.
pub fn ledger(text: &[u8]) {
    lines_survive(text);
    let Ok(history) = History::read_from(Path::new("ledger"), text) else {
        return;
    };
    assert_in_range(&history.run);
    if examples_of(&history) <= MAX_EXAMPLES {
        match verify(&history) {
            Ok(proof) => assert!(proof.to_string().ends_with('\n')),
            Err(findings) => assert!(!findings.0.is_empty() && !findings.to_string().is_empty()),
        }
    }
    assert!(!explain(&history).to_string().is_empty());
    assert!(!Summary::of(&history).to_string().is_empty());
    let (first, last) = (history.first_step(), history.reached);
    for step in history.commits.keys().copied().take(3).chain([first, last]) {
        match explain_step(&history, step) {
            Ok(explanation) => assert!(!explanation.to_string().is_empty()),
            Err(error) => assert!(!history.commits.contains_key(&step), "{error}"),
        }
    }
    let with_itself = diff(&history, &history);
    assert!(with_itself.parting.is_none() && with_itself.settings.is_empty());
    assert!(!with_itself.to_string().is_empty());
}

/// What a proof has to go through.
fn examples_of(history: &History) -> u64 {
    let RunConfig {
        num_towers,
        batch_size,
        data,
        ..
    } = history.run;
    let towers = history.commits.values();
    let num_records: usize = towers.map(|committed| committed.commit.towers.len()).sum();
    let batches = u64::from(num_towers).max(num_records as u64);
    // Epochs that are begun are shuffled.
    let epochs = 1 + u64::from(batch_size) / u64::from(data.num_train_examples());
    batches * (u64::from(batch_size) + epochs * u64::from(data.num_train_examples()))
}

fn lines_survive(text: &[u8]) {
    for text in text.split(|byte| *byte == b'\n') {
        let Ok(line) = serde_json::from_slice::<Line>(text) else {
            continue;
        };
        let again = serde_json::to_string(&line).expect("a line has a text form");
        match serde_json::from_str::<Line>(&again) {
            Ok(again) => assert_eq!(again, line),
            // JSON has no number for it; no server commits it.
            Err(_) => assert!(!is_finite(&line), "{again}"),
        }
    }
}

fn is_finite(line: &Line) -> bool {
    match &line.record {
        Record::Commit(commit) => {
            let of_towers = commit
                .towers
                .iter()
                .flat_map(|tower| [tower.loss, tower.norm]);
            let mut numbers = of_towers.chain([commit.loss, commit.learning_rate]);
            numbers.all(f32::is_finite)
        }
        Record::Start(start) => {
            let run = &start.run;
            [run.learning_rate, run.moving_average_decay]
                .iter()
                .all(|it| it.is_finite())
                && run.num_epochs_per_decay.is_finite()
        }
        _ => true,
    }
}

/// The text of a ledger's file, after a byte that says where it was cut once.
///
/// A reader that follows it while it is written sees the same lines as one that comes later. A server that goes
/// on with it keeps its whole lines, changes nothing when it comes again, and appends a line of its own.
pub fn ledger_file(bytes: &[u8]) {
    let Some((place, text)) = bytes.split_first() else {
        return;
    };
    let folder = scratch::folder();
    let path = folder.path().join(LEDGER_FILE);
    let cut = text.len() * usize::from(*place) / 256;

    let mut follower = LedgerTail::new(&path);
    let mut seen = Vec::new();
    for end in [cut, text.len()] {
        // Written over from the beginning: the file stays the same one, and grows.
        fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .and_then(|mut file| std::io::Write::write_all(&mut file, &text[..end]))
            .expect("a file can be written");
        seen.extend(lines_of(&mut follower));
    }
    assert_eq!(lines_of(&mut LedgerTail::new(&path)), seen);

    let whole = text.iter().rposition(|byte| *byte == b'\n');
    let whole = whole.map_or(0, |newline| newline + 1);
    let (ledger, head) = LedgerFile::open(&path).expect("it can be read");
    drop(ledger);
    assert_eq!(fs::read(&path).expect("it is there"), text[..whole]);
    let (mut ledger, again) = LedgerFile::open(&path).expect("it can be read");
    assert_eq!(again, head);
    let line = Line {
        at_micros: 7,
        record: Record::Left { worker: 3 },
    };
    ledger.append(&line).expect("a line can be written");
    let end = fs::read(&path).expect("it is there").split_off(whole);
    assert_eq!(serde_json::from_slice::<Line>(&end).expect("a line"), line);
}

/// All lines that can be read.
fn lines_of(tail: &mut LedgerTail) -> Vec<Line> {
    let mut lines = Vec::new();
    loop {
        let mut news = tail.look().expect("it can be read");
        assert!(news.read_bytes.0 <= news.read_bytes.1);
        let has_more = news.has_more();
        lines.append(&mut news.lines);
        if !has_more {
            return lines;
        }
    }
}

/// The text of a file of scores.
///
/// A score that is read gives a line that is read as the same score, and a picture.
pub fn scores(text: &[u8]) {
    let folder = scratch::folder();
    let path = folder.path().join("scores.jsonl");
    fs::write(&path, text).expect("a file can be written");
    let scores = read_scores(&path).expect("it can be read");
    for score in &scores {
        let precision = score.score.confusion.precision_at_1();
        assert!((0.0..=1.0).contains(&precision), "{precision}");
        assert!(pserver_ledger::confusion_chart(score).ends_with("</svg>\n"));
    }
    let lines: String = scores.iter().map(|score| score.to_line()).collect();
    fs::write(&path, lines).expect("a file can be written");
    assert_eq!(read_scores(&path).expect("it can be read"), scores);
}
