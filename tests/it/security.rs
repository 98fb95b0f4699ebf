//! Over a network: certificates, tokens, who may do what, and what happens when files change.

use std::fs;
use std::net::TcpStream;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_body_util::Full;
use pserver_cli::exit::Exit;
use pserver_guard::Credentials;
use pserver_ledger::Record;
use pserver_run::Numerics;
use pserver_wire::client::{Client, ClientError};
use pserver_wire::messages::{PROTOCOL_VERSION, Registration};
use pserver_wire::transport;
use rustix::process::Signal;
use tokio::runtime;
use tonic::body::Body;
use tonic::codegen::http::Request;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower::ServiceExt;

use crate::authority::{Authority, Good, credentials, flags, words};
use crate::cluster::{Cluster, undisturbed};
use crate::http;
use crate::program::{EVAL, LAUNCHER, Program, SERVER, WORKER, command, eventually};

const WORKER_TOKEN: &str = "worker-token-0123456789";
const VIEWER_TOKEN: &str = "viewer-token-0123456789";
const ADMIN_TOKEN: &str = "admin-token-01234567890";

/// A server on which everybody shows a certificate.
fn with_certificates(authority: &Authority) -> crate::cluster::Builder {
    let admin = authority.client_flags("admin", "admin");
    Cluster::builder()
        .server_flags(&words(&authority.server_flags(authority)))
        .worker_flags(&words(&authority.client_flags("worker-a", "worker")))
        .credentials(credentials(&admin))
}

fn tokens(authority: &Authority) -> String {
    let text = format!(
        "# who may what\nworker {WORKER_TOKEN}\nviewer {VIEWER_TOKEN}\nadmin {ADMIN_TOKEN}\n"
    );
    authority.secret("tokens", &text)
}

#[test]
fn a_run_over_certificates_comes_to_the_bits_of_an_unencrypted_one() {
    let authority = Authority::new();
    let mut cluster = with_certificates(&authority)
        .server_flags(&words(
            &[
                authority.server_flags(&authority),
                flags(&[("--checkpoint-steps", "20")]),
            ]
            .concat(),
        ))
        .start();
    cluster.add_worker(&["--data-plane", "wire"]);
    let viewer = authority.client_flags("viewer", "viewer");
    let mut eval = Program::start(
        command(EVAL)
            .args(["--server", &cluster.server.address])
            .args(&viewer),
    );
    assert_eq!(cluster.finish(), undisturbed());
    assert_eq!(eval.wait(), Exit::Complete);
    assert!(eval.stdout().contains("precision @ 1"));
    let process = cluster.workers[0].id();
    let is_named = |record: &Record| match record {
        Record::Joined { name, .. } => *name == format!("worker-a/{process}"),
        _ => false,
    };
    assert!(cluster.ledger().iter().any(is_named));
}

#[test]
fn a_run_over_tokens_comes_to_the_bits_of_an_unencrypted_one() {
    let authority = Authority::new();
    let worker = authority.secret("worker", WORKER_TOKEN);
    let viewer = authority.secret("viewer", VIEWER_TOKEN);
    let viewer = flags(&[("--token-file", &viewer)]);
    let mut cluster = Cluster::builder()
        .workers(2)
        .server_flags(&["--token-file", &tokens(&authority)])
        .worker_flags(&["--token-file", &worker])
        .credentials(credentials(&viewer))
        .start();
    let mut eval = Program::start(
        command(EVAL)
            .args(["--server", &cluster.server.address])
            .args(&viewer),
    );
    assert_eq!(cluster.finish(), undisturbed());
    assert_eq!(eval.wait(), Exit::Complete);
    let programs = [&cluster.server.program, &cluster.workers[0], &eval];
    for said in programs.map(Program::stderr) {
        assert!(!said.contains("-token-0123456789"), "{said}");
    }
}

