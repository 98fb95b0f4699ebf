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

impl DataPlane {
    /// All of them.
    const ALL: [Self; 3] = [DataPlane::Auto, DataPlane::Wire, DataPlane::SharedMemory];

    fn name(self) -> &'static str {
        match self {
            DataPlane::Auto => "auto",
            DataPlane::Wire => "wire",
            DataPlane::SharedMemory => "shm",
        }
    }
}

impl fmt::Display for DataPlane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Text that names no data plane.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no data plane is called {0:?}; there are auto, wire and shm")]
pub struct UnknownDataPlane(String);

impl FromStr for DataPlane {
    type Err = UnknownDataPlane;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let mut all = DataPlane::ALL.into_iter();
        all.find(|plane| plane.name() == name)
            .ok_or_else(|| UnknownDataPlane(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_takes_auto_wire_and_shm_and_shows_them_so() {
        for (name, plane) in [
            ("auto", DataPlane::Auto),
            ("wire", DataPlane::Wire),
            ("shm", DataPlane::SharedMemory),
        ] {
            assert_eq!(name.parse(), Ok(plane));
            assert_eq!(plane.to_string(), name);
        }
        assert_eq!(DataPlane::default().to_string(), "auto");
        assert!("carrier pigeons".parse::<DataPlane>().is_err());
    }
}
