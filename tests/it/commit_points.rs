//! A server that dies at any point of a commit loses nothing and counts nothing twice.

use pserver_ledger::Record;
use pserver_server::commit_point::CommitPoint;

use crate::cluster::{Cluster, NUM_STEPS, undisturbed};

/// The step at whose commit the server dies for the `index`-th time.
fn step_of_death(index: usize) -> u64 {
    3 * index as u64 + 2
}

/// Whether the step is committed when the server has come to this point.
fn is_committed(point: CommitPoint) -> bool {
    matches!(point, CommitPoint::BeforeLedger | CommitPoint::BeforeReply)
}

#[test]
fn a_server_that_dies_at_any_point_of_a_commit_goes_on_from_the_last_one() {
    let mut deaths = CommitPoint::ALL
        .into_iter()
        .enumerate()
        .map(|(index, point)| {
            let flag = format!("{point}@{}", step_of_death(index));
            (point, step_of_death(index), flag)
        });
    let (mut point, mut step, flag) = deaths.next().unwrap();
    let mut cluster = Cluster::builder()
        .workers(2)
        .server_flags(&["--abort-at", &flag])
        .start();
    loop {
        cluster.server.program.wait_until_aborted();
        let next = deaths.next();
        let flags: Vec<&str> = match &next {
            Some((_, _, flag)) => vec!["--abort-at", flag],
            None => Vec::new(),
        };
        cluster.set_server_flags(&flags);
        cluster.start_server_again();
        let goes_on = "goes on with the run in the train dir global_step=";
        let from = cluster.server.program.number_after(goes_on);
        assert_eq!(from, step + u64::from(is_committed(point)), "{point}");
        match next {
            Some(death) => (point, step, _) = death,
            None => break,
        }
    }
    assert_eq!(cluster.finish(), undisturbed());
    assert_eq!(
        committed_steps(&cluster),
        (0..NUM_STEPS).collect::<Vec<_>>()
    );
}

/// The steps that the ledger says were committed, in its order.
fn committed_steps(cluster: &Cluster) -> Vec<u64> {
    let mut steps = Vec::new();
    for record in cluster.ledger() {
        match record {
            Record::Commit(commit) => steps.push(commit.global_step.0),
            Record::Rewind(rewind) => panic!("{rewind:?}"),
            _ => {}
        }
    }
    steps
}
