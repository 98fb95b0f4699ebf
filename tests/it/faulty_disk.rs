//! A server on a disk whose operations fail, are late, or are the last thing that it does: the run ends with
//! the bits of an undisturbed one, and each server before either got there or said what is wrong.
//!
//! `CIFAR_FAULT_SEED=7` tries that seed alone, `CIFAR_FAULT_SEEDS=1000` the seeds below that number.

use std::ops::Range;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use cifar_bench::fake_worker::{Answers, gradient, numerics};
use pserver_cli::exit::Exit;
use pserver_guard::Credentials;
use pserver_ledger::ledger_file::LEDGER_FILE;
use pserver_ledger::{History, verify};
use pserver_run::{GlobalStep, StateDigest};
use pserver_state::checkpoint;
use pserver_wire::client::Client;
use pserver_wire::messages::{Assignment, PROTOCOL_VERSION, Pull, Registration, Then, Verdict};
use rustix::process::Signal;

use crate::program::{DEADLINE, command};

const FAULTY_SERVER: &str = env!("CARGO_BIN_EXE_cifar-ps-faulty");

/// Seeds that are tried unless the environment says otherwise.
const DEFAULT_SEEDS: u64 = 20;

/// Servers that are started on a faulty disk, one after the other; then the disk is good.
const FAULTY_LIVES: u64 = 4;

const NUM_STEPS: u64 = 6;

/// How a life of a server went.
#[derive(Debug, PartialEq, Eq)]
enum Life {
    Complete,
    /// It said what is wrong.
    Refused,
    /// The faults had it killed.
    Killed,
}

fn seeds() -> Range<u64> {
    let number = |name: &str| -> Option<u64> {
        let text = env::var(name).ok()?;
        Some(text.parse().expect("a seed is a number"))
    };
    match number("CIFAR_FAULT_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("CIFAR_FAULT_SEEDS").unwrap_or(DEFAULT_SEEDS),
    }
}

#[test]
fn whatever_the_disk_does_no_step_is_lost() {
    let seeds = seeds();
    let next = AtomicU64::new(seeds.start);
    let counts = Mutex::new([0_u64; 3]);
    let failed = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || failed.lock().unwrap().len() > 3 {
                        return;
                    }
                    match try_seed(seed) {
                        Ok(lives) => {
                            let mut counts = counts.lock().unwrap();
                            for life in lives {
                                counts[life as usize] += 1;
                            }
                        }
                        Err(error) => failed.lock().unwrap().push(format!("seed {seed}: {error}")),
                    }
                }
            });
        }
    });
    let [complete, refused, killed] = counts.into_inner().unwrap();
    let num_seeds = seeds.end - seeds.start;
    eprintln!(
        "faulty disk: {num_seeds} seeds, {complete} servers completed the run, {refused} refused to go on, \
         {killed} were killed"
    );
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// Runs a whole run; how its servers went, or what is wrong.
fn try_seed(seed: u64) -> Result<Vec<Life>, String> {
    let memory = Path::new("/dev/shm");
    let folder = match memory.is_dir() {
        true => tempfile::tempdir_in(memory),
        false => tempfile::tempdir(),
    }
    .unwrap();
    let train_dir = folder.path().join("run");
    fs::create_dir(&train_dir).unwrap();
    let per_mille = [2, 5, 15, 50][seed as usize % 4];
    let (mut lives, mut heard) = (Vec::new(), GlobalStep(0));
    for life in 0..=FAULTY_LIVES {
        let mut server = command(FAULTY_SERVER);
        if life < FAULTY_LIVES {
            server
                .env("FAULTS_FOLDER", &train_dir)
                .env("FAULTS_SEED", (seed * 100 + life).to_string())
                .env("FAULTS_PER_MILLE", per_mille.to_string());
        }
        let stderr_path = folder.path().join("stderr");
        server
            .args(["--listen", "127.0.0.1:0", "--data", "synthetic:512"])
            .args(["--towers", "1", "--batch-size", "16"])
            .args(["--max-steps", &NUM_STEPS.to_string()])
            .args(["--checkpoint-steps", "2", "--keep-checkpoints", "1"])
            .args(["--worker-lease-secs", "2", "--train-dir"])
            .arg(&train_dir)
            .stdin(Stdio::null())
            .stdout(fs::File::create(folder.path().join("stdout")).unwrap())
            .stderr(fs::File::create(&stderr_path).unwrap());
        let mut child = Killed(server.spawn().unwrap());
        let status = live(&mut child.0, folder.path(), &mut heard);
        let stderr = || fs::read_to_string(&stderr_path).unwrap();
        let status = status.map_err(|error| format!("life {life}: {error}\n{}", stderr()))?;
        let went = how_it_went(status, &stderr())
            .ok_or_else(|| format!("life {life}: it ended with {status}\n{}", stderr()))?;
        let is_over = went == Life::Complete;
        lives.push(went);
        if is_over {
            check_end(&train_dir)?;
            return Ok(lives);
        }
    }
    let stderr = fs::read_to_string(folder.path().join("stderr")).unwrap();
    Err(format!("the run cannot be completed: {lives:?}\n{stderr}"))
}

