//! Runs that are not synchronous, and runs whose tower steps are computed twice.

use std::collections::BTreeSet;

use pserver_ledger::Record;
use pserver_ledger::record::Commit;
use pserver_run::TowerStep;

use crate::cluster::{Cluster, NUM_STEPS, undisturbed};

fn commits(cluster: &Cluster) -> Vec<Commit> {
    let records = cluster.ledger().into_iter();
    records
        .filter_map(|record| match record {
            Record::Commit(commit) => Some(commit),
            _ => None,
        })
        .collect()
}

#[test]
fn an_asynchronous_run_applies_each_gradient_once_even_if_its_server_is_killed() {
    let mut cluster = Cluster::builder()
        .workers(2)
        .server_flags(&["--mode", "async", "--max-staleness", "4"])
        .start();
    for death in 1..=3 {
        cluster.wait_for_step(death * NUM_STEPS / 4);
        cluster.server.program.kill();
        cluster.start_server_again();
    }
    cluster.finish();
    let commits = commits(&cluster);
    assert_eq!(commits.len() as u64, NUM_STEPS);
    let units: BTreeSet<TowerStep> = commits.iter().map(|commit| commit.towers[0].of).collect();
    assert_eq!(units.len(), commits.len(), "no gradient counts twice");
    for commit in &commits {
        assert_eq!(commit.towers.len(), 1);
        assert!(commit.towers[0].staleness <= 4, "{commit:?}");
    }
}

#[test]
fn a_quorum_takes_two_gradients_of_three() {
    let mut cluster = Cluster::builder()
        .towers(3)
        .workers(3)
        .server_flags(&["--replicas-to-aggregate", "2"])
        .start();
    cluster.finish();
    for commit in commits(&cluster) {
        assert_eq!(commit.towers.len(), 2);
    }
}

#[test]
fn an_audited_run_comes_to_the_same_bits_and_finds_no_fault() {
    let mut cluster = Cluster::builder()
        .workers(2)
        .server_flags(&["--audit-fraction", "0.3"])
        .start();
    assert_eq!(cluster.finish(), undisturbed());
    let audits: Vec<bool> = cluster
        .ledger()
        .into_iter()
        .filter_map(|record| match record {
            Record::Audited { equal, .. } => Some(equal),
            _ => None,
        })
        .collect();
    assert!(audits.len() > 5, "{} audits", audits.len());
    assert!(audits.into_iter().all(|equal| equal));
}
