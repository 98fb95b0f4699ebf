//! A server and its workers, on a train dir of their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use pserver_cli::exit::Exit;
use pserver_guard::Credentials;
use pserver_ledger::ledger_file::LEDGER_FILE;
use pserver_ledger::{Line, Record};
use pserver_run::{GlobalStep, StateDigest};
use pserver_state::{Checkpoint, checkpoint};
use pserver_wire::client::Client;
use pserver_wire::messages::Status;
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::runtime::{self, Runtime};

use crate::program::{Program, SERVER, WORKER, command, eventually};

/// Any free port, which the server names in its first line.
const ANY_PORT: &str = "127.0.0.1:0";

/// Steps of the run that the tests disturb: enough to have something left to do after the
/// disturbance, which comes at about a third.
pub(crate) const NUM_STEPS: u64 = 40;

/// A cluster in the making. What is not said is as in the run that the tests disturb.
#[derive(Clone, Debug)]
pub(crate) struct Builder {
    towers: u32,
    workers: usize,
    batch_size: u32,
    max_steps: u64,
    data: String,
    train_dir: Option<PathBuf>,
    server_flags: Vec<String>,
    worker_flags: Vec<String>,
    credentials: Credentials,
}

impl Builder {
    /// What the test shows the server when it asks how the run stands.
    pub(crate) fn credentials(self, credentials: Credentials) -> Self {
        Builder {
            credentials,
            ..self
        }
    }

    pub(crate) fn towers(self, towers: u32) -> Self {
        Builder { towers, ..self }
    }

    pub(crate) fn workers(self, workers: usize) -> Self {
        Builder { workers, ..self }
    }

    pub(crate) fn batch_size(self, batch_size: u32) -> Self {
        Builder { batch_size, ..self }
    }

    pub(crate) fn max_steps(self, max_steps: u64) -> Self {
        Builder { max_steps, ..self }
    }

    pub(crate) fn data(self, data: &str) -> Self {
        let data = data.to_owned();
        Builder { data, ..self }
    }

    /// A folder that outlives the cluster.
    pub(crate) fn train_dir(self, train_dir: &Path) -> Self {
        let train_dir = Some(train_dir.to_owned());
        Builder { train_dir, ..self }
    }

    pub(crate) fn server_flags(self, flags: &[&str]) -> Self {
        let server_flags = flags.iter().map(ToString::to_string).collect();
        Builder {
            server_flags,
            ..self
        }
    }

    pub(crate) fn worker_flags(self, flags: &[&str]) -> Self {
        let worker_flags = flags.iter().map(ToString::to_string).collect();
        Builder {
            worker_flags,
            ..self
        }
    }

    /// Starts the server and, once it listens, the workers.
    pub(crate) fn start(self) -> Cluster {
        let scratch = tempfile::tempdir().expect("there is room for a temporary folder");
        let train_dir = match &self.train_dir {
            Some(train_dir) => train_dir.clone(),
            None => scratch.path().join("run"),
        };
        let server = Server::start(&self, &train_dir, ANY_PORT);
        let mut cluster = Cluster {
            server,
            workers: Vec::new(),
            settings: self,
            train_dir,
            _scratch: scratch,
        };
        for _ in 0..cluster.settings.workers {
            cluster.add_worker(&[]);
        }
        cluster
    }
}

/// A server and its workers. Dropped, all of them are killed.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) server: Server,
    pub(crate) workers: Vec<Program>,
    settings: Builder,
    train_dir: PathBuf,
    _scratch: TempDir,
}

impl Cluster {
    pub(crate) fn builder() -> Builder {
        Builder {
            towers: 2,
            workers: 1,
            batch_size: 16,
            max_steps: NUM_STEPS,
            data: "synthetic:512".to_owned(),
            train_dir: None,
            server_flags: Vec::new(),
            worker_flags: Vec::new(),
            credentials: Credentials::default(),
        }
    }

    /// Starts one more worker, with these flags besides those of the others.
    pub(crate) fn add_worker(&mut self, flags: &[&str]) {
        let worker = Program::start(
            command(WORKER)
                .args(["--leave-with-parent", "--server", &self.server.address])
                .args(&self.settings.worker_flags)
                .args(flags),
        );
        self.workers.push(worker);
    }

