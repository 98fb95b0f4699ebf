//! Every limit of what strangers, and peers that have gone wrong, can take of a server.
//!
//! None is reached by a healthy run of 64 workers on one address: each worker has one connection, on it
//! one push, a heartbeat, a summary at times, and asks a few hundred times a second at most.

use std::time::Duration;

use crate::rate::Rate;

/// A shorter token could be guessed.
pub const MIN_TOKEN_CHARS: usize = 16;

/// A certificate that ends sooner than this should have been renewed by now.
pub const RENEW_BEFORE: Duration = Duration::from_secs(24 * 60 * 60);

/// A connection that has not asked for something that it may ask for by then is closed: its handshake
/// takes milliseconds, and a client connects because it has a request.
pub const ENTRY_DEADLINE: Duration = Duration::from_secs(10);

/// Connections that a port keeps: for thousands of towers workers share hosts, and more descriptors than
/// this need a system that was set up for it.
pub const MAX_CONNECTIONS: usize = 1024;

/// Of them from one address: half, and far more than 64 workers. Several addresses can take all places, but
/// then give way to others, oldest first; workers keep theirs.
pub const MAX_CONNECTIONS_OF_ADDRESS: usize = 512;

/// Of them that have not been let in yet. 64 workers come at once when a server starts again; the oldest
/// of the peer with most gives way, so that a flood drives out itself.
pub const MAX_WAITING: usize = 256;

/// Open files that a server asks the system for: connections, shared memory, files of the run.
pub const OPEN_FILES: u64 = 4096;

/// Requests under way on a connection; a worker has four at most.
pub const MAX_STREAMS: u32 = 32;

/// All headers of a request: an authorization and a dozen short ones.
pub const MAX_HEADER_BYTES: u32 = 16 * 1024;

/// From the head of a request to the head of its answer, so that half of one does not stay for ever. The
/// longest honest one waits for a step to be complete and saved.
pub const REQUEST_DEADLINE: Duration = Duration::from_secs(90);

/// A peer that does not answer a ping for this long is gone, and is asked this often.
pub const KEEPALIVE: Duration = Duration::from_secs(10);

/// The system looks after connections on which nothing travels, which have no pings of their own.
pub const SOCKET_KEEPALIVE: Duration = Duration::from_secs(30);

/// Requests on a worker's connection: a step takes the server two milliseconds, so that the fastest worker has
/// two requests in that time. Nothing more is read of a connection that has made more, for as long as the
/// rest would have taken.
pub const REQUESTS: Rate = Rate {
    burst: 4000.0,
    per_sec: 1000.0,
};

/// Requests on all connections of a peer that are not a worker's: a certificate, or an address where there are
/// none. An evaluator or `cifar-ps top` asks a few times a second; 64 workers that come at once ask twice
/// each before they are workers.
pub const READS: Rate = Rate {
    burst: 1000.0,
    per_sec: 200.0,
};

/// What a checkpoint that is sent counts for, in requests, by size: an evaluator may have one and a half of
/// 8.5 MB a second, and a burst of seven.
pub const BYTES_OF_READ: usize = 64 * 1024;

/// Registrations of a certificate, or of an address where there are none: 64 workers at once when a server
/// starts again, several times over.
pub const REGISTRATIONS: Rate = Rate {
    burst: 512.0,
    per_sec: 32.0,
};

/// Peers whose registrations are counted; those that have not registered for long are forgotten first.
pub const MAX_PEERS: usize = 4096;

/// Workers of a run of so many towers: backups for each tower, and 64 besides.
#[must_use]
pub fn max_workers(num_towers: u32) -> usize {
    4 * num_towers as usize + 64
}

/// Pushes of one worker under way, each with memory for its gradients: one, and one that is repeated
/// because the answer to the first was lost.
pub const MAX_PUSHES_OF_WORKER: usize = 2;

/// Answers with variables under way to a certificate, or to an address where there are none: two for each of
/// 64 workers. One that is not read keeps 8.5 MB, the state of its step.
pub const MAX_ANSWERS_OF_PEER: usize = 128;

/// Ledgers that a peer, counted as above, follows at a time.
pub const MAX_FOLLOWING_OF_PEER: usize = 8;

/// Checkpoints under way to a peer, counted as above: half of those that are sent at a time.
pub const MAX_CHECKPOINTS_OF_PEER: usize = 4;

/// What is left of an answer that is not read by then is forgotten. Clients give up after 25 seconds.
pub const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

/// Lines of the log about connections that were turned away: the rest are counted only at `debug`.
pub const REFUSAL_LINES: Rate = Rate {
    burst: 20.0,
    per_sec: 0.2,
};

/// Files of certificates and tokens are looked at this often, when somebody connects or asks.
pub const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// A file of certificates or tokens has a few kilobytes.
pub const MAX_FILE_BYTES: u64 = 1 << 20;

/// Lets this process have as many files open as the limits need, where the system allows it.
pub fn raise_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    let allowed = limit.maximum.unwrap_or(OPEN_FILES).min(OPEN_FILES);
    if limit.current.is_some_and(|current| current < allowed) {
        limit.current = Some(allowed);
        // Where that is refused, connections are: accepting fails and is tried again.
        let _ = setrlimit(Resource::Nofile, limit);
    }
}
