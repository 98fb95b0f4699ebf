//! Who may wait to be let in, and who is inside: counted by address. Pure.
//!
//! ```text
//!   knock -> waiting -- asks for something that it may --> inside -- is a worker --> member
//!              |                                             |
//!              '--- gives way, the oldest first, <-----------'
//!                   where there is no room for one that comes
//! ```

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use crate::limits::{MAX_CONNECTIONS, MAX_CONNECTIONS_OF_ADDRESS, MAX_WAITING};

/// How many there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Connections, waiting or inside.
    pub all: usize,
    /// Of one address.
    pub of_address: usize,
    /// Not let in yet.
    pub waiting: usize,
}

impl Default for Capacity {
    fn default() -> Self {
        Capacity {
            all: MAX_CONNECTIONS,
            of_address: MAX_CONNECTIONS_OF_ADDRESS,
            waiting: MAX_WAITING,
        }
    }
}

/// A connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket {
    source: IpAddr,
    number: u64,
}

/// What becomes of a connection that comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knock {
    /// It may wait to be let in.
    Waits {
        /// The connection.
        ticket: Ticket,
        /// One that waits and has to go for it.
        in_place_of: Option<Ticket>,
    },
    /// There is no room.
    Full,
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has not shown yet that it may ask for anything.
    Waiting,
    /// It may ask. It gives way to others where there is no room.
    Inside,
    /// It is a worker's, and stays.
    Member,
}

/// The connections of a port.
#[derive(Debug, Default)]
pub struct Door {
    capacity: Capacity,
    next: u64,
    /// By address, the oldest first.
    connections: BTreeMap<IpAddr, BTreeMap<Ticket, Standing>>,
}

impl Door {
    /// Nobody is there yet.
    #[must_use]
    pub fn new(capacity: Capacity) -> Self {
        Door {
            capacity,
            ..Door::default()
        }
    }

    /// Somebody comes.
    pub fn knock(&mut self, from: IpAddr) -> Knock {
        let source = source(from);
        let in_place_of = match self.who_has_to_go(source) {
            Ok(ticket) => ticket,
            Err(()) => return Knock::Full,
        };
        if let Some(ticket) = in_place_of {
            self.leave(ticket);
        }
        self.next += 1;
        let number = self.next;
        let ticket = Ticket { source, number };
        let of_source = self.connections.entry(source).or_default();
        of_source.insert(ticket, Standing::Waiting);
        Knock::Waits {
            ticket,
            in_place_of,
        }
    }

    /// A connection has come so far; false if it has gone.
    pub fn stands(&mut self, ticket: Ticket, standing: Standing) -> bool {
        let of_source = self.connections.get_mut(&ticket.source);
        let found = of_source.and_then(|tickets| tickets.get_mut(&ticket));
        found.map(|found| *found = standing).is_some()
    }

    /// Somebody goes.
    pub fn leave(&mut self, ticket: Ticket) {
        if let Some(of_source) = self.connections.get_mut(&ticket.source) {
            of_source.remove(&ticket);
            if of_source.is_empty() {
                self.connections.remove(&ticket.source);
            }
        }
    }

    /// Who has to give way to one more from `source`: nobody, one that is there, or there is none.
    fn who_has_to_go(&self, source: IpAddr) -> Result<Option<Ticket>, ()> {
        let Capacity {
            all,
            of_address,
            waiting,
        } = self.capacity;
        let of_source = self.connections.get(&source);
        if of_source.is_some_and(|tickets| tickets.len() >= of_address) {
            let oldest = |standing| oldest(of_source?, standing);
            let oldest = oldest(Standing::Waiting).or_else(|| oldest(Standing::Inside));
            return oldest.map(Some).ok_or(());
        }
        let num_waiting = self.connections.values();
        let num_waiting: usize = num_waiting.map(|of| count(of, Standing::Waiting)).sum();
        let num_all: usize = self.connections.values().map(BTreeMap::len).sum();
        if num_waiting < waiting && num_all < all {
            return Ok(None);
        }
        let oldest = self.oldest_of_most(Standing::Waiting);
        let oldest = oldest.or_else(|| self.oldest_of_most(Standing::Inside));
        oldest.map(Some).ok_or(())
    }

