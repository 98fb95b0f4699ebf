//! Messages from and to the generated types. What arrives is checked here, and what comes as JSON by the types that it
//! is read into.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use pserver_events::Histogram;
use pserver_events::histogram::Moments;
use pserver_run::{GlobalStep, Numerics, StateDigest, Tower, TowerStep, printable};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::gradient_slot::{Generation, Nonce};
use crate::messages::{
    Activations, Assignment, Attachment, Delivery, Goodbye, Gradients, Losses, MAX_NAME_BYTES,
    MAX_SUMMARY_IMAGES, Malformed, Member, Order, Pull, Push, Pushed, Registered, Registration,
    SUMMARY_IMAGE_BYTES, Secret, SharedMemory, Then, TowerSummary, Verdict, Work, WorkerId,
};
use crate::pb;
use crate::transport::PART_BYTES;

impl From<Malformed> for tonic::Status {
    fn from(malformed: Malformed) -> Self {
        tonic::Status::invalid_argument(malformed.to_string())
    }
}

pub(crate) fn present<T>(field: &'static str, value: Option<T>) -> Result<T, Malformed> {
    value.ok_or(Malformed::Missing(field))
}

fn fixed<const N: usize>(field: &'static str, bytes: &Bytes) -> Result<[u8; N], Malformed> {
    let size = |_| Malformed::Size {
        field,
        found: bytes.len(),
        expected: N,
    };
    <[u8; N]>::try_from(bytes.as_ref()).map_err(size)
}

/// What a worker calls itself, as log, ledger, page and terminal can show it.
fn short(field: &'static str, name: &str) -> Result<String, Malformed> {
    let name = printable(name);
    if name.len() <= MAX_NAME_BYTES {
        return Ok(name);
    }
    Err(Malformed::Value {
        field,
        reason: format!("{} bytes, at most {MAX_NAME_BYTES} are taken", name.len()),
    })
}

/// What files hold too, as the text that stands there.
pub(crate) fn to_json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("it is numbers and names")
}

pub(crate) fn from_json<T: DeserializeOwned>(
    field: &'static str,
    text: &str,
) -> Result<T, Malformed> {
    serde_json::from_str(text).map_err(|error| Malformed::Value {
        field,
        reason: error.to_string(),
    })
}

fn digest_to_pb(digest: StateDigest) -> Bytes {
    Bytes::copy_from_slice(&digest.0.to_be_bytes())
}

