//! The program: how it ends, and what it says.

use std::process::{Command, Output};

use pserver_cli::exit::Exit;

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cifar-data"));
    command
        .args(arguments)
        .env_remove("CIFAR10_DATA_DIR")
        .env_remove("RUST_LOG");
    command
}

fn run(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
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

#[test]
fn variables_that_are_empty_are_as_if_they_were_not_set() {
    let mut command = command(&["--data", "synthetic:20"]);
    let output = command.env("CIFAR10_DATA_DIR", "").env("RUST_LOG", "");
    let output = output.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(exit_of(&output), Some(Exit::Complete), "{said}");
    assert!(said.contains("folder=/tmp/cifar10_data"), "{said}");
}

#[test]
fn what_cannot_be_meant_is_wrong_usage() {
    let long = "9".repeat(100_000);
    for (arguments, why) in [
        (["--data-url", "file:///x"], "neither http nor https"),
        (["--data-url", ""], "looks like https://"),
        (["--data-url", &long], "looks like https://"),
        (["--data-dir", ""], "--data-dir <DIR>"),
        (["--data-sha256", "12"], "--data-sha256 <HEX>"),
        (["--data", "synthetic:0"], "there are cifar10"),
        (["--data", "synthetic:99999999999"], "there are cifar10"),
        (["--log-level", "=="], "no filter of logs"),
    ] {
        let output = run(&arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(exit_of(&output), Some(Exit::Usage), "{said}");
        assert!(said.contains(why), "{said}");
    }
}
