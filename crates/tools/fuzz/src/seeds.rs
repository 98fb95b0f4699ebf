//! What the fuzzer begins with: bytes as the programs themselves write them, and archives as nobody should.
//!
//! `cargo run --package cifar-fuzz --example seeds` writes them to `fuzz/seeds` when a format has changed.

use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use cifar_data::record::RECORD_BYTES;
use flate2::Compression;
use flate2::write::GzEncoder;
use pserver_events::Histogram;
use pserver_ledger::ScoreRecord;
use pserver_ledger::fixtures::{self, committed, rewound, text, unit};
use pserver_ledger::record::{Dropped, Outcome, Record, Start};
use pserver_run::{
    Confusion, DataSet, EvalData, GlobalStep, Numerics, RunConfig, Score, ScoredVariables,
    StateDigest, Tower, TowerStep,
};
use pserver_state::checkpoint::{self, Checkpoint};
use pserver_state::{TrainingState, Values};
use pserver_wire::client::{Client, ClientError};
use pserver_wire::gradient_slot::Nonce;
use pserver_wire::messages::{
    Activations, Assignment, Attachment, CheckpointReply, CheckpointRequest, Delivery, FollowerId,
    Goodbye, Gradients, LedgerPart, LedgerPosition, Losses, Member, Order, PROTOCOL_VERSION, Pull,
    Push, Pushed, Registered, Registration, SECRET_BYTES, SUMMARY_IMAGE_BYTES, Secret,
    SharedMemory, Status, Then, TowerSummary, Verdict, Work, WorkerId, WorkerStatus,
};
use tar::{EntryType, Header};

use crate::in_memory::with_ends;
use crate::layout::layout;
use crate::pieces::in_pieces;
use crate::recorder::{Answer, Asked, IN_SLOT};
use crate::wire_reply::QUESTIONS;
use crate::wire_request::METHODS;
use crate::{checkpoint as checkpoint_target, scratch};

