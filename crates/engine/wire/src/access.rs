//! Which request needs which role. An admin may make them all; what is not in the table, nobody.

use pserver_guard::role::Role::{self, Viewer, Worker};

/// Each request, and the roles of which one is enough besides the admin's.
const NEEDED: [(&str, &[Role]); 14] = [
    ("GetRun", &[Worker, Viewer]),
    ("Register", &[Worker]),
    ("ShareMemory", &[Worker]),
    ("Attach", &[Worker]),
    ("Pull", &[Worker]),
    ("Push", &[Worker]),
    ("Summarize", &[Worker]),
    // A worker's, and a follower's.
    ("Heartbeat", &[Worker, Viewer]),
    ("Leave", &[Worker]),
    ("GetStatus", &[Worker, Viewer]),
    ("GetCheckpoint", &[Viewer]),
    ("Follow", &[Viewer]),
    ("ReportScore", &[Viewer]),
    ("Administer", &[]),
];

/// What the page needs, and all that it is made of.
pub const PAGE: &[Role] = &[Viewer];

/// The roles of which one is enough for a request; `None` if there is no such request.
#[must_use]
pub(crate) fn needed(request: &str) -> Option<&'static [Role]> {
    let mut table = NEEDED.iter();
    table
        .find(|(name, _)| *name == request)
        .map(|(_, needed)| *needed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_of_the_protocol_is_in_the_table() {
        let proto = include_str!("../../../../proto/pserver/v1/parameter_server.proto");
        let requests = proto.lines().filter_map(|line| {
            let rest = line.trim().strip_prefix("rpc ")?;
            rest.split_once('(').map(|(name, _)| name)
        });
        let requests: Vec<&str> = requests.collect();
        let known: Vec<&str> = NEEDED.iter().map(|(name, _)| *name).collect();
        assert_eq!(requests, known);
        assert_eq!(needed("Reboot"), None);
    }

    #[test]
    fn who_looks_on_changes_nothing_of_the_run() {
        for changes in [
            "Register",
            "Attach",
            "Pull",
            "Push",
            "Summarize",
            "Leave",
            "Administer",
        ] {
            assert!(!needed(changes).unwrap().contains(&Viewer), "{changes}");
        }
    }
}
