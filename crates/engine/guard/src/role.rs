//! What a peer may be: a worker, somebody who looks on, somebody who runs the server.

use std::fmt;
use std::str::FromStr;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Computes gradients.
    Worker,
    /// Reads, and reports scores.
    Viewer,
    /// May do everything.
    Admin,
}

impl Role {
    const ALL: [Role; 3] = [Role::Worker, Role::Viewer, Role::Admin];
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Worker => "worker",
            Role::Viewer => "viewer",
            Role::Admin => "admin",
        })
    }
}

/// A word that is no role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRole;

impl FromStr for Role {
    type Err = NoRole;

    fn from_str(text: &str) -> Result<Self, NoRole> {
        let is_named = |role: &Role| role.to_string() == text;
        Role::ALL.into_iter().find(is_named).ok_or(NoRole)
    }
}

/// Those that a peer has. An admin has them all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Roles(pub(crate) u8);

impl Roles {
    /// Of somebody who may do nothing.
    pub const NONE: Roles = Roles(0);
    /// Of somebody who may do everything.
    pub const ALL: Roles = Roles(0b111);

    /// These and one more.
    #[must_use]
    pub fn with(self, role: Role) -> Self {
        match role {
            Role::Admin => Roles::ALL,
            _ => Roles(self.0 | 1 << role as u8),
        }
    }

    /// These and those.
    #[must_use]
    pub fn or(self, other: Roles) -> Self {
        Roles(self.0 | other.0)
    }

    /// What is in both.
    #[must_use]
    pub fn and(self, other: Roles) -> Self {
        Roles(self.0 & other.0)
    }

    /// Whether one of them is enough.
    #[must_use]
    pub fn may(self, one_of: &[Role]) -> bool {
        let has = |role: Role| self.0 & 1 << role as u8 != 0;
        has(Role::Admin) || one_of.iter().any(|role| has(*role))
    }
}

impl FromIterator<Role> for Roles {
    fn from_iter<I: IntoIterator<Item = Role>>(roles: I) -> Self {
        roles.into_iter().fold(Roles::NONE, Roles::with)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_admin_may_all_and_others_what_they_are() {
        let worker = Roles::from_iter([Role::Worker]);
        assert!(worker.may(&[Role::Viewer, Role::Worker]));
        assert!(!worker.may(&[Role::Viewer]));
        assert!(!worker.may(&[]));
        let admin = Roles::from_iter([Role::Admin]);
        assert!(admin.may(&[Role::Worker]) && admin.may(&[]));
        assert!(!Roles::NONE.may(&Role::ALL));
    }

    #[test]
    fn what_two_ways_of_proof_have_in_common_counts() {
        let (admin, worker) = (Roles::ALL, Roles::NONE.with(Role::Worker));
        assert_eq!(admin.and(worker), worker);
        assert_eq!(worker.and(Roles::NONE.with(Role::Viewer)), Roles::NONE);
        assert_eq!(worker.or(Roles::NONE.with(Role::Admin)), Roles::ALL);
    }

    #[test]
    fn a_role_has_a_name() {
        for role in Role::ALL {
            assert_eq!(role.to_string().parse(), Ok(role));
        }
        assert_eq!("root".parse::<Role>(), Err(NoRole));
    }
}
