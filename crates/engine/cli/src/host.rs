//! The machine that a program runs on.

/// Its name.
#[must_use]
pub fn host_name() -> String {
    let name = rustix::system::uname();
    name.nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_machine_has_a_name() {
        assert!(!super::host_name().is_empty());
    }
}
