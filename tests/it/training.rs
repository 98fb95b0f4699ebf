//! A run without trouble.

use pserver_cli::exit::Exit;
use pserver_run::GlobalStep;
use pserver_state::checkpoint;
use serde_json::Value;

use crate::cluster::{Cluster, NUM_STEPS, undisturbed};
use crate::program::{Program, WORKER, command};

/// The losses of the step lines in a log, in order, after a check that each line is the tutorial's.
pub(crate) fn logged_losses(log: &str) -> Vec<f32> {
    log.lines()
        .filter(|line| line.contains(": step "))
        .map(|line| {
            assert_eq!(
                with_numbers_as_zeros(line),
                "0-0-0 0:0:0.0: step 0, loss = 0.0 (0.0 examples/sec; 0.0 sec/batch)",
                "{line}"
            );
            let (_, loss) = line.split_once("loss = ").unwrap();
            let (loss, _) = loss.split_once(' ').unwrap();
            loss.parse().unwrap()
        })
        .collect()
}

/// The form of a line: each row of digits becomes one `0`.
fn with_numbers_as_zeros(line: &str) -> String {
    let mut form = String::new();
    for character in line.chars() {
        match character.is_ascii_digit() {
            false => form.push(character),
            true if form.ends_with('0') => {}
            true => form.push('0'),
        }
    }
    form
}

pub(crate) fn mean(numbers: &[f32]) -> f32 {
    numbers.iter().sum::<f32>() / numbers.len() as f32
}

#[test]
fn a_run_trains_and_stops() {
    let mut cluster = Cluster::builder()
        .workers(2)
        .server_flags(&["--log-frequency", "1", "--checkpoint-steps", "30"])
        .start();
    cluster.finish();

    let server = &cluster.server.program;
    let listening = format!("listening {}\n", cluster.server.address);
    assert_eq!(server.stdout(), listening);
    let losses = logged_losses(&server.stderr());
    assert_eq!(losses.len() as u64, NUM_STEPS);
    assert!((4.6..4.8).contains(&losses[0]), "{losses:?}");
    let (first, last) = losses.split_at(losses.len() / 2);
    assert!(mean(last) < mean(first), "{losses:?}");
    assert_eq!(cluster.workers[0].stdout(), "");

    let steps: Vec<u64> = cluster
        .checkpoints()
        .iter()
        .map(|(step, _)| step.0)
        .collect();
    assert_eq!(steps, [NUM_STEPS, 30, 0]);
}

#[test]
fn two_workers_come_to_the_bits_of_one() {
    assert_eq!(
        Cluster::builder().workers(2).start().finish(),
        undisturbed()
    );
}

#[test]
fn four_workers_for_two_towers_come_to_the_bits_of_one() {
    assert_eq!(
        Cluster::builder().workers(4).start().finish(),
        undisturbed()
    );
}

#[test]
fn towers_need_not_have_a_worker_each() {
    let run = |workers| {
        let cluster = Cluster::builder().towers(3).max_steps(10);
        cluster.workers(workers).start().finish()
    };
    assert_eq!(run(2), run(3));
}

#[test]
fn another_seed_comes_to_other_bits() {
    let mut other = Cluster::builder().server_flags(&["--seed", "2"]).start();
    assert_ne!(other.finish(), undisturbed());
}

#[test]
fn a_finished_run_tells_workers_that_come_late() {
    let mut cluster = Cluster::builder()
        .max_steps(2)
        .server_flags(&["--worker-lease-secs", "5"])
        .start();
    let digest = cluster.finish();

    cluster.start_server_again();
    cluster.add_worker(&[]);
    assert_eq!(cluster.finish(), digest);
}

#[test]
fn a_worker_waits_for_a_server_that_is_not_up_yet() {
    let mut cluster = Cluster::builder().workers(0).max_steps(2).start();
    cluster.stop_server();
    cluster.add_worker(&[]);
    cluster.workers[0].wait_until_said("waits for the server");
    cluster.start_server_again();
    cluster.finish();
}

