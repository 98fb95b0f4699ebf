//! Does every decoder keep to its rules for all seeds, all that was ever found, and bytes at random?

use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};

use cap::Cap;
use cifar_fuzz::{TARGETS, seeds};
use proptest::prelude::*;

/// Memory that the tests may have, all at a time: much more than their threads need.
const MAX_BYTES: usize = 512 << 20;

#[global_allocator]
static ALLOCATOR: Cap<std::alloc::System> = Cap::new(std::alloc::System, MAX_BYTES);

fn folder(target: &str) -> PathBuf {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../fuzz/seeds");
    seeds.join(target)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("every target has seeds");
    let paths = entries.map(|entry| entry.expect("a folder can be listed").path());
    paths.collect()
}

#[test]
fn every_seed_passes_its_target() {
    for (name, target) in TARGETS {
        let files = files(&folder(name));
        assert!(!files.is_empty(), "{name} has no seed");
        for file in files {
            let bytes = fs::read(&file).expect("a seed can be read");
            let passed = panic::catch_unwind(AssertUnwindSafe(|| target(&bytes)));
            assert!(passed.is_ok(), "target {name} fails for {}", file.display());
        }
    }
}

#[test]
fn the_seeds_are_those_of_this_release() {
    for seed in seeds::all() {
        let path = folder(seed.target).join(&seed.name);
        assert!(
            fs::read(&path).is_ok_and(|bytes| bytes == seed.bytes),
            "{} is not what `cargo run --package cifar-fuzz --example seeds` writes",
            path.display()
        );
    }
}

/// A seed of a target, some bytes of which are others, and some at its end are not there.
fn damaged(target: &'static str) -> impl Strategy<Value = Vec<u8>> {
    let seeds: Vec<Vec<u8>> = seeds::all()
        .into_iter()
        .filter(|seed| seed.target == target)
        .map(|seed| seed.bytes)
        .collect();
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8);
    let end = any::<prop::sample::Index>();
    (prop::sample::select(seeds), changes, end).prop_map(|(mut bytes, changes, end)| {
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        bytes.truncate(bytes.len() - end.index(bytes.len()) / 4);
        bytes
    })
}

/// Bytes at random, and damaged seeds, for each target.
macro_rules! any_bytes {
    ($($name:ident),+) => {
        const NAMES: &[&str] = &[$(stringify!($name)),+];

        $(
            proptest! {
                #![proptest_config(ProptestConfig::with_cases(64))]

                #[test]
                fn $name(
                    random in prop::collection::vec(any::<u8>(), 0..300),
                    damaged in damaged(stringify!($name)),
                ) {
                    let (_, target) = TARGETS
                        .into_iter()
                        .find(|(name, _)| *name == stringify!($name))
                        .expect("it is a target");
                    target(&random);
                    target(&damaged);
                }
            }
        )+
    };
}

any_bytes!(
    wire_request,
    wire_push,
    wire_reply,
    records,
    data_folder,
    archive,
    checkpoint,
    state_file,
    ledger,
    ledger_file,
    scores,
    run_view
);

#[test]
fn no_target_is_left_out() {
    assert_eq!(TARGETS.map(|(name, _)| name).as_slice(), NAMES);
}