/// Each leaves at once, and says what to do.
#[test]
fn who_may_not_is_told_why_and_does_not_try_again() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let mut server_flags = ours.server_flags(&ours);
    server_flags.extend(flags(&[("--token-file", &tokens(&ours))]));
    let cluster = Cluster::builder()
        .workers(0)
        .server_flags(&words(&server_flags))
        .start();
    let token = |token: &str| {
        let file = ours.secret(&token[..5], token);
        flags(&[("--token-file", &file)])
    };
    let ca_only = flags(&[("--tls-ca", &ours.ca())]);
    let worker = ours.client_flags("worker", "worker");
    let [old, old_key] = ours.issue("old", "worker", Good::NoMore);
    let expired = [
        &ca_only[..],
        &flags(&[("--tls-cert", &old), ("--tls-key", &old_key)]),
    ]
    .concat();
    let mut stranger = theirs.client_flags("stranger", "worker");
    stranger[1] = ours.ca();
    let mut misled = worker.clone();
    misled[1] = theirs.ca();
    let cases: [(&str, Vec<String>, &str); 8] = [
        (
            WORKER,
            ca_only,
            "give this program --tls-cert and --tls-key",
        ),
        (
            WORKER,
            stranger,
            "does not accept the certificate of this program",
        ),
        (WORKER, expired, "ended at Jan  1 00:00:00 2020"),
        (
            WORKER,
            misled,
            "its certificate is none that --tls-ca vouches for",
        ),
        (WORKER, worker.clone(), "give the program --token-file"),
        (
            WORKER,
            [worker.clone(), token("wrong-token-0123456789")].concat(),
            "does not know the token",
        ),
        (
            WORKER,
            [ours.client_flags("viewer", "viewer"), token(WORKER_TOKEN)].concat(),
            "the role worker or viewer or admin is needed",
        ),
        (
            EVAL,
            [worker, token(WORKER_TOKEN)].concat(),
            "the role viewer or admin is needed",
        ),
    ];
    for (program, flags, why) in cases {
        let mut program = Program::start(
            command(program)
                .args(["--server", &cluster.server.address])
                .args(&flags),
        );
        assert_eq!(program.wait(), Exit::Permanent, "{why}");
        program.assert_said(why);
    }
}

#[test]
fn a_client_that_asks_for_tls_says_that_the_server_has_none() {
    let authority = Authority::new();
    let cluster = Cluster::builder().workers(0).start();
    let mut worker = Program::start(
        command(WORKER)
            .args(["--server", &cluster.server.address])
            .args(["--tls-ca", &authority.ca()]),
    );
    assert_eq!(worker.wait(), Exit::Permanent);
    worker.assert_said("it does not speak TLS, which --tls-ca asks for");
}

#[test]
fn an_unencrypted_client_says_that_the_server_has_tls() {
    let authority = Authority::new();
    let cluster = with_certificates(&authority).workers(0).start();
    let mut worker = Program::start(command(WORKER).args(["--server", &cluster.server.address]));
    assert_eq!(worker.wait(), Exit::Permanent);
    worker.assert_said("it speaks TLS: give this program --tls-ca");
}

#[test]
fn unencrypted_a_server_listens_on_this_machine_alone() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let run = run.to_str().unwrap();
    let token = tokens(&authority);
    let cases: [&[&str]; 4] = [
        &["--listen", "0.0.0.0:0", "--train-dir", run],
        &[
            "--listen",
            "0.0.0.0:0",
            "--token-file",
            &token,
            "--train-dir",
            run,
        ],
        &[
            "--listen",
            "127.0.0.1:0",
            "--http",
            "[::]:0",
            "--train-dir",
            run,
        ],
        &["view", "--http", "0.0.0.0:0", "--train-dir", run],
    ];
    for flags in cases {
        let mut server = Program::start(command(SERVER).args(flags));
        assert_eq!(server.wait(), Exit::Permanent, "{flags:?}");
        server.assert_said("can be reached from other machines");
        server.assert_said("--insecure");
        assert_eq!(server.stdout(), "");
    }
    assert!(!folder.path().join("run").exists());
    let mut server = Program::start(command(SERVER).args(cases[0]).arg("--insecure"));
    server.wait_until_said("what travels here is not encrypted");
    server.wait_until_said("anyone who reaches this address may take part");
    server.wait_for("listening ADDR", |server| {
        server.stdout().starts_with("listening ").then_some(())
    });
    server.signal(Signal::TERM);
    assert_eq!(server.wait(), Exit::Terminated);
}

#[test]
fn files_that_cannot_be_used_are_explained() {
    let authority = Authority::new();
    let [certificate, _] = authority.issue("one", "server", Good::ForLong);
    let [_, key] = authority.issue("other", "server", Good::ForLong);
    let short = authority.secret("short", "tooshort");
    let cases: [(&[&str], &str); 4] = [
        (
            &["--tls-cert", &certificate, "--tls-key", &key],
            "cannot be used with the key",
        ),
        (
            &["--tls-cert", &key, "--tls-key", &key],
            "no certificate in PEM form",
        ),
        (
            &["--token-file", "/nowhere"],
            "cannot read --token-file /nowhere",
        ),
        (
            &["--token-file", &short],
            "has 8 characters, which is too short",
        ),
    ];
    for (flags, why) in cases {
        let mut server = Program::start(command(SERVER).args(flags));
        assert_eq!(server.wait(), Exit::Permanent, "{flags:?}");
        server.assert_said(why);
        assert!(!server.stderr().contains("tooshort"));
    }
    let mut alone = Program::start(command(SERVER).args(["--tls-cert", &certificate]));
    assert_eq!(alone.wait(), Exit::Usage);
}

