//! A run whose numbers grow beyond all bounds.

use pserver_cli::exit::Exit;

use crate::cluster::Cluster;

#[test]
fn a_run_that_diverges_stops_and_says_where() {
    let mut cluster = Cluster::builder()
        .server_flags(&["--learning-rate", "1e30", "--keep-checkpoints", "1"])
        .start();
    assert_eq!(cluster.server.program.wait(), Exit::Diverged);
    assert_eq!(cluster.workers[0].wait(), Exit::Diverged);

    let server = &cluster.server.program;
    let stderr = server.stderr();
    let line = stderr
        .lines()
        .find(|line| line.contains("Model diverged with loss = "));
    let line = line.unwrap();
    let worker = format!("/{}\"", cluster.workers[0].id());
    assert!(line.contains("tower_step=step 1 tower"), "{line}");
    assert!(line.contains(&worker), "{worker} is not in {line}");

    // What is kept is what training may go on from with another learning rate.
    assert_eq!(cluster.checkpoints().len(), 1);
    let state = cluster.load(0).state;
    assert!(state.variables.iter().all(|value| value.is_finite()));
}