fn digest_from_pb(field: &'static str, bytes: &Bytes) -> Result<StateDigest, Malformed> {
    fixed(field, bytes).map(|bytes| StateDigest(u128::from_be_bytes(bytes)))
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl From<Member> for pb::Member {
    fn from(member: Member) -> Self {
        pb::Member {
            worker: member.worker.0,
            secret: Bytes::copy_from_slice(&member.secret.0),
        }
    }
}

impl TryFrom<pb::Member> for Member {
    type Error = Malformed;

    fn try_from(member: pb::Member) -> Result<Self, Malformed> {
        let secret = fixed("member.secret", &member.secret)?;
        Ok(Member {
            worker: WorkerId(member.worker),
            secret: Secret(secret),
        })
    }
}

pub(crate) fn member(member: Option<pb::Member>) -> Result<Member, Malformed> {
    present("member", member)?.try_into()
}

impl From<Registration> for pb::RegisterRequest {
    fn from(registration: Registration) -> Self {
        pb::RegisterRequest {
            protocol_version: registration.protocol_version,
            layout_fingerprint: registration.layout_fingerprint,
            data_digest: Bytes::copy_from_slice(&registration.data_digest),
            numerics: to_json(&registration.numerics),
            name: registration.name,
        }
    }
}

impl TryFrom<pb::RegisterRequest> for Registration {
    type Error = Malformed;

    fn try_from(request: pb::RegisterRequest) -> Result<Self, Malformed> {
        Ok(Registration {
            protocol_version: request.protocol_version,
            layout_fingerprint: request.layout_fingerprint,
            data_digest: fixed("data_digest", &request.data_digest)?,
            numerics: numerics(&request.numerics)?,
            name: match request.name.trim() {
                "" => "unnamed".to_owned(),
                name => short("name", name)?,
            },
        })
    }
}

fn numerics(text: &str) -> Result<Numerics, Malformed> {
    let numerics: Numerics = from_json("numerics", text)?;
    Ok(Numerics {
        device: short("numerics.device", &numerics.device)?,
        instruction_set: short("numerics.instruction_set", &numerics.instruction_set)?,
        libtorch: short("numerics.libtorch", &numerics.libtorch)?,
        ..numerics
    })
}

impl From<Registered> for pb::RegisterReply {
    fn from(registered: Registered) -> Self {
        let lease_millis = u64::try_from(registered.lease.as_millis()).unwrap_or(u64::MAX);
        pb::RegisterReply {
            member: Some(registered.member.into()),
            lease_millis,
        }
    }
}

impl TryFrom<pb::RegisterReply> for Registered {
    type Error = Malformed;

    fn try_from(reply: pb::RegisterReply) -> Result<Self, Malformed> {
        Ok(Registered {
            member: member(reply.member)?,
            lease: Duration::from_millis(reply.lease_millis),
        })
    }
}

impl From<SharedMemory> for pb::ShareMemoryReply {
    fn from(memory: SharedMemory) -> Self {
        use pb::share_memory_reply::Outcome;
        let path = |path: PathBuf| path.to_string_lossy().into_owned();
        let outcome = match memory {
            SharedMemory::Offered {
                state_path,
                slot_path,
            } => Outcome::Offer(pb::MemoryOffer {
                state_path: path(state_path),
                slot_path: path(slot_path),
            }),
            SharedMemory::Refused { reason } => Outcome::Refused(pb::MemoryRefused { reason }),
            SharedMemory::Unregistered => Outcome::Unregistered(pb::Unregistered {}),
        };
        pb::ShareMemoryReply {
            outcome: Some(outcome),
        }
    }
}

impl TryFrom<pb::ShareMemoryReply> for SharedMemory {
    type Error = Malformed;

    fn try_from(reply: pb::ShareMemoryReply) -> Result<Self, Malformed> {
        use pb::share_memory_reply::Outcome;
        Ok(match present("outcome", reply.outcome)? {
            Outcome::Offer(offer) => SharedMemory::Offered {
                state_path: offer.state_path.into(),
                slot_path: offer.slot_path.into(),
            },
            Outcome::Refused(pb::MemoryRefused { reason }) => SharedMemory::Refused { reason },
            Outcome::Unregistered(pb::Unregistered {}) => SharedMemory::Unregistered,
        })
    }
}

pub(crate) fn attach_request(member: Member, nonce: Nonce) -> pb::AttachRequest {
    pb::AttachRequest {
        member: Some(member.into()),
        nonce: Bytes::copy_from_slice(&nonce.0),
    }
}

pub(crate) fn nonce(bytes: &Bytes) -> Result<Nonce, Malformed> {
    fixed("nonce", bytes).map(Nonce)
}

impl From<Attachment> for pb::AttachReply {
    fn from(attachment: Attachment) -> Self {
        use pb::attach_reply::Outcome;
        let outcome = match attachment {
            Attachment::Attached => Outcome::Attached(pb::Attached {}),
            Attachment::Refused { reason } => Outcome::Refused(pb::MemoryRefused { reason }),
            Attachment::Unregistered => Outcome::Unregistered(pb::Unregistered {}),
        };
        pb::AttachReply {
            outcome: Some(outcome),
        }
    }
}

impl TryFrom<pb::AttachReply> for Attachment {
    type Error = Malformed;

    fn try_from(reply: pb::AttachReply) -> Result<Self, Malformed> {
        use pb::attach_reply::Outcome;
        Ok(match present("outcome", reply.outcome)? {
            Outcome::Attached(pb::Attached {}) => Attachment::Attached,
            Outcome::Refused(pb::MemoryRefused { reason }) => Attachment::Refused { reason },
            Outcome::Unregistered(pb::Unregistered {}) => Attachment::Unregistered,
        })
    }
}

impl From<Pull> for pb::PullRequest {
    fn from(pull: Pull) -> Self {
        let held_digest = pull.held.map(digest_to_pb).unwrap_or_default();
        pb::PullRequest {
            member: Some(pull.member.into()),
            held_digest,
        }
    }
}

impl TryFrom<pb::PullRequest> for Pull {
    type Error = Malformed;

    fn try_from(request: pb::PullRequest) -> Result<Self, Malformed> {
        let held = match request.held_digest.is_empty() {
            true => None,
            false => Some(digest_from_pb("held_digest", &request.held_digest)?),
        };
        Ok(Pull {
            member: member(request.member)?,
            held,
        })
    }
}

impl From<Goodbye> for pb::Goodbye {
    fn from(goodbye: Goodbye) -> Self {
        let reason = match goodbye {
            Goodbye::Complete => pb::goodbye::Reason::Complete,
            Goodbye::Stopping => pb::goodbye::Reason::Stopping,
            Goodbye::Diverged => pb::goodbye::Reason::Diverged,
            Goodbye::Quarantined => pb::goodbye::Reason::Quarantined,
        };
        pb::Goodbye {
            reason: reason.into(),
        }
    }
}

impl TryFrom<pb::Goodbye> for Goodbye {
    type Error = Malformed;

    fn try_from(goodbye: pb::Goodbye) -> Result<Self, Malformed> {
        match goodbye.reason() {
            pb::goodbye::Reason::Complete => Ok(Goodbye::Complete),
            pb::goodbye::Reason::Stopping => Ok(Goodbye::Stopping),
            pb::goodbye::Reason::Diverged => Ok(Goodbye::Diverged),
            pb::goodbye::Reason::Quarantined => Ok(Goodbye::Quarantined),
            pb::goodbye::Reason::Unspecified => Err(Malformed::Missing("goodbye.reason")),
        }
    }
}

impl From<Order> for pb::AdministerRequest {
    fn from(order: Order) -> Self {
        use pb::administer_request as request;
        let order = match order {
            Order::SaveCheckpoint => request::Order::SaveCheckpoint,
            Order::Drain => request::Order::Drain,
            Order::Stop => request::Order::Stop,
        };
        pb::AdministerRequest {
            order: order.into(),
        }
    }
}

impl TryFrom<pb::AdministerRequest> for Order {
    type Error = Malformed;

    fn try_from(request: pb::AdministerRequest) -> Result<Self, Malformed> {
        use pb::administer_request as given;
        match request.order() {
            given::Order::SaveCheckpoint => Ok(Order::SaveCheckpoint),
            given::Order::Drain => Ok(Order::Drain),
            given::Order::Stop => Ok(Order::Stop),
            given::Order::Unspecified => Err(Malformed::Missing("order")),
        }
    }
}

/// The messages of an answer to a pull: the answer, and the variables in parts.
pub(crate) fn pull_replies(assignment: Assignment) -> Vec<pb::PullReply> {
    use pb::pull_reply::Outcome;
    let (outcome, parts) = match assignment {
        Assignment::Work(work) => {
            let (work, variables) = work_to_pb(work);
            (Outcome::Work(work), variables.map(parts))
        }
        Assignment::Wait => (Outcome::Wait(pb::Wait {}), None),
        Assignment::Goodbye(goodbye) => (Outcome::Goodbye(goodbye.into()), None),
        Assignment::Unregistered => (Outcome::Unregistered(pb::Unregistered {}), None),
    };
    let answer = pb::PullReply {
        outcome: Some(outcome),
        variables: Bytes::new(),
    };
    let parts = parts.into_iter().flatten().map(|variables| pb::PullReply {
        outcome: None,
        variables,
    });
    [answer].into_iter().chain(parts).collect()
}

/// The answer to a pull, of its first message; variables that follow are not there yet.
pub(crate) fn assignment(reply: pb::PullReply) -> Result<Assignment, Malformed> {
    use pb::pull_reply::Outcome;
    Ok(match present("outcome", reply.outcome)? {
        Outcome::Work(work) => Assignment::Work(work.try_into()?),
        Outcome::Wait(pb::Wait {}) => Assignment::Wait,
        Outcome::Goodbye(goodbye) => Assignment::Goodbye(goodbye.try_into()?),
        Outcome::Unregistered(pb::Unregistered {}) => Assignment::Unregistered,
    })
}

/// The same bytes in parts that fit a message.
fn parts(mut tensor: Bytes) -> Vec<Bytes> {
    let mut parts = Vec::new();
    while tensor.len() > PART_BYTES {
        parts.push(tensor.split_to(PART_BYTES));
    }
    parts.push(tensor);
    parts
}

/// Work, and the variables that are sent after it.
fn work_to_pb(work: Work) -> (pb::Work, Option<Bytes>) {
    let (state_sequence, variables) = match work.variables {
        Delivery::Held => (None, None),
        Delivery::Sent(variables) => (None, Some(variables)),
        Delivery::InStateFile { sequence } => (Some(sequence), None),
    };
    let work = pb::Work {
        global_step: work.tower_step.global_step.0,
        tower: work.tower_step.tower.0,
        state_digest: digest_to_pb(work.state_digest),
        attempt: work.attempt,
        state_sequence,
        variables_follow: variables.is_some(),
        summary_step: work.summary_step.map(|step| step.0),
    };
    (work, variables)
}

impl TryFrom<pb::Work> for Work {
    type Error = Malformed;

    fn try_from(work: pb::Work) -> Result<Self, Malformed> {
        Ok(Work {
            tower_step: tower_step(work.global_step, work.tower),
            state_digest: digest_from_pb("work.state_digest", &work.state_digest)?,
            variables: match (work.variables_follow, work.state_sequence) {
                (true, _) => Delivery::Sent(Bytes::new()),
                (false, Some(sequence)) => Delivery::InStateFile { sequence },
                (false, None) => Delivery::Held,
            },
            attempt: work.attempt,
            summary_step: work.summary_step.map(GlobalStep),
        })
    }
}

fn tower_step(global_step: u64, tower: u32) -> TowerStep {
    TowerStep {
        global_step: GlobalStep(global_step),
        tower: Tower(tower),
    }
}

/// The messages of a push: the parts of its gradients from the last to the first, and all else with
/// the first part.
pub(crate) fn push_messages(push: Push, gradients: Gradients, then: Then) -> Vec<pb::PushRequest> {
    let (sent, slot_generation) = match gradients {
        Gradients::Sent(sent) => (sent, None),
        Gradients::InSlot(Generation(generation)) => (Vec::new(), Some(generation)),
    };
    let mut before = push_parts(Some(push.member), sent);
    let last = pb::PushRequest {
        member: Some(push.member.into()),
        global_step: push.tower_step.global_step.0,
        tower: push.tower_step.tower.0,
        state_digest: digest_to_pb(push.state_digest),
        losses: losses_to_pb(push.losses),
        examples_digest: Bytes::copy_from_slice(&push.examples_digest),
        compute_micros: micros(push.compute_time),
        attempt: push.attempt,
        slot_generation,
        then_pull: then == Then::Pull,
        ..before.pop().unwrap_or_default()
    };
    before.push(last);
    before
}

/// Messages that hold nothing but these gradients, from the last part to the first. The first of a push names its
/// sender.
pub(crate) fn push_parts(sender: Option<Member>, gradients: Vec<Bytes>) -> Vec<pb::PushRequest> {
    let parts = gradients.into_iter().flat_map(parts).rev();
    let message = |gradients| pb::PushRequest {
        gradients,
        ..pb::PushRequest::default()
    };
    let mut messages: Vec<_> = parts.map(message).collect();
    if let Some(first) = messages.first_mut() {
        first.sender = sender.map(Into::into);
    }
    messages
}

/// What the last message of a push says, and where the gradients are if not in its messages.
///
/// A loss that is not finite is no malformed message: it is how divergence shows.
pub(crate) fn push(
    request: &pb::PushRequest,
) -> Result<(Push, Option<Generation>, Then), Malformed> {
    let push = Push {
        member: member(request.member.clone())?,
        tower_step: tower_step(request.global_step, request.tower),
        state_digest: digest_from_pb("state_digest", &request.state_digest)?,
        losses: losses_from_pb(&request.losses)?,
        examples_digest: fixed("examples_digest", &request.examples_digest)?,
        compute_time: Duration::from_micros(request.compute_micros),
        attempt: request.attempt,
    };
    let then = match request.then_pull {
        true => Then::Pull,
        false => Then::Nothing,
    };
    Ok((push, request.slot_generation.map(Generation), then))
}

fn losses_to_pb(losses: Losses) -> Vec<f32> {
    let Losses {
        cross_entropy,
        local3_weight_loss,
        local4_weight_loss,
        total,
    } = losses;
    vec![total, cross_entropy, local3_weight_loss, local4_weight_loss]
}

fn losses_from_pb(losses: &[f32]) -> Result<Losses, Malformed> {
    let &[total, cross_entropy, local3_weight_loss, local4_weight_loss] = losses else {
        return Err(Malformed::Value {
            field: "losses",
            reason: format!("{} of them, expected 4", losses.len()),
        });
    };
    Ok(Losses {
        cross_entropy,
        local3_weight_loss,
        local4_weight_loss,
        total,
    })
}

impl From<Verdict> for pb::push_reply::Outcome {
    fn from(verdict: Verdict) -> Self {
        use pb::push_reply::Outcome;
        match verdict {
            Verdict::Accepted => Outcome::Accepted(pb::Accepted {}),
            Verdict::Stale { staleness } => Outcome::Stale(pb::Stale { staleness }),
            Verdict::Ahead { global_step } => Outcome::Ahead(pb::Ahead {
                global_step: global_step.0,
            }),
            Verdict::InDoubt => Outcome::InDoubt(pb::InDoubt {}),
            Verdict::Goodbye(goodbye) => Outcome::Goodbye(goodbye.into()),
            Verdict::Unregistered => Outcome::Unregistered(pb::Unregistered {}),
        }
    }
}

/// The messages of an answer to a push.
pub(crate) fn push_replies(pushed: Pushed) -> Vec<pb::PushReply> {
    let mut next = pushed.next.map(pull_replies).into_iter().flatten();
    let answer = pb::PushReply {
        outcome: Some(pushed.verdict.into()),
        next: next.next(),
    };
    let parts = next.map(|part| pb::PushReply {
        outcome: None,
        next: Some(part),
    });
    [answer].into_iter().chain(parts).collect()
}

/// The answer to a push, of its first message; variables that follow are not there yet.
pub(crate) fn pushed(reply: pb::PushReply) -> Result<Pushed, Malformed> {
    use pb::push_reply::Outcome;
    let verdict = match present("outcome", reply.outcome)? {
        Outcome::Accepted(pb::Accepted {}) => Verdict::Accepted,
        Outcome::Stale(pb::Stale { staleness }) => Verdict::Stale { staleness },
        Outcome::Ahead(pb::Ahead { global_step }) => Verdict::Ahead {
            global_step: GlobalStep(global_step),
        },
        Outcome::InDoubt(pb::InDoubt {}) => Verdict::InDoubt,
        Outcome::Goodbye(goodbye) => Verdict::Goodbye(goodbye.try_into()?),
        Outcome::Unregistered(pb::Unregistered {}) => Verdict::Unregistered,
    };
    let next = reply.next.map(assignment).transpose()?;
    Ok(Pushed { verdict, next })
}

impl From<Activations> for pb::Activations {
    fn from(activations: Activations) -> Self {
        let Moments {
            min,
            max,
            sum,
            sum_squares,
        } = activations.histogram.moments;
        let (first_bucket, counts) = activations.histogram.buckets();
        pb::Activations {
            min,
            max,
            sum,
            sum_squares,
            first_bucket: first_bucket as u32,
            counts: counts.to_vec(),
            sparsity: activations.sparsity,
        }
    }
}

impl TryFrom<pb::Activations> for Activations {
    type Error = Malformed;

    fn try_from(activations: pb::Activations) -> Result<Self, Malformed> {
        let field = "activations";
        let moments = Moments {
            min: activations.min,
            max: activations.max,
            sum: activations.sum,
            sum_squares: activations.sum_squares,
        };
        let (first_bucket, counts) = (activations.first_bucket as usize, activations.counts);
        let histogram = Histogram::from_buckets(moments, first_bucket, counts);
        let sparsity = activations.sparsity;
        match histogram {
            Some(histogram) if (0.0..=1.0).contains(&sparsity) => Ok(Activations {
                histogram,
                sparsity,
            }),
            _ => Err(Malformed::Value {
                field,
                reason: "no numbers are distributed so".to_owned(),
            }),
        }
    }
}

pub(crate) fn summarize_request(member: Member, summary: TowerSummary) -> pb::SummarizeRequest {
    pb::SummarizeRequest {
        member: Some(member.into()),
        summary_step: summary.summary_step.0,
        activations: summary.activations.into_iter().map(Into::into).collect(),
        images: summary.images,
    }
}

/// Most bytes of a summary: five histograms of all 1,551 buckets and three images take less.
const MAX_SUMMARY_BYTES: usize = 128 << 10;

pub(crate) fn summary(request: pb::SummarizeRequest) -> Result<(Member, TowerSummary), Malformed> {
    let wrong = |field, reason| Err(Malformed::Value { field, reason });
    let bytes = request.encoded_len();
    if bytes > MAX_SUMMARY_BYTES {
        let reason = format!("{bytes} bytes, at most {MAX_SUMMARY_BYTES} are taken");
        return wrong("summary", reason);
    }
    let layers = request.activations.into_iter().map(Activations::try_from);
    let layers = layers.collect::<Result<Vec<_>, _>>()?;
    let num_layers = layers.len();
    let Ok(activations) = layers.try_into() else {
        return wrong("activations", format!("{num_layers} layers"));
    };
    if request.images.len() > MAX_SUMMARY_IMAGES {
        return wrong("images", format!("{} of them", request.images.len()));
    }
    for image in &request.images {
        if image.len() != SUMMARY_IMAGE_BYTES {
            return Err(Malformed::Size {
                field: "image",
                found: image.len(),
                expected: SUMMARY_IMAGE_BYTES,
            });
        }
    }
    let summary = TowerSummary {
        summary_step: GlobalStep(request.summary_step),
        activations,
        images: request.images,
    };
    Ok((member(request.member)?, summary))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::messages::SECRET_BYTES;

    fn push(global_step: u64, tower: u32) -> Push {
        Push {
            member: Member {
                secret: Secret([5; SECRET_BYTES]),
                worker: WorkerId(2),
            },
            tower_step: tower_step(global_step, tower),
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

    #[test]
    fn a_name_that_acts_on_a_terminal_comes_in_as_text() {
        let name_of = |name: &str| {
            let numerics = Numerics {
                device: name.to_owned(),
                ..Numerics::example(1)
            };
            let request = pb::RegisterRequest {
                name: name.to_owned(),
                numerics: to_json(&numerics),
                data_digest: Bytes::from_static(&[0; 32]),
                ..pb::RegisterRequest::default()
            };
            let registration = Registration::try_from(request)?;
            assert!(!registration.numerics.device.contains(char::is_control));
            Ok::<_, Malformed>(registration.name)
        };
        assert_eq!(name_of("host/12").unwrap(), "host/12");
        assert_eq!(
            name_of("\u{1b}[2J\nhost\u{202e}").unwrap(),
            "\u{fffd}[2J\u{fffd}host\u{fffd}"
        );
        assert_eq!(name_of("").unwrap(), "unnamed");
        assert_eq!(name_of(" \n").unwrap(), "unnamed");
        assert!(name_of(&"x".repeat(MAX_NAME_BYTES + 1)).is_err());
        let long = Numerics {
            libtorch: "2".repeat(MAX_NAME_BYTES + 1),
            ..Numerics::example(1)
        };
        assert!(numerics(&to_json(&long)).is_err());
    }

    fn tower_summary() -> pb::SummarizeRequest {
        let of_layer = |layer: u8| Activations {
            histogram: Histogram::of(&[0.0, f32::from(layer), -1e-3]),
            sparsity: 0.25,
        };
        let summary = TowerSummary {
            summary_step: GlobalStep(300),
            activations: [1, 2, 3, 4, 5].map(of_layer),
            images: vec![Bytes::from_static(&[9; SUMMARY_IMAGE_BYTES]); 3],
        };
        let member = Member {
            secret: Secret([5; SECRET_BYTES]),
            worker: WorkerId(2),
        };
        summarize_request(member, summary)
    }

    #[test]
    fn a_summary_survives_the_wire() {
        let sent = tower_summary();
        let (member, summary) = summary(sent.clone()).unwrap();
        assert_eq!(summarize_request(member, summary), sent);
    }

    #[test]
    fn a_summary_that_no_worker_would_make_is_refused_by_the_fields_name() {
        type Damage = fn(&mut pb::SummarizeRequest);
        let cases: [(&str, Damage); 9] = [
            ("member is missing", |it| it.member = None),
            ("activations: 4 layers", |it| drop(it.activations.pop())),
            ("activations: no numbers", |it| {
                it.activations[0].sum = f64::INFINITY;
            }),
            ("activations: no numbers", |it| {
                it.activations[4].first_bucket = u32::MAX;
            }),
            ("activations: no numbers", |it| {
                it.activations[2].counts = vec![1; 1552];
            }),
            ("activations: no numbers", |it| {
                it.activations[1].sparsity = f32::NAN;
            }),
            ("images: 4 of them", |it| {
                it.images.push(it.images[0].clone())
            }),
            ("image has 1727 bytes, expected 1728", |it| {
                it.images[2].truncate(1727);
            }),
            ("summary: ", |it| {
                it.images[0] = vec![0; MAX_SUMMARY_BYTES].into();
            }),
        ];
        for (expected, damage) in cases {
            let mut request = tower_summary();
            damage(&mut request);
            let error = summary(request).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    /// The widest histograms, of so many numbers that their counts take the most bytes they may.
    #[test]
    fn the_largest_summary_is_taken() {
        let mut request = tower_summary();
        for activations in &mut request.activations {
            activations.first_bucket = 0;
            activations.counts = vec![u64::from(u32::MAX); 1551];
        }
        assert!(summary(request).is_ok());
    }

    fn decoded<M: Message + Default>(message: &M) -> M {
        M::decode(message.encode_to_vec().as_slice()).unwrap()
    }

    fn part() -> impl Strategy<Value = Bytes> {
        prop::collection::vec(any::<u8>(), 1..64).prop_map(Bytes::from)
    }

    /// Some bytes, in parts of which none is empty.
    fn tensor() -> impl Strategy<Value = Vec<Bytes>> {
        prop::collection::vec(part(), 1..4)
    }

    fn variables() -> impl Strategy<Value = Delivery> {
        prop_oneof![
            Just(Delivery::Held),
            part().prop_map(Delivery::Sent),
            any::<u64>().prop_map(|sequence| Delivery::InStateFile { sequence }),
        ]
    }

    #[test]
    fn no_part_is_larger_than_a_message_may_be() {
        let bytes = Bytes::from(vec![7; 2 * PART_BYTES + 5]);
        let lengths: Vec<usize> = parts(bytes).iter().map(Bytes::len).collect();
        assert_eq!(lengths, [PART_BYTES, PART_BYTES, 5]);
    }

    proptest! {
        #[test]
        fn an_answer_with_work_survives_the_wire(
            global_step: u64, tower: u32, variables in variables(),
        ) {
            let work = |variables| Work {
                tower_step: tower_step(global_step, tower),
                state_digest: StateDigest(3),
                variables,
                attempt: 2,
                summary_step: (tower % 2 == 0).then_some(GlobalStep(9)),
            };
            let next = Some(Assignment::Work(work(variables.clone())));
            let verdict = Verdict::Stale { staleness: 1 };
            let mut messages = push_replies(Pushed { verdict, next }).into_iter();
            let answer = pushed(decoded(&messages.next().unwrap())).unwrap();
            let parts: Vec<Bytes> = messages
                .map(|message| decoded(&message).next.unwrap().variables)
                .collect();
            let expected = match &variables {
                Delivery::Sent(sent) => {
                    prop_assert_eq!(&parts.concat(), sent);
                    Delivery::Sent(Bytes::new())
                }
                other => {
                    prop_assert!(parts.is_empty());
                    other.clone()
                }
            };
            let next = Some(Assignment::Work(work(expected)));
            prop_assert_eq!(answer, Pushed { verdict, next });
        }

        #[test]
        fn a_push_survives_the_wire(global_step: u64, tower: u32, sent in tensor()) {
            let expected = push(global_step, tower);
            let messages = push_messages(expected, Gradients::Sent(sent.clone()), Then::Pull);
            let arrived: Vec<pb::PushRequest> = messages.iter().map(decoded).collect();
            let last = super::push(arrived.last().unwrap());
            prop_assert_eq!(last, Ok((expected, None, Then::Pull)));
            let parts = arrived.into_iter().rev().map(|message| message.gradients);
            prop_assert_eq!(parts.collect::<Vec<_>>(), sent);
        }

        #[test]
        fn a_push_of_a_slot_survives_the_wire(generation: u64) {
            let in_slot = Gradients::InSlot(Generation(generation));
            let messages = push_messages(push(1, 0), in_slot, Then::Nothing);
            let [message] = messages.as_slice() else { panic!("one message") };
            let arrived = super::push(&decoded(message));
            prop_assert_eq!(arrived, Ok((push(1, 0), Some(Generation(generation)), Then::Nothing)));
        }

        #[test]
        fn arbitrary_bytes_are_an_error_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = pb::PushRequest::decode(bytes.as_slice()).map(|last| super::push(&last));
            let _ = pb::SummarizeRequest::decode(bytes.as_slice()).map(summary);
            let _ = pb::PullRequest::decode(bytes.as_slice()).map(Pull::try_from);
            let _ = pb::RegisterRequest::decode(bytes.as_slice()).map(Registration::try_from);
            let _ = pb::ShareMemoryReply::decode(bytes.as_slice()).map(SharedMemory::try_from);
            let _ = pb::AttachReply::decode(bytes.as_slice()).map(Attachment::try_from);
            let _ = pb::PullReply::decode(bytes.as_slice()).map(assignment);
            let _ = pb::PushReply::decode(bytes.as_slice()).map(pushed);
        }
    }
}