    /// Of the address that has most of this standing.
    fn oldest_of_most(&self, standing: Standing) -> Option<Ticket> {
        let sources = self.connections.values();
        let most = sources.max_by_key(|tickets| count(tickets, standing));
        most.and_then(|tickets| oldest(tickets, standing))
    }
}

fn count(tickets: &BTreeMap<Ticket, Standing>, standing: Standing) -> usize {
    tickets.values().filter(|of| **of == standing).count()
}

fn oldest(tickets: &BTreeMap<Ticket, Standing>, standing: Standing) -> Option<Ticket> {
    let mut of_standing = tickets.iter().filter(|(_, of)| **of == standing);
    of_standing.next().map(|(ticket, _)| *ticket)
}

/// Who is behind an address: with version 6 one host has 2^64 of them.
fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = u128::from(address) >> 64 << 64;
            IpAddr::V6(Ipv6Addr::from(network))
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HONEST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const FLOOD: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));
    const OTHER_FLOOD: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 3));

    fn door() -> Door {
        Door::new(Capacity {
            all: 6,
            of_address: 4,
            waiting: 3,
        })
    }

    fn waits(door: &mut Door, from: IpAddr) -> (Ticket, Option<Ticket>) {
        match door.knock(from) {
            Knock::Waits {
                ticket,
                in_place_of,
            } => (ticket, in_place_of),
            Knock::Full => panic!("there is no room"),
        }
    }

    #[test]
    fn a_flood_drives_out_itself() {
        let mut door = door();
        let (honest, _) = waits(&mut door, HONEST);
        let (first, _) = waits(&mut door, FLOOD);
        let (second, _) = waits(&mut door, FLOOD);
        assert_eq!(waits(&mut door, FLOOD).1, Some(first));
        assert_eq!(waits(&mut door, FLOOD).1, Some(second));
        assert!(door.stands(honest, Standing::Inside));
        assert!(!door.stands(first, Standing::Inside));
    }

    fn stands(door: &mut Door, from: IpAddr, standing: Standing) -> Ticket {
        let (ticket, _) = waits(door, from);
        assert!(door.stands(ticket, standing));
        ticket
    }

    #[test]
    fn workers_stay() {
        let mut door = door();
        for _ in 0..4 {
            stands(&mut door, HONEST, Standing::Member);
        }
        assert_eq!(door.knock(HONEST), Knock::Full);
        let others = [FLOOD, OTHER_FLOOD].map(|from| stands(&mut door, from, Standing::Inside));
        assert_eq!(waits(&mut door, FLOOD).1, Some(others[1]), "a member stays");
    }

    #[test]
    fn two_addresses_that_fill_all_places_keep_no_worker_out() {
        let mut door = door();
        let member = stands(&mut door, HONEST, Standing::Member);
        let first = stands(&mut door, FLOOD, Standing::Inside);
        for from in [OTHER_FLOOD, FLOOD, OTHER_FLOOD, FLOOD] {
            stands(&mut door, from, Standing::Inside);
        }
        let (worker, gone) = waits(&mut door, HONEST);
        assert_eq!(gone, Some(first));
        assert!(door.stands(worker, Standing::Member) && door.stands(member, Standing::Member));
    }

    #[test]
    fn an_address_with_few_connections_gives_way_last() {
        let mut door = door();
        let viewer = stands(&mut door, HONEST, Standing::Inside);
        for round in 0..20 {
            let from = [FLOOD, OTHER_FLOOD][round % 2];
            stands(&mut door, from, Standing::Inside);
        }
        assert!(door.stands(viewer, Standing::Inside));
    }

    #[test]
    fn a_connection_that_has_gone_leaves_nothing_behind() {
        let mut door = door();
        for _ in 0..100 {
            let ticket = stands(&mut door, HONEST, Standing::Inside);
            door.leave(ticket);
            door.leave(ticket);
        }
        assert!(door.connections.is_empty());
    }

    #[test]
    fn a_host_is_one_source() {
        let address = |text: &str| text.parse().unwrap();
        assert_eq!(source(address("fd00::1")), source(address("fd00::ffff:1")));
        assert_ne!(source(address("fd00::1")), source(address("fd00:0:0:1::1")));
        assert_eq!(source(address("::ffff:10.0.0.1")), HONEST);
    }
}
