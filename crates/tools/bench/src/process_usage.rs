//! What the kernel says that a process has used: CPU time and memory.

use std::fs;
use std::time::Duration;

use anyhow::Context;

/// CPU time and memory of a process, all its threads together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessUsage {
    /// In user and in kernel mode, since its start.
    pub cpu: Duration,
    /// In memory now.
    pub resident_bytes: u64,
    /// The most that ever was.
    pub peak_bytes: u64,
}

impl ProcessUsage {
    /// Of the process with that number.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn of(pid: u32) -> anyhow::Result<Self> {
        let read = |file: &str| {
            let path = format!("/proc/{pid}/{file}");
            fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
        };
        let ticks = cpu_ticks(&read("stat")?).context("the kernel tells no CPU time")?;
        let status = read("status")?;
        let bytes = |field| bytes(&status, field).with_context(|| format!("there is no {field}"));
        Ok(ProcessUsage {
            cpu: Duration::from_secs_f64(
                ticks as f64 / rustix::param::clock_ticks_per_second() as f64,
            ),
            resident_bytes: bytes("VmRSS")?,
            peak_bytes: bytes("VmHWM")?,
        })
    }

    /// Of this process.
    ///
    /// # Errors
    ///
    /// If the kernel does not tell.
    pub fn of_this() -> anyhow::Result<Self> {
        Self::of(std::process::id())
    }
}

/// `utime + stime`, fields 14 and 15 of `/proc/PID/stat`: proc(5). The name before them may hold
/// blanks and parentheses.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let kernel: u64 = fields.next()?.parse().ok()?;
    Some(user + kernel)
}

/// A field of `/proc/PID/status`, which tells KiB.
fn bytes(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kibibytes: u64 = line
        .strip_prefix(':')?
        .trim()
        .strip_suffix(" kB")?
        .parse()
        .ok()?;
    Some(1024 * kibibytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_any_name() {
        let rest = "S 1 2 3 4 5 6 7 8 9 10 70 30 11 12 20 0 4 0 100";
        for name in ["cifar-ps", "a (b) c", "x) y"] {
            let stat = format!("123 ({name}) {rest}");
            assert_eq!(cpu_ticks(&stat), Some(100), "{stat}");
        }
        assert_eq!(cpu_ticks("123 (cut"), None);
    }

    #[test]
    fn memory_is_told_in_bytes() {
        let status = "Name:\tcifar-ps\nVmHWM:\t   51200 kB\nVmRSS:\t    2048 kB\n";
        assert_eq!(bytes(status, "VmRSS"), Some(2048 * 1024));
        assert_eq!(bytes(status, "VmHWM"), Some(51_200 * 1024));
        assert_eq!(bytes(status, "VmSwap"), None);
    }

    #[test]
    fn this_process_uses_something() {
        let usage = ProcessUsage::of_this().unwrap();
        assert!(usage.resident_bytes > 0 && usage.peak_bytes >= usage.resident_bytes);
    }
}