/// Another authority takes over while the run goes on: those inside stay, those who come are asked for its
/// certificates.
#[test]
fn certificates_are_renewed_while_the_run_goes_on() {
    const STEPS: u64 = 400;
    let (old, new) = (Authority::new(), Authority::new());
    let mut cluster = with_certificates(&old).max_steps(STEPS).start();
    cluster.wait_for_step(10);
    let replace = |file: &str, text: &str| {
        let beside = old.secret("beside", text);
        fs::rename(beside, old.folder().join(file)).unwrap();
    };
    // Half of a change is one that cannot be used.
    let (certificate, key) = new.pair("server", "server", Good::ForLong);
    replace("server.pem", &certificate);
    let address = cluster.server.address.clone();
    let knock = || drop(TcpStream::connect(&address).unwrap());
    eventually("the warning", || {
        knock();
        let said = cluster.server.program.stderr();
        said.contains("what was read before still holds")
            .then_some(())
    });
    replace("server.key", &key);
    replace("ca.pem", &fs::read_to_string(new.ca()).unwrap());
    eventually("the new files", || {
        knock();
        let said = cluster.server.program.stderr();
        said.contains("was read again").then_some(())
    });
    let joins = new.client_flags("worker-b", "worker");
    let mut late = Program::start(command(WORKER).args(["--server", &address]).args(&joins));
    late.wait_until_said("registered");
    assert_eq!(
        cluster.finish(),
        Cluster::builder().max_steps(STEPS).start().finish()
    );
    assert_eq!(late.wait(), Exit::Complete);
}

/// Runs a verb of an admin; what it prints.
fn order(verb: &str, address: &str, flags: &[String]) -> (Exit, String, String) {
    let mut program = Program::start(
        command(SERVER)
            .args([verb, "--server", address])
            .args(flags),
    );
    (program.wait(), program.stdout(), program.stderr())
}

#[test]
fn an_admin_tells_a_server_what_to_do_and_others_do_not() {
    let authority = Authority::new();
    let admin = authority.client_flags("boss", "admin");
    let mut cluster = with_certificates(&authority).max_steps(1_000_000).start();
    cluster.wait_for_step(5);
    let address = cluster.server.address.clone();
    for verb in ["checkpoint", "drain", "stop"] {
        let (exit, _, said) = order(verb, &address, &authority.client_flags("w", "worker"));
        assert_eq!(exit, Exit::Permanent);
        assert!(said.contains("the role admin is needed"), "{said}");
    }
    let step_of = |(exit, stdout, said): (Exit, String, String)| -> u64 {
        assert_eq!(exit, Exit::Complete, "{said}");
        stdout
            .strip_prefix("step ")
            .unwrap()
            .trim()
            .parse()
            .unwrap()
    };
    let saved = step_of(order("checkpoint", &address, &admin));
    cluster.load(saved);
    for verb in ["drain", "stop"] {
        let saved = step_of(order(verb, &address, &admin));
        assert_eq!(cluster.server.program.wait(), Exit::Terminated);
        assert_eq!(cluster.checkpoints()[0].0.0, saved, "{verb}");
        cluster.workers[0].wait_until_said("the server stops; waits");
        cluster.start_server_again();
        cluster.wait_for_step(saved + 5);
    }
}

/// Asks the port for probes.
fn is_serving(address: &str) -> Option<bool> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let channel = transport::endpoint(address, &cifar_model::layout()).ok()?;
        let mut client = HealthClient::new(channel.connect().await.ok()?);
        let request = HealthCheckRequest {
            service: String::new(),
        };
        let status = client.check(request).await.ok()?.into_inner().status();
        Some(status.as_str_name() == "SERVING")
    })
}

#[test]
fn health_is_told_unencrypted_and_ends_before_the_last_checkpoint() {
    let authority = Authority::new();
    let server_flags = [
        authority.server_flags(&authority),
        flags(&[("--health", "127.0.0.1:0")]),
    ]
    .concat();
    let mut cluster = with_certificates(&authority)
        .max_steps(1_000_000)
        .server_flags(&words(&server_flags))
        .start();
    let health = cluster.server.program.wait_for("health ADDR", |program| {
        let stdout = program.stdout();
        let line = stdout.lines().find_map(|line| line.strip_prefix("health "));
        line.map(str::to_owned)
    });
    assert_eq!(is_serving(&health), Some(true));
    cluster.wait_for_step(2);
    cluster.server.program.signal(Signal::TERM);
    let after = eventually("another answer than before", || {
        Some(is_serving(&health)).filter(|answer| *answer != Some(true))
    });
    // It may have left between two looks; it never says that it serves when it does not.
    assert!(matches!(after, None | Some(false)));
    assert_eq!(cluster.server.program.wait(), Exit::Terminated);
}

