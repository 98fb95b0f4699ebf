//! The program: how it ends, and what it says.

use std::process::{Command, Output};

use cifar_cli::exit::Exit;

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cifar-data"))
        .args(arguments)
        .env_remove("CIFAR10_DATA_DIR")
        .env_remove("RUST_LOG")
        .output()
        .unwrap()
}

fn exit_of(output: &Output) -> Option<Exit> {
    output.status.code().and_then(Exit::from_code)
}

#[test]
fn it_ends_well_when_the_set_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let output = run(&["--data", "synthetic:20", "--data-dir", path]);
    assert_eq!(exit_of(&output), Some(Exit::Complete));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("train_examples=20"), "{said}");
}

#[test]
fn a_folder_that_is_not_whole_is_named_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let set = folder.path().join("cifar-10-batches-bin");
    std::fs::create_dir(&set).unwrap();
    std::fs::write(set.join("data_batch_1.bin"), b"short").unwrap();
    let output = run(&["--data-dir", folder.path().to_str().unwrap()]);
    assert_eq!(exit_of(&output), Some(Exit::Permanent));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("data_batch_1.bin"), "{said}");
    assert_eq!(
        std::fs::read(set.join("data_batch_1.bin")).unwrap(),
        b"short"
    );
}