    /// Flags of the next start of the server, besides those that say which run it is.
    pub(crate) fn set_server_flags(&mut self, flags: &[&str]) {
        self.settings = self.settings.clone().server_flags(flags);
    }

    /// Starts the server again as it was started, on the port that its workers know.
    pub(crate) fn start_server_again(&mut self) {
        let address = self.server.address.clone();
        self.server = Server::start(&self.settings, &self.train_dir, &address);
    }

    #[track_caller]
    pub(crate) fn wait_for_step(&mut self, step: u64) -> GlobalStep {
        let step = GlobalStep(step);
        let run = eventually("a step", || {
            self.server.status().filter(|run| run.global_step >= step)
        });
        run.global_step
    }

    /// Has the server write a checkpoint and leave; the step of that checkpoint.
    #[track_caller]
    pub(crate) fn stop_server(&mut self) -> u64 {
        self.server.program.signal(Signal::TERM);
        assert_eq!(self.server.program.wait(), Exit::Terminated);
        let (newest, _) = self.checkpoints().swap_remove(0);
        newest.0
    }

    /// Waits until the run is complete and everybody has left; the digest of the last state.
    ///
    /// A worker that took longer to start than the others for the whole run cannot be told that it
    /// is over: it goes on looking for the server, and is not waited for.
    #[track_caller]
    pub(crate) fn finish(&mut self) -> StateDigest {
        assert_eq!(self.server.program.wait(), Exit::Complete);
        for worker in &mut self.workers {
            if worker.stderr().contains("registered") {
                assert_eq!(worker.wait(), Exit::Complete);
            }
        }
        let last = self.load(self.settings.max_steps);
        last.state.digest()
    }

    pub(crate) fn train_dir(&self) -> &Path {
        &self.train_dir
    }

    /// What its ledger says, line by line.
    pub(crate) fn ledger(&self) -> Vec<Record> {
        let text = fs::read_to_string(self.train_dir.join(LEDGER_FILE));
        let text = text.expect("the train dir has a ledger");
        let records = text.lines().map(|line| {
            let line: Line = serde_json::from_str(line).expect("each line is a record");
            line.record
        });
        records.collect()
    }

    /// The checkpoints in the train dir, newest first.
    pub(crate) fn checkpoints(&self) -> Vec<(GlobalStep, PathBuf)> {
        checkpoint::list(&self.train_dir).expect("the train dir can be read")
    }

    #[track_caller]
    pub(crate) fn load(&self, step: u64) -> Checkpoint {
        let path = checkpoint::path_of(&self.train_dir, GlobalStep(step));
        checkpoint::load(&path, &cifar_model::layout())
            .unwrap_or_else(|error| panic!("the checkpoint of step {step} is not good: {error}"))
    }
}

/// The state after [`NUM_STEPS`] when nobody disturbs the run and one worker does everything.
pub(crate) fn undisturbed() -> StateDigest {
    static DIGEST: OnceLock<StateDigest> = OnceLock::new();
    *DIGEST.get_or_init(|| Cluster::builder().start().finish())
}

/// A server that has said where it listens.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) program: Program,
    pub(crate) address: String,
    runtime: Runtime,
    client: Client,
}

impl Server {
    fn start(settings: &Builder, train_dir: &Path, listen: &str) -> Self {
        let program = Program::start(
            command(SERVER)
                // Tests that are killed leave nothing running.
                .arg("--leave-with-parent")
                .args(["--listen", listen, "--data", &settings.data])
                .args(["--towers", &settings.towers.to_string()])
                .args(["--batch-size", &settings.batch_size.to_string()])
                .args(["--max-steps", &settings.max_steps.to_string()])
                .args(&settings.server_flags)
                .arg("--train-dir")
                .arg(train_dir),
        );
        let address = program.wait_for("listening ADDR", |program| {
            let stdout = program.stdout();
            let line = stdout.lines().next()?;
            Some(line.strip_prefix("listening ")?.to_owned())
        });
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("there are files and memory for an event loop");
        let client = {
            let _context = runtime.enter();
            let client = Client::new(&address, &cifar_model::layout(), &settings.credentials);
            client.expect("the server prints its address")
        };
        Server {
            program,
            address,
            runtime,
            client,
        }
    }

    /// How the run stands, if the server answers.
    pub(crate) fn status(&mut self) -> Option<Status> {
        self.runtime.block_on(self.client.status()).ok()
    }
}