/// Bytes for a target to begin with.
#[derive(Clone, Debug)]
pub struct Seed {
    /// The target.
    pub target: &'static str,
    /// What it is.
    pub name: String,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// All seeds that can be made.
#[must_use]
pub fn all() -> Vec<Seed> {
    let ledgers = ledgers();
    let of_ledgers = |before: &[u8], after: &[u8]| -> Group {
        let around = |(name, text): &(String, Vec<u8>)| {
            (name.clone(), [before, text.as_slice(), after].concat())
        };
        ledgers.iter().map(around).collect()
    };
    let scores = scores().into_bytes();
    let groups = [
        ("wire_request", requests()),
        ("wire_push", pushes()),
        ("wire_reply", replies()),
        (
            "records",
            vec![("two".to_owned(), [record(0), record(9)].concat())],
        ),
        ("data_folder", data_folders()),
        ("archive", archives()),
        ("checkpoint", checkpoints()),
        ("state_file", state_files()),
        ("ledger", of_ledgers(&[], &[])),
        ("ledger_file", of_ledgers(&[200], &[])),
        ("run_view", of_ledgers(&[], &scores)),
        ("scores", vec![("two".to_owned(), scores.clone())]),
    ];
    let seeds = |(target, group): (&'static str, Group)| {
        let seed = move |(name, bytes)| Seed {
            target,
            name,
            bytes,
        };
        group.into_iter().map(seed)
    };
    groups.into_iter().flat_map(seeds).collect()
}

type Group = Vec<(String, Vec<u8>)>;

fn member() -> Member {
    Member {
        secret: Secret([5; SECRET_BYTES]),
        worker: WorkerId(2),
    }
}

fn tower_step() -> TowerStep {
    TowerStep {
        global_step: GlobalStep(7),
        tower: Tower(1),
    }
}

fn push() -> Push {
    Push {
        member: member(),
        tower_step: tower_step(),
        state_digest: StateDigest(1),
        losses: Losses {
            cross_entropy: 2.0,
            local3_weight_loss: 1.5,
            local4_weight_loss: 1.0,
            total: 4.5,
        },
        examples_digest: [7; 16],
        compute_time: Duration::from_micros(1500),
        attempt: 1,
    }
}

/// Two towers of 4 out of 20 examples.
fn run_config() -> RunConfig {
    RunConfig {
        numerics: Some(Numerics::example(1)),
        ..fixtures::run_config()
    }
}

fn score() -> Score {
    let mut confusion = Confusion::default();
    for label in 0..10 {
        confusion.note(label, label);
        confusion.note(label, (label + 3) % 10);
    }
    Score {
        global_step: GlobalStep(3),
        eval_data: EvalData::Test,
        variables: ScoredVariables::Averages,
        confusion,
    }
}

fn requests() -> Group {
    let registration = Registration {
        protocol_version: PROTOCOL_VERSION,
        layout_fingerprint: layout().fingerprint(),
        data_digest: [3; 32],
        numerics: Numerics::example(1),
        name: "host/1".to_owned(),
    };
    let of_layer = |layer: u8| Activations {
        histogram: Histogram::of(&[0.0, f32::from(layer), -1e-3]),
        sparsity: 0.25,
    };
    let summary = TowerSummary {
        summary_step: GlobalStep(300),
        activations: [1, 2, 3, 4, 5].map(of_layer),
        images: vec![Bytes::from_static(&[9; SUMMARY_IMAGE_BYTES])],
    };
    let held = Some(StateDigest(3));
    let checkpoint = CheckpointRequest {
        follower: FollowerId(9),
        newer_than: Some(GlobalStep(2)),
    };
    let position = LedgerPosition {
        ledger: Some(8),
        offset: 100,
    };
    let asked = [
        Asked::Run,
        Asked::Register(registration),
        Asked::ShareMemory(member()),
        Asked::Attach(member(), Nonce([7; 16])),
        Asked::Pull(Pull {
            member: member(),
            held,
        }),
        Asked::Summarize(member(), summary),
        Asked::Heartbeat(member()),
        Asked::Leave(member()),
        Asked::Status,
        Asked::Checkpoint(checkpoint),
        Asked::Ledger(position),
        Asked::ReportScore(FollowerId(9), score()),
        Asked::FollowerHeartbeat(FollowerId(9)),
        Asked::Administer(Order::Drain),
    ];
    let seed = |asked: Asked| {
        let (method, messages) = sent(asked);
        let number = METHODS.iter().position(|name| *name == method);
        let number = number.expect("it is among them") as u8;
        let [message] = messages.as_slice() else {
            panic!("{method} has one message");
        };
        (
            format!("{method}_{}", message.len()),
            [&[number], message.as_slice()].concat(),
        )
    };
    asked.map(seed).into()
}

/// What a client sends when it asks: the method, and the messages.
fn sent(asked: Asked) -> (String, Vec<Vec<u8>>) {
    sent_by(async |client| asked.ask(client).await)
}

fn sent_by(
    ask: impl AsyncFnOnce(&mut Client) -> Result<(), ClientError>,
) -> (String, Vec<Vec<u8>>) {
    with_ends(|ends| {
        let mut client = ends.puppets_client.clone();
        ends.puppet.says(Bytes::new());
        let _ = ends.wait_for(ask(&mut client));
        ends.puppet.heard()
    })
}

fn pushes() -> Group {
    let values = Values::from([1.0, -2.0, 0.5, 1e-3].as_slice());
    let whole = sent(Asked::Push(push(), values.clone(), Then::Pull)).1;
    let (_, in_slot) = sent_by(async |client| {
        let in_slot = Gradients::InSlot(IN_SLOT.0);
        client.push(push(), in_slot, Then::Nothing).await.map(drop)
    });
    // Three numbers ahead, and the first with all the rest.
    let ahead = |bytes: &[u8]| [&[0x42, bytes.len() as u8], bytes].concat();
    let (first, rest) = values.as_bytes().split_at(4);
    let mut last = whole[0].clone();
    let field = ahead(values.as_bytes());
    let place = last.windows(field.len()).position(|bytes| bytes == field);
    let place = place.expect("the gradients are in the message");
    last.splice(place..place + field.len(), ahead(first));
    let parts = [ahead(&rest[4..]), ahead(&rest[..4]), last];
    let seed = |name: &str, messages: &[Vec<u8>]| {
        let messages: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
        (name.to_owned(), in_pieces(&messages))
    };
    vec![
        seed("whole", &whole),
        seed("in_slot", &in_slot),
        seed("in_parts", &parts),
    ]
}

fn replies() -> Group {
    let work = |variables| {
        Assignment::Work(Work {
            tower_step: tower_step(),
            state_digest: StateDigest(3),
            variables,
            attempt: 2,
            summary_step: Some(GlobalStep(9)),
        })
    };
    let variables = Bytes::from_static(&[1; 16]);
    let status = Status {
        run: run_config(),
        global_step: GlobalStep(7),
        max_steps: GlobalStep(100),
        loss: Some(4.5),
        examples_per_sec: 1000.0,
        activity: "trains".to_owned(),
        workers: vec![WorkerStatus {
            worker: WorkerId(0),
            name: "host/1".to_owned(),
            tower: Some(Tower(1)),
            tower_steps: 3,
            compute_time: Duration::from_micros(1500),
        }],
    };
    let answers = [
        ("run", "run", Answer::Run(run_config())),
        (
            "register",
            "registered",
            Answer::Registered(Registered {
                member: member(),
                lease: Duration::from_secs(15),
            }),
        ),
        (
            "share_memory",
            "offered",
            Answer::SharedMemory(SharedMemory::Offered {
                state_path: "/proc/1/fd/3".into(),
                slot_path: "/proc/1/fd/4".into(),
            }),
        ),
        (
            "share_memory",
            "refused",
            Answer::SharedMemory(SharedMemory::Refused {
                reason: "no".to_owned(),
            }),
        ),
        (
            "attach",
            "attached",
            Answer::Attachment(Attachment::Attached),
        ),
        (
            "pull",
            "sent",
            Answer::Assignment(work(Delivery::Sent(variables.clone()))),
        ),
        (
            "pull",
            "in_state_file",
            Answer::Assignment(work(Delivery::InStateFile { sequence: 4 })),
        ),
        (
            "pull",
            "goodbye",
            Answer::Assignment(Assignment::Goodbye(Goodbye::Complete)),
        ),
        ("pull", "wait", Answer::Assignment(Assignment::Wait)),
        (
            "push_and_pull",
            "accepted",
            Answer::Pushed(Pushed {
                verdict: Verdict::Accepted,
                next: Some(work(Delivery::Sent(variables))),
            }),
        ),
        (
            "push_and_pull",
            "stale",
            Answer::Pushed(Pushed {
                verdict: Verdict::Stale { staleness: 2 },
                next: None,
            }),
        ),
        ("status", "status", Answer::Status(status)),
        (
            "checkpoint",
            "file",
            Answer::Checkpoint(CheckpointReply::Checkpoint {
                global_step: GlobalStep(7),
                file: Bytes::from_static(&[5; 40]),
            }),
        ),
        (
            "checkpoint",
            "wait",
            Answer::Checkpoint(CheckpointReply::Wait),
        ),
        (
            "follow",
            "part",
            Answer::LedgerPart(LedgerPart {
                ledger: 8,
                offset: 100,
                bytes: Bytes::from_static(b"{}\n"),
                size_bytes: 103,
            }),
        ),
    ];
    let seed = |(question, name, answer): (&str, &str, Answer)| {
        let messages = with_ends(|ends| ends.said_by_server(question, answer));
        let messages: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
        let number = QUESTIONS.iter().position(|other| *other == question);
        let number = number.expect("it is among them") as u8;
        let bytes = [&[number], in_pieces(&messages).as_slice()].concat();
        (format!("{question}_{name}"), bytes)
    };
    answers.map(seed).into()
}

/// A record of one colour.
fn record(label: u8) -> Vec<u8> {
    let mut record = vec![100 + label; RECORD_BYTES];
    record[0] = label;
    record
}

fn data_folders() -> Group {
    let (train, test) = (record(3), record(9));
    let seed = |name: &str, is_published: u8, files: &[&[u8]]| {
        let bytes = [&[is_published], in_pieces(files).as_slice()].concat();
        (name.to_owned(), bytes)
    };
    vec![
        seed("whole", 0, &[&train, &test]),
        seed("other", 1, &[&train, &test]),
        seed("cut", 0, &[&train, &test[..100]]),
        seed("missing", 0, &[&train]),
    ]
}

/// Names that an archive may give its entries.
const TRAIN: &str = "cifar-10-batches-bin/data_batch_1.bin";
const TEST: &str = "cifar-10-batches-bin/test_batch.bin";

fn compressed(tar: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(tar).expect("memory can be written");
    gzip.finish().expect("memory can be written")
}

fn archives() -> Group {
    let entry = |name: &str, entry_type: EntryType, contents: &[u8]| {
        let mut header = Header::new_ustar();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(entry_type);
        header.set_size(contents.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend_from_slice(contents);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    };
    let file = |name: &str, contents: &[u8]| entry(name, EntryType::Regular, contents);
    let end = vec![0; 1024];
    let whole = [file(TRAIN, &record(3)), file(TEST, &record(9)), end.clone()].concat();
    let mut far = file(TRAIN, &[]);
    far[124..136].copy_from_slice(b"77777777777\0");
    let mut farther = file("other", &[]);
    farther[124..136].copy_from_slice(&[
        0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    ]);
    let long_name = entry("././@LongLink", EntryType::GNULongName, &[b'a'; 700]);
    let pax = entry(
        "pax",
        EntryType::XHeader,
        b"24 path=../../etc/passwd\n19 size=99999999999\n",
    );
    let sparse = entry(TRAIN, EntryType::GNUSparse, &record(3));
    let odd = |first: Vec<u8>| [first, whole.clone()].concat();
    let seed = |name: &str, kind: u8, tar: &[u8]| (name.to_owned(), [&[kind], tar].concat());
    vec![
        seed("whole", 1, &whole),
        seed("compressed", 0, &compressed(&whole)),
        seed(
            "folder",
            2,
            &entry("cifar-10-batches-bin/", EntryType::Directory, &[]),
        ),
        seed("outside", 2, &file("../outside", b"x")),
        seed("absolute", 2, &file("/tmp/outside", b"x")),
        seed("symlink", 2, &entry(TEST, EntryType::Symlink, &[])),
        seed("hard_link", 2, &entry(TEST, EntryType::Link, &[])),
        seed("huge", 2, &far),
        seed("huger", 2, &farther),
        seed("long_name", 2, &odd(long_name)),
        seed("pax", 2, &odd(pax)),
        seed("sparse", 2, &sparse),
        seed(
            "text",
            2,
            &odd(file("cifar-10-batches-bin/readme.html", b"<p>")),
        ),
        seed("twice", 2, &odd(file(TRAIN, &record(3)))),
        seed("cut", 1, &whole[..whole.len() / 2]),
    ]
}

fn checkpoints() -> Group {
    let numbers: Vec<f32> = (0..9_u8).map(f32::from).collect();
    let mut state = TrainingState::initial(Values::from(numbers.as_slice()));
    state.global_step = GlobalStep(12);
    state.averages[3] = -1.0;
    let layout = checkpoint_target::layout();
    let folder = scratch::folder();
    let saved = checkpoint::save(folder.path(), &layout, &state, &run_config());
    let whole = std::fs::read(saved.expect("it can be saved")).expect("it is there");
    let averages = Checkpoint {
        state,
        run: Some(run_config()),
    };
    let mut averages = averages.scorable(ScoredVariables::Averages);
    let mut alone = |run| {
        averages.run = run;
        let saved = checkpoint::save_averages(folder.path(), &layout, &averages);
        std::fs::read(saved.expect("they can be saved")).expect("it is there")
    };
    let (alone, of_no_run) = (alone(Some(run_config())), alone(None));
    vec![
        ("by_another_program".to_owned(), without_metadata(&whole)),
        ("whole".to_owned(), whole),
        ("averages".to_owned(), alone),
        ("averages_of_no_run".to_owned(), of_no_run),
    ]
}

/// A safetensors file without what its header tells besides the tensors.
fn without_metadata(file: &[u8]) -> Vec<u8> {
    let (length, rest) = file.split_first_chunk().expect("it has a header");
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let mut header: serde_json::Value = serde_json::from_slice(header).expect("it is JSON");
    let tensors = header.as_object_mut().expect("it is an object");
    tensors.remove("__metadata__");
    let mut header = header.to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    [
        &(header.len() as u64).to_le_bytes(),
        header.as_slice(),
        data,
    ]
    .concat()
}

fn state_files() -> Group {
    let uncut = u16::MAX.to_le_bytes();
    let seed = |name: &str, length: [u8; 2], changes: &[(u16, &[u8])]| {
        let changes: Vec<Vec<u8>> = changes
            .iter()
            .map(|(place, piece)| [&place.to_le_bytes(), *piece].concat())
            .collect();
        let changes: Vec<&[u8]> = changes.iter().map(Vec::as_slice).collect();
        let bytes = [length.as_slice(), &in_pieces(&changes)].concat();
        (name.to_owned(), bytes)
    };
    vec![
        seed("unchanged", uncut, &[]),
        seed("cut", 20_000_u16.to_le_bytes(), &[]),
        seed("header", uncut, &[(48, &[2])]),
        seed("sequence", uncut, &[(64, &[1])]),
        seed("slot", uncut, &[(4096, &[1, 2, 3]), (4096 + 40, &[255])]),
        seed("numbers", uncut, &[(8192, &[9; 8]), (12_300, &[0; 4])]),
    ]
}

fn start(step: u64) -> Record {
    Record::Start(Start {
        run: run_config(),
        ..fixtures::start(step)
    })
}

fn joined(worker: u32) -> Record {
    fixtures::joined(worker, &format!("host/{worker}"))
}

fn ledgers() -> Group {
    let of = unit(1, 0);
    let ended = |step, outcome| Record::End {
        global_step: GlobalStep(step),
        outcome,
    };
    let mut whole = vec![start(0), joined(0), joined(1)];
    whole.extend((0..5).map(committed));
    whole.push(ended(5, Outcome::Complete));
    let gone_back = vec![
        start(0),
        joined(0),
        joined(1),
        committed(0),
        committed(1),
        start(1),
        rewound(1),
        joined(0),
        committed(1),
        ended(2, Outcome::Stopped),
    ];
    let reason = "nonsense".to_owned();
    let eventful = vec![
        start(0),
        joined(0),
        joined(1),
        Record::Overdue {
            of,
            slow: 0,
            also_given_to: 1,
        },
        Record::Dropped {
            of,
            worker: 0,
            reason: Dropped::Duplicate,
        },
        Record::InDoubt {
            of,
            worker: 1,
            reason: reason.clone(),
        },
        Record::Audited {
            of,
            workers: [0, 1],
            equal: false,
        },
        committed(0),
        committed(1),
        Record::Quarantined { worker: 1, reason },
        Record::Checkpoint {
            global_step: GlobalStep(2),
        },
        Record::StoodStill {
            waits_for: "workers".to_owned(),
        },
        Record::Suspended {
            pause_micros: 5_000_000,
        },
        Record::Left { worker: 0 },
        Record::Lost { worker: 1 },
        ended(2, Outcome::Diverged),
    ];
    let lines = |records: Vec<Record>| text(records).into_bytes();
    vec![
        ("whole".to_owned(), lines(whole)),
        ("rewound".to_owned(), lines(gone_back)),
        ("eventful".to_owned(), lines(eventful)),
    ]
}

fn scores() -> String {
    let record = ScoreRecord {
        at_micros: 1_700_000_000_000_000,
        checkpoint: "model.ckpt-3.safetensors".to_owned(),
        data: DataSet::Cifar10,
        score: score(),
    };
    let mut later = record.clone();
    later.score.global_step = GlobalStep(4);
    later.data = DataSet::Synthetic { num_examples: 20 };
    record.to_line() + &later.to_line()
}