#[test]
fn a_worker_gives_up_when_the_server_stays_away() {
    let mut cluster = Cluster::builder().workers(0).start();
    cluster.stop_server();
    cluster.add_worker(&["--retry-window-secs", "1"]);
    let worker = &mut cluster.workers[0];
    assert_eq!(worker.wait(), Exit::TryAgain);
    worker.assert_said(&format!(
        "the server at {} stayed away for 1 s",
        cluster.server.address
    ));
}

/// Also the first that comes, whose numerics become the run's.
#[test]
fn a_worker_that_would_compute_other_bits_is_refused() {
    let mut cluster = Cluster::builder().workers(0).start();
    for _ in 0..2 {
        cluster.add_worker(&["--threads", "2"]);
        let mut other = cluster.workers.pop().unwrap();
        assert_eq!(other.wait(), Exit::Permanent);
        other.assert_said("its gradients would differ in the last bits");
        other.assert_said("--mixed");
        cluster.add_worker(&[]);
        cluster.wait_for_step(1);
    }
    assert_eq!(cluster.finish(), undisturbed());
}

#[test]
fn each_kind_of_kernels_has_bits_of_its_own_in_every_worker() {
    let finish = |kernels: &str, workers| {
        let mut cluster = Cluster::builder()
            .workers(workers)
            .max_steps(5)
            .server_flags(&["--kernels", kernels])
            .start();
        cluster.finish()
    };
    let digests = ["torch", "direct", "winograd"].map(|kernels| {
        let digest = finish(kernels, 1);
        assert_eq!(finish(kernels, 2), digest, "{kernels}");
        digest
    });
    assert_ne!(digests[0], digests[1]);
    assert_ne!(digests[1], digests[2]);
}

#[test]
fn a_worker_that_does_not_have_the_runs_kernels_says_so() {
    let mut cluster = Cluster::builder()
        .workers(0)
        .server_flags(&["--kernels", "winograd"])
        .start();
    cluster.add_worker(&["--threads", "2"]);
    let worker = &mut cluster.workers[0];
    assert_eq!(worker.wait(), Exit::Permanent);
    worker.assert_said("the run asks for winograd kernels, which compute on one thread of a CPU");
    worker.assert_said("start the server with --threads 1");
}

#[test]
fn logs_for_machines_are_json_objects() {
    let json = ["--log-format", "json"];
    let mut cluster = Cluster::builder()
        .max_steps(11)
        .server_flags(&json)
        .worker_flags(&json)
        .start();
    cluster.finish();
    let parse = |line: &str| serde_json::from_str::<Value>(line).unwrap();
    let server = cluster.server.program.stderr();
    let steps = server
        .lines()
        .map(parse)
        .filter(|event| event["message"] == "step");
    assert!(
        steps
            .map(|step| step["loss"].as_f64().unwrap())
            .all(|loss| loss > 4.0)
    );
    let worker = cluster.workers[0].stderr();
    assert!(
        worker
            .lines()
            .map(parse)
            .any(|event| event["message"] == "the run is over")
    );
}

#[test]
fn a_worker_says_where_its_variables_are() {
    let mut cluster = Cluster::builder()
        .max_steps(1)
        .worker_flags(&["--log-device-placement"])
        .start();
    cluster.finish();
    for variable in ["conv1/weights", "softmax_linear/biases"] {
        let placed = format!("variable=\"{variable}\" device=Cpu");
        cluster.workers[0].assert_said(&placed);
    }
}

#[test]
fn an_address_that_is_none_is_wrong_usage() {
    let mut worker = Program::start(command(WORKER).args(["--server", "no address"]));
    assert_eq!(worker.wait(), Exit::Usage);
    worker.assert_said("no address");
}

#[test]
fn a_run_may_begin_with_a_checkpoint_of_another() {
    let mut first = Cluster::builder().max_steps(3).start();
    let digest = first.finish();
    let path = checkpoint::path_of(first.train_dir(), GlobalStep(3));

    let init_from = ["--init-from", path.to_str().unwrap()];
    let mut second = Cluster::builder()
        .max_steps(5)
        .server_flags(&init_from)
        .start();
    assert_ne!(second.finish(), digest);
    assert_eq!(second.load(3).state.digest(), digest);
    let run = second.load(5).run.unwrap();
    assert_eq!(run.initial_digest, digest);
}
