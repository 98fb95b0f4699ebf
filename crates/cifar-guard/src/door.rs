//! Who may wait to be let in, and who is inside: counted by address. Pure.

use std::collections::{BTreeMap, BTreeSet};
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

/// The connections of a port.
#[derive(Debug, Default)]
pub struct Door {
    capacity: Capacity,
    next: u64,
    waiting: BTreeMap<IpAddr, BTreeSet<Ticket>>,
    inside: BTreeMap<IpAddr, BTreeSet<Ticket>>,
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
        self.waiting.entry(source).or_default().insert(ticket);
        Knock::Waits {
            ticket,
            in_place_of,
        }
    }

    /// Somebody who waits has shown that it may come in; false if it waits no more.
    pub fn let_in(&mut self, ticket: Ticket) -> bool {
        let has_waited = remove(&mut self.waiting, ticket);
        if has_waited {
            self.inside.entry(ticket.source).or_default().insert(ticket);
        }
        has_waited
    }

    /// Somebody goes.
    pub fn leave(&mut self, ticket: Ticket) {
        let _ = remove(&mut self.waiting, ticket) || remove(&mut self.inside, ticket);
    }

    /// Who has to give way to one more from `source`: nobody, one that waits, or there is none.
    fn who_has_to_go(&self, source: IpAddr) -> Result<Option<Ticket>, ()> {
        let of =
            |all: &BTreeMap<IpAddr, BTreeSet<Ticket>>| all.get(&source).map_or(0, BTreeSet::len);
        let sum = |all: &BTreeMap<IpAddr, BTreeSet<Ticket>>| {
            all.values().map(BTreeSet::len).sum::<usize>()
        };
        let Capacity {
            all,
            of_address,
            waiting,
        } = self.capacity;
        if of(&self.waiting) + of(&self.inside) >= of_address {
            let oldest = self.waiting.get(&source).and_then(BTreeSet::first);
            return oldest.copied().map(Some).ok_or(());
        }
        let num_waiting = sum(&self.waiting);
        if num_waiting < waiting && num_waiting + sum(&self.inside) < all {
            return Ok(None);
        }
        let most = self.waiting.values().max_by_key(|tickets| tickets.len());
        let oldest = most.and_then(BTreeSet::first);
        oldest.copied().map(Some).ok_or(())
    }
}

fn remove(from: &mut BTreeMap<IpAddr, BTreeSet<Ticket>>, ticket: Ticket) -> bool {
    let Some(tickets) = from.get_mut(&ticket.source) else {
        return false;
    };
    let was_there = tickets.remove(&ticket);
    if tickets.is_empty() {
        from.remove(&ticket.source);
    }
    was_there
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
        assert!(door.let_in(honest));
        assert!(!door.let_in(first));
    }

    #[test]
    fn who_is_inside_stays() {
        let mut door = door();
        let inside: Vec<Ticket> = (0..4)
            .map(|_| {
                let (ticket, _) = waits(&mut door, FLOOD);
                door.let_in(ticket);
                ticket
            })
            .collect();
        assert_eq!(door.knock(FLOOD), Knock::Full);
        let (honest, gone) = waits(&mut door, HONEST);
        assert_eq!(gone, None);
        door.let_in(honest);
        door.leave(inside[0]);
        assert_eq!(waits(&mut door, FLOOD).1, None);
    }

    #[test]
    fn whoever_has_gone_leaves_nothing_behind() {
        let mut door = door();
        for _ in 0..100 {
            let (ticket, gone) = waits(&mut door, HONEST);
            assert_eq!(gone, None);
            door.let_in(ticket);
            door.leave(ticket);
            door.leave(ticket);
        }
        assert!(door.waiting.is_empty() && door.inside.is_empty());
    }

    #[test]
    fn a_host_is_one_source() {
        let address = |text: &str| text.parse().unwrap();
        assert_eq!(source(address("fd00::1")), source(address("fd00::ffff:1")));
        assert_ne!(source(address("fd00::1")), source(address("fd00:0:0:1::1")));
        assert_eq!(source(address("::ffff:10.0.0.1")), HONEST);
    }
}
