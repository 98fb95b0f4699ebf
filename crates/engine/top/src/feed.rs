//! The lines of a server's ledger, as they are written.

use std::time::Duration;

use pserver_ledger::{Damage, Line, LineReader};
use pserver_wire::client::{Client, ClientError};
use pserver_wire::messages::{LedgerPart, LedgerPosition};
use tokio::sync::mpsc;

/// The pause before the server is looked for again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// What there is to be seen.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// Lines that were written since the last ones.
    Lines {
        /// The lines.
        lines: Vec<Line>,
        /// Lines among and after them that were skipped.
        damage: Damage,
        /// Whether they are the first of another ledger.
        begins_anew: bool,
        /// Bytes that were read, of how many.
        read: (u64, u64),
    },
    /// The server does not answer.
    Away(String),
    /// It answers with what cannot be understood: there is no use in asking again.
    Over(String),
}

/// Follows the ledger of the server behind `client` until nobody listens any more, across connections
/// and starts of the server.
pub async fn follow(mut client: Client, news: mpsc::Sender<News>) {
    let mut lines = Lines::default();
    loop {
        let error = match follow_once(&mut client, &mut lines, &news).await {
            Ok(()) => "it has left".to_owned(),
            Err(FeedError::NobodyListens) => return,
            Err(FeedError::Client(error)) if error.is_transient() => error.to_string(),
            Err(error) => {
                let _ = news.send(News::Over(error.to_string())).await;
                return;
            }
        };
        if news.send(News::Away(error)).await.is_err() {
            return;
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

/// Why a connection is of no more use.
#[derive(Debug, thiserror::Error)]
enum FeedError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("nobody listens")]
    NobodyListens,
}

async fn follow_once(
    client: &mut Client,
    lines: &mut Lines,
    news: &mpsc::Sender<News>,
) -> Result<(), FeedError> {
    let mut parts = client.follow(lines.position()).await?;
    while let Some(part) = parts.next().await? {
        if news.send(lines.add(&part)).await.is_err() {
            return Err(FeedError::NobodyListens);
        }
    }
    Ok(())
}

/// Puts the parts of a ledger together again.
#[derive(Debug, Default)]
struct Lines {
    ledger: Option<u64>,
    reader: LineReader,
}

impl Lines {
    /// Where to go on: at the beginning of a line, since the server may have been killed in it.
    fn position(&mut self) -> LedgerPosition {
        self.reader.restart_line();
        LedgerPosition {
            ledger: self.ledger,
            offset: self.reader.offset(),
        }
    }

    fn add(&mut self, part: &LedgerPart) -> News {
        let begins_anew = self.ledger.is_some_and(|ledger| ledger != part.ledger);
        if self.ledger != Some(part.ledger) {
            *self = Lines {
                ledger: Some(part.ledger),
                reader: LineReader::at(part.offset),
            };
        }
        let (mut lines, mut damage) = (Vec::new(), Damage::default());
        self.reader.read(&part.bytes, |place, line| match line {
            Ok(line) => lines.push(line),
            Err(reason) => damage.add(place, &reason),
        });
        let read = self.reader.offset();
        News::Lines {
            lines,
            damage,
            begins_anew,
            read: (read, part.size_bytes.max(read)),
        }
    }
}

#[cfg(test)]
mod tests {
    use pserver_ledger::Record;

    use super::*;

    fn text(worker: u32) -> String {
        let record = Record::Left { worker };
        let line = Line {
            at_micros: 5,
            record,
        };
        serde_json::to_string(&line).expect("a record is numbers and names") + "\n"
    }

    fn part(ledger: u64, offset: u64, bytes: &str) -> LedgerPart {
        LedgerPart {
            ledger,
            offset,
            bytes: bytes.to_owned().into(),
            size_bytes: 1000,
        }
    }

    fn workers(news: News) -> (Vec<u32>, bool) {
        let News::Lines {
            lines, begins_anew, ..
        } = news
        else {
            panic!("{news:?}");
        };
        let workers = lines.into_iter().map(|line| match line.record {
            Record::Left { worker } => worker,
            other => panic!("{other:?}"),
        });
        (workers.collect(), begins_anew)
    }

    #[test]
    fn lines_are_put_together_wherever_they_were_cut() {
        let all: String = [1, 2, 3].map(text).concat();
        for cut in 0..=all.len() {
            let mut lines = Lines::default();
            let (mut found, _) = workers(lines.add(&part(7, 0, &all[..cut])));
            let rest = part(7, cut as u64, &all[cut..]);
            found.extend(workers(lines.add(&rest)).0);
            assert_eq!(found, [1, 2, 3]);
            assert_eq!(lines.position().offset, all.len() as u64);
        }
    }

    #[test]
    fn a_place_beyond_all_numbers_is_the_last() {
        let mut lines = Lines::default();
        let far = part(7, u64::MAX, &text(1));
        assert_eq!(workers(lines.add(&far)).0, [1]);
        assert_eq!(lines.position().offset, u64::MAX);
    }

    #[test]
    fn a_line_that_was_begun_is_asked_for_again_and_another_ledger_begins_anew() {
        let mut lines = Lines::default();
        let begun = text(1) + &text(2)[..5];
        assert_eq!(workers(lines.add(&part(7, 0, &begun))).0, [1]);
        let position = lines.position();
        assert_eq!(
            (position.ledger, position.offset),
            (Some(7), text(1).len() as u64)
        );
        let again = part(7, position.offset, &text(3));
        assert_eq!(workers(lines.add(&again)), (vec![3], false));
        let other = part(8, 0, &text(4));
        assert_eq!(workers(lines.add(&other)), (vec![4], true));
    }

    #[test]
    fn a_damaged_line_is_named_by_its_place_and_those_after_it_are_read() {
        let mut lines = Lines::default();
        let wrong = text(1) + "no record\n" + &text(2);
        let news = lines.add(&part(7, 0, &wrong));
        let News::Lines { damage, .. } = &news else {
            panic!("{news:?}");
        };
        let damaged = damage.first()[0].to_string();
        let place = format!("line 2, at byte {}: ", text(1).len());
        assert!(damaged.starts_with(&place), "{damaged}");
        assert_eq!(workers(news).0, [1, 2]);
        assert_eq!(lines.position().offset, wrong.len() as u64);
    }
}
