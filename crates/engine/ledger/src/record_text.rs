//! Records as the text that a ledger holds.

use crate::fixtures::{commit, start, unit};
use crate::record::{Dropped, Line, Record};

#[test]
fn a_line_survives_its_text_form() {
    let line = Line {
        at_micros: 1_700_000_000_000_000,
        record: Record::Commit(commit(7, &[1, 0])),
    };
    let text = serde_json::to_string(&line).unwrap();
    assert_eq!(serde_json::from_str::<Line>(&text).unwrap(), line);
    assert!(
        text.starts_with(r#"{"at_micros":1700000000000000,"record":"commit","global_step":7,"#),
        "{text}"
    );
    assert!(
        !text.contains("staleness") && !text.contains('\n'),
        "{text}"
    );
}

#[test]
fn no_text_of_a_record_acts_on_a_terminal() {
    let acts = "\u{1b}]0;title\u{7}\nstep 3".to_owned();
    let of = unit(3, 1);
    let worker = 2;
    let mut start = start(0);
    start.version.clone_from(&acts);
    for record in [
        Record::Start(start),
        Record::Joined {
            worker,
            name: acts.clone(),
            numerics: acts.clone(),
        },
        Record::InDoubt {
            of,
            worker,
            reason: acts.clone(),
        },
        Record::Quarantined {
            worker,
            reason: acts.clone(),
        },
        Record::StoodStill { waits_for: acts },
    ] {
        let text = serde_json::to_string(&record).unwrap();
        let read: Record = serde_json::from_str(&text).unwrap();
        let again = serde_json::to_string(&read).unwrap();
        assert!(
            !again.contains("\\u00") && !again.contains("\\n"),
            "{again}"
        );
        assert!(again.contains("\u{fffd}"), "{again}");
    }
}

#[test]
fn what_happened_to_a_tower_step_is_told_flat() {
    let record = Record::Dropped {
        of: unit(3, 1),
        worker: 2,
        reason: Dropped::Stale,
    };
    assert_eq!(
        serde_json::to_string(&record).unwrap(),
        r#"{"record":"dropped","step":3,"tower":1,"worker":2,"reason":"stale"}"#
    );
}