#[test]
fn the_page_asks_for_the_token_too() {
    let authority = Authority::new();
    let mut cluster = Cluster::builder()
        .workers(0)
        .server_flags(&["--token-file", &tokens(&authority), "--http", "127.0.0.1:0"])
        .start();
    let page = cluster.server.program.wait_for("http ADDR", |program| {
        let stdout = program.stdout();
        let line = stdout.lines().find_map(|line| line.strip_prefix("http "));
        line.map(str::to_owned)
    });
    let get = |path: &str, authorization: &str| {
        let header = match authorization {
            "" => String::new(),
            text => format!("Authorization: {text}\r\n"),
        };
        http::get_with(&format!("http://{page}/{path}"), &header)
    };
    let browser = format!("Basic {}", STANDARD.encode(format!("me:{VIEWER_TOKEN}")));
    for path in ["", "run.json", "metrics", "page.js", "events"] {
        let nobody = get(path, "");
        assert!(nobody.starts_with("HTTP/1.1 401"), "{path}: {nobody}");
        assert!(nobody.contains("www-authenticate: Basic"), "{nobody}");
        let worker = get(path, &format!("Bearer {WORKER_TOKEN}"));
        assert!(worker.starts_with("HTTP/1.1 403"), "{path}: {worker}");
    }
    for path in ["", "run.json", "page.js"] {
        for proof in [&browser, &format!("Bearer {ADMIN_TOKEN}")] {
            let answer = get(path, proof);
            assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        }
    }
    assert!(get("healthz", "").starts_with("HTTP/1.1 200"));
    cluster.stop_server();
}

#[test]
fn the_launcher_hands_one_token_to_all() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    let token = authority.secret("token", ADMIN_TOKEN);
    let launch = |token: &str| {
        Program::start(
            command(LAUNCHER)
                .args(["--ps-program", SERVER, "--worker-program", WORKER])
                .args(["--eval-program", EVAL, "--eval", "--token-file", token])
                .args(["--data", "synthetic:64", "--batch-size", "16"])
                .args(["--workers", "2", "--max-steps", "3", "--train-dir"])
                .arg(folder.path().join("run")),
        )
    };
    let mut launcher = launch(&token);
    assert_eq!(launcher.wait(), Exit::Complete);
    let mut launcher = launch(&tokens(&authority));
    assert_eq!(launcher.wait(), Exit::Permanent);
    launcher.assert_said("a client's file holds its one token");
}

#[test]
fn programs_of_another_protocol_are_refused_by_name() {
    let cluster = Cluster::builder().workers(0).start();
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let refused = runtime.block_on(async {
        let layout = cifar_model::layout();
        let client = Client::new(&cluster.server.address, &layout, &Default::default());
        let registration = Registration {
            protocol_version: PROTOCOL_VERSION - 1,
            layout_fingerprint: layout.fingerprint(),
            data_digest: [0; 32],
            numerics: Numerics {
                device: "cpu".to_owned(),
                instruction_set: "avx2".to_owned(),
                kernels: pserver_run::Kernels::Direct,
                threads: 1,
                libtorch: "2".to_owned(),
            },
            name: "old".to_owned(),
        };
        client.unwrap().register(registration).await.unwrap_err()
    });
    let ClientError::Refused { reason } = refused else {
        panic!("{refused}");
    };
    let old = PROTOCOL_VERSION - 1;
    let expected = format!("the worker speaks protocol {old}, the server {PROTOCOL_VERSION}");
    assert!(reason.contains(&expected), "{reason}");

    // Up to protocol 5 the service had another name.
    let words = runtime.block_on(async {
        let credentials = Credentials::default();
        let address = &cluster.server.address;
        let channel = transport::connect(address, &cifar_model::layout(), &credentials).unwrap();
        let request = Request::post("http://server/cifar.ps.v1.ParameterServer/GetRun")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Body::new(Full::from(&[0; 5][..])))
            .unwrap();
        let answer = channel.oneshot(request).await.unwrap();
        Status::from_header_map(answer.headers()).unwrap()
    });
    assert_eq!(words.code(), Code::FailedPrecondition);
    assert!(
        words.message().contains("use programs of one release"),
        "{words}"
    );
}

#[test]
fn a_server_asks_every_new_connection_within_its_deadline() {
    use std::io::Read;
    let authority = Authority::new();
    let cluster = with_certificates(&authority).workers(0).start();
    let mut silent = TcpStream::connect(&cluster.server.address).unwrap();
    silent
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let mut answer = Vec::new();
    // Closed by the server, in words of TLS or without.
    let _ = silent.read_to_end(&mut answer);
    cluster
        .server
        .program
        .wait_until_said("connection is refused");
}
