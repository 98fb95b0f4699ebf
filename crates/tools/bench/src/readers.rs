//! What it costs a run when readers take all they can: many connections of the least role, each asking without
//! pause for one kind of thing, beside workers that compute nothing.

use std::fmt;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use pserver_cli::args::number_of_seconds;
use pserver_cli::console::say;
use pserver_cli::priority;
use pserver_guard::Credentials;
use pserver_run::{Confusion, EvalData, GlobalStep, Layout, Score, ScoredVariables};
use pserver_wire::client::Client;
use pserver_wire::messages::{CheckpointRequest, FollowerId, LedgerPosition};
use serde::Serialize;
use tokio::runtime::{self, Runtime};
use tokio::sync::oneshot;

use crate::ledger_window::{Commits, Window, now_micros};
use crate::load::{Crowd, RUNTIME_THREADS};
use crate::server_process::{ProgramPaths, ServerProcess};
use crate::table::{Table, cell};

/// Requests of a connection at a time.
const AT_A_TIME: u64 = 8;

/// Steps before anything is measured.
const WARM_UP_STEPS: u64 = 10;

/// What is measured.
#[derive(Clone, Debug, Args)]
pub struct ReadersArgs {
    /// Connections that read
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=512))]
    pub connections: u32,

    /// Workers, and towers
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub workers: u32,

    /// For how long each, and as long without them before
    #[arg(long, default_value_t = 5.0, value_name = "SECS", value_parser = number_of_seconds)]
    pub seconds: f64,

    /// Where the programs are.
    #[command(flatten)]
    pub programs: ProgramPaths,
}

/// What readers ask for without pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    Status,
    /// Tells scores that it makes up.
    Scores,
    /// Waits for a checkpoint that is newer than any.
    Held,
    /// Does so, and gives up at once.
    Cancelled,
    Checkpoints,
    /// Asks for checkpoints and reads none.
    Unread,
    Ledger,
}

const READINGS: [(Reading, &str); 7] = [
    (Reading::Status, "status"),
    (Reading::Scores, "made-up scores"),
    (Reading::Held, "checkpoints to come"),
    (Reading::Cancelled, "the same, cancelled"),
    (Reading::Checkpoints, "checkpoints"),
    (Reading::Unread, "checkpoints, not read"),
    (Reading::Ledger, "the ledger"),
];

/// What one kind of reading costs.
#[derive(Clone, Debug, Serialize)]
pub struct Cost {
    /// What was asked for.
    pub reading: &'static str,
    /// Steps a second before.
    pub undisturbed: f64,
    /// Steps a second meanwhile.
    pub disturbed: f64,
    /// How much more memory the server has at the end.
    pub server_grew_mb: f64,
    /// How much was written to the train dir meanwhile beyond checkpoints and ledger.
    pub scores_mb: f64,
}

/// The costs of all kinds.
#[derive(Clone, Debug, Serialize)]
pub struct Costs(pub Vec<Cost>);

/// Measures each kind in turn, on one server.
///
/// # Errors
///
/// If the server ends, or a worker is told anything but work.
pub fn measure(args: &ReadersArgs) -> anyhow::Result<Costs> {
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(RUNTIME_THREADS)
        .enable_all()
        .build()
        .context("cannot start the threads of the workers")?;
    let flags = [
        "--data=synthetic".to_owned(),
        format!("--towers={}", args.workers),
        "--checkpoint-steps=200".to_owned(),
        "--summary-steps=0".to_owned(),
    ];
    let server = ServerProcess::start(&args.programs, &flags)?;
    let mut crowd = Crowd::start(&runtime, &server, args.workers)?;
    crowd.wait_for_step(WARM_UP_STEPS)?;
    let mut costs = Vec::new();
    for (reading, name) in READINGS {
        say(name);
        let cost = measure_one(args, &server, &mut crowd, reading, name);
        costs.push(cost.with_context(|| format!("with readers of {name}"))?);
    }
    crowd.stop()?;
    Ok(Costs(costs))
}

fn measure_one(
    args: &ReadersArgs,
    server: &ServerProcess,
    crowd: &mut Crowd<'_>,
    reading: Reading,
    name: &'static str,
) -> anyhow::Result<Cost> {
    let time = Duration::from_secs_f64(args.seconds);
    let undisturbed = steps_a_second(server, crowd, time)?;
    let before = (server.usage()?.resident_bytes, server.scores_bytes());
    let readers: Vec<Reader> = (0..args.connections)
        .map(|number| Reader::start(server.address().to_owned(), reading, number))
        .collect();
    let disturbed = steps_a_second(server, crowd, time)?;
    let after = (server.usage()?.resident_bytes, server.scores_bytes());
    for reader in readers {
        reader.stop();
    }
    let grown = |before: u64, after: u64| (after as f64 - before as f64) / 1e6;
    Ok(Cost {
        reading: name,
        undisturbed,
        disturbed,
        server_grew_mb: grown(before.0, after.0),
        scores_mb: grown(before.1, after.1),
    })
}

