//! A server is attacked while two honest workers train: each attack gets the answer that it should, the
//! server takes no memory for it, and the run ends with the bits of an undisturbed one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::future::poll_fn;
use std::io::{Read, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cifar_bench::fake_worker::{Answers, gradient};
use cifar_data::manifest::Manifest;
use cifar_data::unpack::Unpacking;
use http_body_util::Full;
use pserver_cli::exit::Exit;
use pserver_guard::Credentials;
use pserver_guard::connection::{Refusal, connect};
use pserver_guard::limits::{ENTRY_DEADLINE, MAX_ANSWERS_OF_PEER, MAX_STREAMS, raise_open_files};
use pserver_ledger::Record;
use pserver_run::{GlobalStep, Layout, RunConfig, StateDigest, TowerStep};
use pserver_state::Values;
use pserver_wire::client::{Client, ClientError};
use pserver_wire::messages::{
    Assignment, Goodbye, Gradients, Member, PROTOCOL_VERSION, Pull, Push, Registration,
    SECRET_BYTES, SharedMemory, Then, Verdict, Work, WorkerId,
};
use pserver_wire::transport;
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{self, Runtime};
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{Request, Response};

use crate::authority::{Authority, Good, credentials, flags, words};
use crate::cluster::Cluster;
use crate::program::{DEADLINE, Program, SERVER, command, eventually};

/// How much the server may grow: a few gradients, and buffers of connections.
const MAX_GROWTH_BYTES: u64 = 256 << 20;

const FLOOD: usize = 2000;

/// What the attackers have: an address, certificates and tokens.
struct Enemy {
    address: String,
    authority: Authority,
    runtime: Runtime,
    layout: Layout,
    table: Vec<(&'static str, String)>,
}

impl Enemy {
    /// Credentials of a certificate and a token, of which either may be missing.
    fn credentials(&self, certificate: Option<[&str; 2]>, token: Option<&str>) -> Credentials {
        let ca = self.authority.ca();
        let mut given = flags(&[("--tls-ca", &ca)]);
        if let Some([name, role]) = certificate {
            given = self.authority.client_flags(name, role);
        }
        if let Some(token) = token {
            // A file of its own: who has another token open reads it again when it changes.
            let file = format!("shown-{}", &token[..6]);
            let file = self.authority.secret(&file, token);
            given.extend(flags(&[("--token-file", &file)]));
        }
        credentials(&given)
    }

    fn client(&self, credentials: &Credentials) -> Client {
        let _context = self.runtime.enter();
        Client::new(&self.address, &self.layout, credentials).unwrap()
    }

    /// Notes what an attack got, which has to have `words` in it.
    #[track_caller]
    fn note(&mut self, attack: &'static str, got: impl ToString, words: &str) {
        let got = got.to_string();
        assert!(got.contains(words), "{attack} got: {got}");
        self.table.push((attack, got));
    }

    /// Asks what the run is with these credentials; the refusal.
    fn refused(&self, credentials: &Credentials) -> ClientError {
        let answer = self.runtime.block_on(self.client(credentials).run());
        let error = answer.expect_err("nobody may ask like this");
        assert!(!error.is_transient(), "{error}");
        error
    }
}

fn token_of(role: &str) -> String {
    format!("{role}-token-0123456789")
}

#[test]
fn attacks_are_answered_and_change_nothing() {
    raise_open_files();
    let authority = Authority::new();
    let roles = ["worker", "viewer", "admin"];
    let lines = roles.map(|role| format!("{role} {}\n", token_of(role)));
    let tokens = authority.secret("tokens", &lines.concat());
    let server_flags = [
        authority.server_flags(&authority),
        flags(&[("--token-file", &tokens)]),
    ]
    .concat();
    let honest = |name: &str, role: &str| {
        let token = authority.secret(role, &token_of(role));
        let certificate = authority.client_flags(name, role);
        [certificate, flags(&[("--token-file", &token)])].concat()
    };
    let (worker, admin) = (honest("honest", "worker"), honest("boss", "admin"));
    let mut cluster = Cluster::builder()
        .workers(2)
        .max_steps(1_000_000)
        .server_flags(&words(&server_flags))
        .worker_flags(&words(&worker))
        .credentials(credentials(&admin))
        .start();
    cluster.wait_for_step(20);
    let process = cluster.server.program.id();
    let before = resident_bytes(process);

    let mut enemy = Enemy {
        address: cluster.server.address.clone(),
        authority,
        runtime: runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap(),
        layout: cifar_model::layout(),
        table: Vec::new(),
    };
    let loris = [slow_handshake(&enemy.address), half_request(&enemy)];

    who_are_you(&mut enemy, &Authority::new());
    let mut mallory = Mallory::join(&enemy);
    wrong_requests(&mut enemy, &mut mallory);
    // No step ends meanwhile, so each pull is answered with the variables of the same one.
    cluster
        .workers
        .iter()
        .for_each(|worker| worker.signal(Signal::STOP));
    unread(&mut enemy, &mut mallory);
    cluster
        .workers
        .iter()
        .for_each(|worker| worker.signal(Signal::CONT));
    nonsense(&mut enemy, &mut mallory);
    conspiracy(&mut enemy, &mut mallory);
    garbage(&mut enemy);
    for (attack, waited) in ["a handshake that never ends", "half of a request"]
        .into_iter()
        .zip(loris.map(|waiting| waiting.join().unwrap()))
    {
        let limit = ENTRY_DEADLINE + Duration::from_secs(10);
        assert!(
            (ENTRY_DEADLINE..limit).contains(&(waited + Duration::from_secs(1))),
            "{attack}: {waited:?}"
        );
        enemy.note(
            attack,
            format!("closed after {:.1} s", waited.as_secs_f64()),
            "closed",
        );
    }
    flood(&mut enemy);
    archive(&mut enemy);

    let after = resident_bytes(process);
    let grown = after.saturating_sub(before);
    let order = Program::start(
        command(SERVER)
            .args(["stop", "--server", &enemy.address])
            .args(&admin),
    );
    let step = finish(order);
    assert_eq!(cluster.server.program.wait(), Exit::Terminated);
    let attacked: StateDigest = cluster.load(step).state.digest();
    eprintln!("{}", shown(&enemy.table));
    eprintln!(
        "the server's memory grew by {} MB over {step} steps",
        grown >> 20
    );
    assert!(grown < MAX_GROWTH_BYTES, "the server grew by {grown} bytes");
    for worker in &cluster.workers {
        assert!(
            !worker.stderr().contains("quarantine"),
            "{}",
            worker.stderr()
        );
    }
    let mut undisturbed = Cluster::builder().workers(2).max_steps(step).start();
    assert_eq!(undisturbed.finish(), attacked);
}

/// Without TLS and tokens everybody may register; but then, too, nobody acts for another worker.
#[test]
fn a_worker_cannot_act_under_the_number_of_another() {
    let mut cluster = Cluster::builder().workers(2).max_steps(1_000_000).start();
    cluster.wait_for_step(5);
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let layout = cifar_model::layout();
    runtime.block_on(async {
        let address = &cluster.server.address;
        let mut client = Client::new(address, &layout, &Credentials::default()).unwrap();
        let run = client.run().await.unwrap();
        let own = register(&mut client, &run).await;
        let work = work(&mut client, own).await;
        let mut nonsense = gradient(&layout, 1);
        nonsense.fill(f32::NAN);
        let mut answers = Answers::new(&run, &nonsense);
        for worker in [0, 1].map(WorkerId) {
            let other = Member { worker, ..own };
            let (push, gradients) = answers.to(other, &work);
            let verdict = hand_in(&mut client, push, gradients).await.unwrap();
            assert_eq!(verdict, Verdict::Unregistered);
            let pull = Pull {
                member: other,
                held: None,
            };
            let assignment = client.pull(pull).await.unwrap();
            assert!(matches!(assignment, Assignment::Unregistered));
            let memory = client.share_memory(other).await.unwrap();
            assert!(matches!(memory, SharedMemory::Unregistered));
            client.leave(other).await.unwrap();
        }
        client.leave(own).await.unwrap();
    });
    let step = cluster.wait_for_step(0).0;
    cluster.wait_for_step(step + 20);
    let wrong = cluster.ledger().into_iter().filter(|record| {
        matches!(
            record,
            Record::Quarantined { .. } | Record::Left { worker: 0 | 1 } | Record::InDoubt { .. }
        )
    });
    let wrong: Vec<Record> = wrong.collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// The step that a server has stopped at.
fn finish(mut order: Program) -> u64 {
    assert_eq!(order.wait(), Exit::Complete);
    let printed = order.stdout();
    let step = printed.strip_prefix("step ").unwrap();
    step.trim().parse().unwrap()
}

fn who_are_you(enemy: &mut Enemy, theirs: &Authority) {
    let worker = Some(["mallory", "worker"]);
    let token = token_of("worker");
    let got = enemy.refused(&enemy.credentials(worker, None));
    enemy.note("no token", got, "asks for a token");
    let got = enemy.refused(&enemy.credentials(worker, Some("guessed-token-0123456789")));
    enemy.note("a wrong token", got, "does not know the token");
    let got = enemy.refused(&enemy.credentials(None, Some(&token)));
    enemy.note("no certificate", got, "asks for a certificate");

    let mut stranger = theirs.client_flags("mallory", "worker");
    stranger[1] = enemy.authority.ca();
    let got = enemy.refused(&credentials(&stranger));
    enemy.note(
        "a certificate of another authority",
        got,
        "does not accept the certificate",
    );
    // A client of this project reads no certificate that is over, so this one ends after that.
    let (begun, lasts) = (Instant::now(), Duration::from_secs(3));
    let good = Good::For(lasts);
    let [certificate, key] = enemy.authority.issue("late", "worker", good);
    let ca = enemy.authority.ca();
    let expired = flags(&[
        ("--tls-ca", &ca),
        ("--tls-cert", &certificate),
        ("--tls-key", &key),
    ]);
    let expired = credentials(&expired);
    let second = Duration::from_secs(1);
    eventually("the end of a certificate", || {
        (begun.elapsed() > lasts + second).then_some(())
    });
    let got = enemy.refused(&expired);
    enemy.note("an expired certificate", got, "CertificateExpired");
    let got = enemy.refused(&enemy.credentials(Some(["eve", "viewer"]), Some(&token)));
    enemy.note(
        "a viewer's certificate with a worker's token",
        got,
        "may not do this",
    );
}

/// A worker with valid credentials that means no good.
struct Mallory {
    client: Client,
    credentials: Credentials,
    run: RunConfig,
    member: Member,
}

impl Mallory {
    fn join(enemy: &Enemy) -> Self {
        let token = token_of("worker");
        let credentials = enemy.credentials(Some(["mallory", "worker"]), Some(&token));
        let mut client = enemy.client(&credentials);
        let (run, member) = enemy.runtime.block_on(async {
            let run = client.run().await.unwrap();
            let member = register(&mut client, &run).await;
            (run, member)
        });
        Mallory {
            client,
            credentials,
            run,
            member,
        }
    }
}

async fn register(client: &mut Client, run: &RunConfig) -> Member {
    let registration = Registration {
        protocol_version: PROTOCOL_VERSION,
        layout_fingerprint: cifar_model::layout().fingerprint(),
        data_digest: run.data.digest(),
        numerics: run
            .numerics
            .clone()
            .expect("honest workers have come before"),
        name: "honest/1".to_owned(),
    };
    client.register(registration).await.unwrap().member
}

/// Work that nobody else has, however long it takes until there is some.
async fn work(client: &mut Client, member: Member) -> Work {
    loop {
        match client.pull(Pull { member, held: None }).await.unwrap() {
            Assignment::Work(work) => return work,
            Assignment::Wait => {}
            other => panic!("a worker is told {other:?}"),
        }
    }
}

/// Hands a gradient in; the answer to it.
async fn hand_in(
    client: &mut Client,
    push: Push,
    gradients: Gradients,
) -> Result<Verdict, ClientError> {
    let pushed = client.push(push, gradients, Then::Nothing).await?;
    Ok(pushed.verdict)
}

fn wrong_requests(enemy: &mut Enemy, mallory: &mut Mallory) {
    let sent = |values: Values| Gradients::Sent(vec![Bytes::copy_from_slice(values.as_bytes())]);
    let values = gradient(&enemy.layout, 1);
    let mut answers = Answers::new(&mallory.run, &values);
    let Mallory {
        client,
        credentials,
        member,
        ..
    } = mallory;
    let member = *member;
    let given = enemy.runtime.block_on(work(client, member));
    let (push, _) = answers.to(member, &given);

    let viewer = enemy.credentials(Some(["eve", "viewer"]), Some(&token_of("viewer")));
    let mut eve = enemy.client(&viewer);
    let got = enemy
        .runtime
        .block_on(hand_in(&mut eve, push, sent(values.clone())));
    enemy.note(
        "a viewer that pushes",
        got.unwrap_err(),
        "the role worker or admin is needed",
    );

    let short = Values::zeros(1000);
    let got = enemy.runtime.block_on(hand_in(client, push, sent(short)));
    enemy.note(
        "gradients of the wrong shape",
        got.unwrap_err(),
        "gradients have 4000 bytes",
    );
    let long = Values::zeros(2 * enemy.layout.num_values());
    let got = enemy.runtime.block_on(hand_in(client, push, sent(long)));
    enemy.note("gradients without end", got.unwrap_err(), "gradients have");

    let got = oversized(enemy, credentials);
    enemy.note("a message of 16 MiB", got, "grpc-status 11");

    let mut other = push;
    other.member.worker = WorkerId(0);
    let got = enemy
        .runtime
        .block_on(hand_in(client, other, sent(values.clone())));
    enemy.note(
        "a push as another worker",
        format!("{:?}", got.unwrap()),
        "Unregistered",
    );
    let mut nobody = push;
    nobody.member.worker = WorkerId(77_777);
    let got = enemy
        .runtime
        .block_on(hand_in(client, nobody, sent(values.clone())));
    enemy.note(
        "a push as nobody",
        format!("{:?}", got.unwrap()),
        "Unregistered",
    );

    let mut old = push;
    old.tower_step.global_step = GlobalStep(0);
    for _ in 0..2 {
        let got = enemy
            .runtime
            .block_on(hand_in(client, old, sent(values.clone())));
        let got = got.unwrap();
        assert!(matches!(got, Verdict::Stale { .. }), "{got:?}");
    }
    enemy.note("a push of long ago, again and again", "Stale", "Stale");
}

/// The status that a message gets whose head says that it is larger than any.
fn oversized(enemy: &Enemy, credentials: &Credentials) -> String {
    const HEAD: &str = "\0\u{1}\0\0\0";
    let _context = enemy.runtime.enter();
    let mut channel = transport::connect(&enemy.address, &enemy.layout, credentials).unwrap();
    let request = Request::post("http://server/pserver.v1.ParameterServer/Register")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::new(HEAD.to_owned() + &"x".repeat(1 << 20)))
        .unwrap();
    enemy.runtime.block_on(async {
        poll_fn(|context| channel.poll_ready(context))
            .await
            .unwrap();
        let answer = channel.call(request).await.unwrap();
        let status = answer.headers().get("grpc-status");
        let status = status.and_then(|status| status.to_str().ok());
        format!("grpc-status {}", status.unwrap_or("none"))
    })
}

/// Not a number, again and again: each time the worker is put into quarantine, and has to join anew.
fn nonsense(enemy: &mut Enemy, mallory: &mut Mallory) {
    let mut values = gradient(&enemy.layout, 1);
    values[7] = f32::NAN;
    let mut answers = Answers::new(&mallory.run, &values);
    let Mallory {
        client,
        run,
        member,
        ..
    } = mallory;
    let mut verdicts: BTreeMap<String, usize> = BTreeMap::new();
    let last = enemy.runtime.block_on(async {
        let mut count = |verdict: String| *verdicts.entry(verdict).or_default() += 1;
        for _ in 0..3 {
            let until = Instant::now() + DEADLINE;
            loop {
                assert!(Instant::now() < until, "it is never put into quarantine");
                let pull = Pull {
                    member: *member,
                    held: None,
                };
                match client.pull(pull).await.unwrap() {
                    Assignment::Work(work) => {
                        let (push, gradients) = answers.to(*member, &work);
                        let verdict = hand_in(client, push, gradients).await.unwrap();
                        count(
                            format!("{verdict:?}")
                                .split(['(', ' '])
                                .next()
                                .unwrap()
                                .to_owned(),
                        );
                    }
                    Assignment::Wait => {}
                    Assignment::Goodbye(goodbye) => {
                        count(format!("{goodbye:?}"));
                        break;
                    }
                    other => panic!("{other:?}"),
                }
            }
            *member = register(client, run).await;
        }
        client.leave(*member).await
    });
    last.unwrap();
    assert_eq!(verdicts.get("Accepted"), None, "{verdicts:?}");
    enemy.note("a flood of NaN", format!("{verdicts:?}"), "Quarantined");
}

/// Pulls whose variables nobody reads, each of which would keep the state of its step in memory.
fn unread(enemy: &mut Enemy, mallory: &mut Mallory) {
    const CONNECTIONS: usize = 5;
    enemy
        .runtime
        .block_on(work(&mut mallory.client, mallory.member));
    let pull = pull_request(mallory.member);
    let connections: Vec<_> = {
        let _context = enemy.runtime.enter();
        let connect = |_| transport::connect(&enemy.address, &enemy.layout, &mallory.credentials);
        (0..CONNECTIONS).map(|at| connect(at).unwrap()).collect()
    };
    let answers = enemy.runtime.block_on(async {
        let mut asked = tokio::task::JoinSet::new();
        for channel in &connections {
            for _ in 0..MAX_STREAMS - 2 {
                let request = Request::post("http://server/pserver.v1.ParameterServer/Pull")
                    .header("content-type", "application/grpc")
                    .header("te", "trailers")
                    .body(Body::new(Full::new(pull.clone())))
                    .unwrap();
                let mut channel = channel.clone();
                asked.spawn(async move {
                    poll_fn(|context| channel.poll_ready(context))
                        .await
                        .unwrap();
                    channel.call(request).await.unwrap()
                });
            }
        }
        asked.join_all().await
    });
    let is_refused = |answer: &&Response<Body>| {
        let status = answer.headers().get("grpc-status");
        status.is_some_and(|status| status == "14")
    };
    let refused = answers.iter().filter(is_refused).count();
    let begun = answers.len() - refused;
    // What fits the window of a connection is under way no more.
    assert!(begun <= MAX_ANSWERS_OF_PEER + CONNECTIONS, "{begun}");
    enemy.note(
        "pulls that are not read",
        format!(
            "{begun} of {} are begun, the others unavailable",
            answers.len()
        ),
        "unavailable",
    );
    // The server notices in its own time that nobody will read them.
    drop((answers, connections));
    let (member, held) = (mallory.member, None);
    eventually("an answer to a pull that is read", || {
        let answer = mallory.client.pull(Pull { member, held });
        let answer = enemy.runtime.block_on(answer);
        let is_refused = answer.as_ref().is_err_and(ClientError::is_transient);
        (!is_refused).then(|| answer.unwrap())
    });
}

/// A pull as it travels.
fn pull_request(member: Member) -> Bytes {
    let mut of_member = vec![0x08];
    prost::encoding::encode_varint(member.worker.0.into(), &mut of_member);
    of_member.extend([0x12, SECRET_BYTES as u8]);
    of_member.extend(member.secret.0);
    let mut message = vec![
        0,
        0,
        0,
        0,
        of_member.len() as u8 + 2,
        0x0a,
        of_member.len() as u8,
    ];
    message.extend(of_member);
    message.into()
}

/// Two workers of one certificate that confirm each other's nonsense: the good ones are asked all the same.
fn conspiracy(enemy: &mut Enemy, mallory: &mut Mallory) {
    let mut values = gradient(&enemy.layout, 1);
    values[7] = f32::NAN;
    let answers = Answers::new(&mallory.run, &values);
    let Mallory {
        client: first,
        credentials,
        run,
        ..
    } = mallory;
    let mut second = enemy.client(credentials);
    let both_spoil_one = async {
        loop {
            let members = (register(first, run).await, register(&mut second, run).await);
            let (one, other) = tokio::join!(
                spoil(first, members.0, answers.clone()),
                spoil(&mut second, members.1, answers.clone())
            );
            if let Some(both) = one.intersection(&other).next() {
                return *both;
            }
        }
    };
    let confirmed = enemy
        .runtime
        .block_on(async { tokio::time::timeout(DEADLINE, both_spoil_one).await })
        .expect("they spoil one tower step and are put into quarantine");
    enemy.note(
        "two workers that push NaN for the same tower step",
        format!("both of {confirmed}: Quarantined"),
        "Quarantined",
    );
}

/// Pushes nonsense until the worker is put into quarantine; for which tower steps.
async fn spoil(client: &mut Client, member: Member, mut answers: Answers) -> BTreeSet<TowerStep> {
    let mut spoilt = BTreeSet::new();
    loop {
        match client.pull(Pull { member, held: None }).await.unwrap() {
            Assignment::Work(work) => {
                let (push, gradients) = answers.to(member, &work);
                match hand_in(client, push, gradients).await.unwrap() {
                    Verdict::InDoubt => drop(spoilt.insert(work.tower_step)),
                    Verdict::Stale { .. } | Verdict::Goodbye(Goodbye::Quarantined) => {}
                    other => panic!("nonsense is told {other:?}"),
                }
            }
            Assignment::Wait => {}
            Assignment::Goodbye(Goodbye::Quarantined) => return spoilt,
            other => panic!("a worker is told {other:?}"),
        }
    }
}

fn garbage(enemy: &mut Enemy) {
    let mut stream = TcpStream::connect(&enemy.address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let noise: Vec<u8> = (0..100_000_u32)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    // It may be cut off before it has sent all.
    let _ = stream.write_all(&noise);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(answer.len() < 100, "{answer:?}");
    enemy.note(
        "garbage",
        format!("closed, after {} bytes", answer.len()),
        "closed",
    );
}

/// Waits for the end of a connection on which only the beginning of a handshake is sent.
fn slow_handshake(address: &str) -> JoinHandle<Duration> {
    let mut stream = TcpStream::connect(address).unwrap();
    thread::spawn(move || {
        let began = Instant::now();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.write_all(&[0x16, 3]).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
        began.elapsed()
    })
}

/// The same of one that is good, with half of a request.
fn half_request(enemy: &Enemy) -> JoinHandle<Duration> {
    let credentials = enemy.credentials(Some(["mallory", "worker"]), None);
    let (host, port) = enemy.address.rsplit_once(':').unwrap();
    let (host, port) = (host.to_owned(), port.parse().unwrap());
    let waiting = enemy.runtime.spawn(async move {
        let tls = credentials.tls();
        let mut stream = connect(&host, port, tls, Refusal::default()).await.unwrap();
        let began = Instant::now();
        // What every connection of HTTP/2 begins with, its settings, and the head of half a request.
        stream
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .await
            .unwrap();
        stream
            .write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0])
            .await
            .unwrap();
        stream
            .write_all(&[0, 0, 100, 1, 0, 0, 0, 0, 1])
            .await
            .unwrap();
        stream.flush().await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
        began.elapsed()
    });
    let handle = enemy.runtime.handle().clone();
    thread::spawn(move || handle.block_on(waiting).unwrap())
}

/// Many connections at once: an honest client is answered all the same.
fn flood(enemy: &mut Enemy) {
    let connections: Vec<TcpStream> = (0..FLOOD)
        .filter_map(|_| TcpStream::connect(&enemy.address).ok())
        .collect();
    let viewer = enemy.credentials(Some(["eve", "viewer"]), Some(&token_of("viewer")));
    let began = Instant::now();
    let mut client = enemy.client(&viewer);
    let answer = enemy.runtime.block_on(async {
        loop {
            match client.run().await {
                Err(error) if error.is_transient() && began.elapsed() < DEADLINE => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                answer => return answer,
            }
        }
    });
    answer.unwrap();
    let waited = began.elapsed();
    let is_open = |stream: &TcpStream| {
        stream.set_nonblocking(true).unwrap();
        let read = (&mut &*stream).read(&mut [0]);
        read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    };
    let open = connections.iter().filter(|stream| is_open(stream)).count();
    assert!(open <= 300, "{open} are still open");
    enemy.note(
        "a flood of 2,000 connections",
        format!(
            "{open} may wait, the others were closed; a viewer is answered after {} ms",
            waited.as_millis()
        ),
        "closed",
    );
}

/// An archive of a data set whose entry leads out of its folder.
fn archive(enemy: &mut Enemy) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("archive.tar.gz");
    fs::write(&path, archive_with("../outside")).unwrap();
    let data_dir = folder.path().join("data");
    fs::create_dir(&data_dir).unwrap();
    let got = Unpacking::start(&Manifest::cifar10(), &path, &data_dir).unwrap_err();
    assert!(!folder.path().join("outside").exists());
    assert_eq!(names(&data_dir), 0);
    enemy.note("an archive with ../", got, "leads out of its folder");
}

fn names(folder: &Path) -> usize {
    fs::read_dir(folder).unwrap().count()
}

/// A tar archive in gzip form with one empty entry of this name, which a library would not write.
fn archive_with(name: &str) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    let bytes = header.as_mut_bytes();
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    header.set_size(0);
    header.set_mode(0o644);
    header.set_cksum();
    let encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut archive = tar::Builder::new(encoder);
    archive.append(&header, &[][..]).unwrap();
    archive.into_inner().unwrap().finish().unwrap()
}

/// What a process has in memory.
fn resident_bytes(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes: u64 = line
        .unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap();
    kilobytes << 10
}

fn shown(table: &[(&str, String)]) -> String {
    let mut text = String::from("attack | what it got\n---|---\n");
    for (attack, got) in table {
        writeln!(text, "{attack} | {got}").unwrap();
    }
    text
}