/// A child that does not outlive the test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn how_it_went(status: ExitStatus, stderr: &str) -> Option<Life> {
    let refusals = [Exit::Disk, Exit::TryAgain, Exit::Permanent];
    match status.code().and_then(Exit::from_code) {
        Some(Exit::Complete) => Some(Life::Complete),
        Some(exit) if refusals.contains(&exit) && stderr.contains("cifar-ps: ") => {
            Some(Life::Refused)
        }
        None if status.signal() == Some(Signal::KILL.as_raw()) => Some(Life::Killed),
        _ => None,
    }
}

/// Works for a server until it ends.
fn live(server: &mut Child, folder: &Path, heard: &mut GlobalStep) -> Result<ExitStatus, String> {
    let began = Instant::now();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut working = None;
    loop {
        if let Some(status) = server.try_wait().unwrap() {
            return Ok(status);
        }
        if began.elapsed() > DEADLINE {
            return Err("it hangs".to_owned());
        }
        if working.is_none() {
            let stdout = fs::read_to_string(folder.join("stdout")).unwrap();
            let line = stdout.split_once('\n').map(|(line, _)| line);
            working = line.and_then(|line| Some(line.strip_prefix("listening ")?.to_owned()));
        }
        match &working {
            Some(address) => runtime.block_on(async {
                let patience = Duration::from_millis(500);
                match tokio::time::timeout(patience, work(address, heard)).await {
                    Ok(Err(Wrong::Lost(what))) => Err(what),
                    _ => Ok(()),
                }
            })?,
            None => thread::sleep(Duration::from_millis(5)),
        }
    }
}

enum Wrong {
    /// The server has gone.
    Away,
    /// It has lost a step.
    Lost(String),
}

/// Works until the run is over, or the server has gone.
async fn work(address: &str, heard: &mut GlobalStep) -> Result<(), Wrong> {
    let away = |_| Wrong::Away;
    let layout = cifar_model::layout();
    let mut client = Client::new(address, &layout, &Credentials::default()).unwrap();
    let run = client.run().await.map_err(away)?;
    let registration = Registration {
        protocol_version: PROTOCOL_VERSION,
        layout_fingerprint: layout.fingerprint(),
        data_digest: run.data.digest(),
        numerics: numerics(),
        name: "fake/1".to_owned(),
    };
    let member = client.register(registration).await.map_err(away)?.member;
    loop {
        let pull = Pull { member, held: None };
        let work = match client.pull(pull).await.map_err(away)? {
            Assignment::Work(work) => work,
            Assignment::Wait => continue,
            Assignment::Goodbye(_) | Assignment::Unregistered => return Ok(()),
        };
        let step = work.tower_step.global_step;
        if step < *heard {
            return Err(Wrong::Lost(format!(
                "step {heard} is lost: it is at {step}"
            )));
        }
        *heard = step;
        let gradients = gradient(&layout, step.0 as u32);
        let (push, gradients) = Answers::new(&run, &gradients).to(member, &work);
        let pushed = client.push(push, gradients, Then::Nothing).await;
        if pushed.map_err(away)?.verdict == Verdict::Accepted {
            *heard = GlobalStep(step.0 + 1);
        }
    }
}

fn check_end(train_dir: &Path) -> Result<(), String> {
    let path = checkpoint::path_of(train_dir, GlobalStep(NUM_STEPS));
    let last =
        checkpoint::load(&path, &cifar_model::layout()).map_err(|error| error.to_string())?;
    let (found, expected) = (last.state.digest(), undisturbed());
    if found != expected {
        return Err(format!("it ended with {found} and not {expected}"));
    }
    let history = History::read(&train_dir.join(LEDGER_FILE)).map_err(|error| error.to_string())?;
    let proof = verify(&history).map_err(|findings| findings.to_string())?;
    match proof.steps == [GlobalStep(0)..GlobalStep(NUM_STEPS)] {
        true => Ok(()),
        false => Err(format!("the ledger proves {:?}", proof.steps)),
    }
}

fn undisturbed() -> StateDigest {
    static DIGEST: OnceLock<StateDigest> = OnceLock::new();
    *DIGEST.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let train_dir = folder.path().join("run");
        let mut server = command(FAULTY_SERVER);
        server
            .args(["--listen", "127.0.0.1:0", "--data", "synthetic:512"])
            .args(["--towers", "1", "--batch-size", "16"])
            .args(["--max-steps", &NUM_STEPS.to_string(), "--train-dir"])
            .arg(&train_dir)
            .stdout(fs::File::create(folder.path().join("stdout")).unwrap())
            .stderr(Stdio::null());
        let mut child = Killed(server.spawn().unwrap());
        live(&mut child.0, folder.path(), &mut GlobalStep(0)).unwrap();
        let path = checkpoint::path_of(&train_dir, GlobalStep(NUM_STEPS));
        let last = checkpoint::load(&path, &cifar_model::layout()).unwrap();
        last.state.digest()
    })
}