fn steps_a_second(
    server: &ServerProcess,
    crowd: &mut Crowd<'_>,
    time: Duration,
) -> anyhow::Result<f64> {
    let from_micros = now_micros();
    crowd.wait(time)?;
    let to_micros = now_micros();
    let window = Window {
        from_micros,
        to_micros,
    };
    let history = server.history()?;
    let steps = Commits::within(&history, window).len();
    Ok(1e6 * steps as f64 / (to_micros - from_micros) as f64)
}

/// A connection that reads, on a thread of its own.
struct Reader {
    /// Dropped to tell it to stop.
    _stop: oneshot::Sender<()>,
    ended: mpsc::Receiver<()>,
}

impl Reader {
    fn start(address: String, reading: Reading, number: u32) -> Self {
        let (stop, stopped) = oneshot::channel();
        let (end, ended) = mpsc::channel();
        thread::spawn(move || {
            // It would compute on a machine of its own.
            priority::give_way();
            let runtime = runtime::Builder::new_current_thread().enable_all().build();
            // Without a thread's event loop there is one reader less.
            if let Ok(runtime) = runtime {
                read(&runtime, &address, reading, number, stopped);
            }
            drop(end);
        });
        Reader { _stop: stop, ended }
    }

    fn stop(self) {
        let Reader { _stop, ended } = self;
        drop(_stop);
        // Nothing is ever sent: it ends when the thread does.
        let _ = ended.recv();
    }
}

fn read(
    runtime: &Runtime,
    address: &str,
    reading: Reading,
    number: u32,
    stopped: oneshot::Receiver<()>,
) {
    let _context = runtime.enter();
    let client = Client::new(address, &Layout::default(), &Credentials::default());
    let Ok(client) = client else { return };
    for lane in 0..AT_A_TIME {
        let id = u64::from(number) * AT_A_TIME + lane;
        runtime.spawn(ask_on(client.clone(), reading, id));
    }
    if reading == Reading::Unread {
        // Then nobody drives the connection, though it stays open.
        runtime.block_on(tokio::time::sleep(Duration::from_millis(100)));
        let _ = stopped.blocking_recv();
    } else {
        let _ = runtime.block_on(stopped);
    }
}

/// Asks again and again, whatever it is answered.
async fn ask_on(mut client: Client, reading: Reading, id: u64) {
    let follower = FollowerId(id);
    let request = |newer_than| CheckpointRequest {
        follower,
        newer_than,
    };
    for count in 1_u32.. {
        match reading {
            Reading::Status => drop(client.status().await),
            Reading::Scores => {
                let score = made_up(id, count);
                drop(client.report_score(follower, &score).await);
            }
            Reading::Held => {
                let none = request(Some(GlobalStep(u64::MAX >> 1)));
                drop(client.checkpoint(none).await);
            }
            Reading::Cancelled => {
                let none = request(Some(GlobalStep(u64::MAX >> 1)));
                let asked = client.checkpoint(none);
                drop(tokio::time::timeout(Duration::from_millis(1), asked).await);
            }
            Reading::Checkpoints | Reading::Unread => drop(client.checkpoint(request(None)).await),
            Reading::Ledger => {
                if let Ok(mut parts) = client.follow(LedgerPosition::default()).await {
                    while let Ok(Some(part)) = parts.next().await
                        && !part.bytes.is_empty()
                    {}
                }
            }
        }
    }
}

/// A score that no other is equal to.
fn made_up(id: u64, count: u32) -> Score {
    let mut confusion = Confusion::default();
    for bit in 0..32 {
        let both = [(id >> bit) & 1, u64::from(count >> bit) & 1];
        let [label, predicted] = both.map(|bit| bit as usize);
        confusion.note(bit as usize % 5 * 2 + label, bit as usize / 5 + predicted);
    }
    Score {
        global_step: GlobalStep(u64::from(count % 100)),
        eval_data: EvalData::Test,
        variables: ScoredVariables::Averages,
        confusion,
    }
}

impl fmt::Display for Costs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(&[
            "readers ask for",
            "steps/s before",
            "meanwhile",
            "ratio",
            "server grew MB",
            "scores MB",
        ]);
        for cost in &self.0 {
            table.row(vec![
                cost.reading.to_owned(),
                cell(Some(cost.undisturbed), 0),
                cell(Some(cost.disturbed), 0),
                cell(Some(cost.disturbed / cost.undisturbed), 2),
                cell(Some(cost.server_grew_mb), 0),
                cell(Some(cost.scores_mb), 2),
            ]);
        }
        write!(f, "{table}")
    }
}
