//! The ways that variables and gradients can take between a worker and its server.

use std::fmt;
use std::str::FromStr;

/// Which of them a worker is to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DataPlane {
    /// Shared memory where it can be had, else the wire.
    #[default]
    Auto,
    /// The wire, even on one host.
    Wire,
    /// Shared memory; a worker that cannot have it ends.
    SharedMemory,
}

const NAMES: [(DataPlane, &str); 3] = [
    (DataPlane::Auto, "auto"),
    (DataPlane::Wire, "wire"),
    (DataPlane::SharedMemory, "shm"),
];

impl fmt::Display for DataPlane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names = NAMES.iter();
        let name = names.find(|(plane, _)| plane == self);
        f.write_str(name.map_or("", |(_, name)| name))
    }
}

/// Text that names no data plane.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no data plane is called {0:?}; there are auto, wire and shm")]
pub struct UnknownDataPlane(String);

impl FromStr for DataPlane {
    type Err = UnknownDataPlane;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let mut names = NAMES.iter();
        let plane = names.find(|(_, of)| *of == name);
        plane
            .map(|(plane, _)| *plane)
            .ok_or_else(|| UnknownDataPlane(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_data_plane_has_a_name() {
        for (plane, name) in NAMES {
            assert_eq!(plane.to_string(), name);
            assert_eq!(name.parse(), Ok(plane));
        }
        assert!("carrier pigeons".parse::<DataPlane>().is_err());
    }
}
