//! What the measurements were taken on, in one line.

use std::fs;

/// Vector instructions that matter here, the widest first, by their names in `/proc/cpuinfo`.
const INSTRUCTION_SETS: [(&str, &str); 2] = [("avx512f", "AVX-512"), ("avx2", "AVX2")];

/// This machine: processor, cores, vector instructions and memory.
#[must_use]
pub fn of_this_machine() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    described(&read("/proc/cpuinfo"), &read("/proc/meminfo"))
}

/// How many processes wanted a core over the last minute: whatever runs besides slows some rows more
/// than others.
#[must_use]
pub fn load() -> f64 {
    let averages = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let last_minute = averages.split_whitespace().next();
    last_minute
        .and_then(|number| number.parse().ok())
        .unwrap_or_default()
}

fn described(cpuinfo: &str, meminfo: &str) -> String {
    let cores = cpuinfo.lines().filter(|line| is_of(line, "processor"));
    let model = value(cpuinfo, "model name").unwrap_or("unknown processor");
    let flags = value(cpuinfo, "flags").unwrap_or_default();
    let has = |name: &str| flags.split_whitespace().any(|flag| flag == name);
    let widest = INSTRUCTION_SETS.iter().find(|(flag, _)| has(flag));
    let instructions = widest.map_or("no AVX2", |(_, name)| name);
    let kibibytes = value(meminfo, "MemTotal")
        .and_then(|text| text.strip_suffix(" kB")?.parse::<u64>().ok())
        .unwrap_or_default();
    let gibibytes = (kibibytes as f64 / 1024.0 / 1024.0).round();
    let cores = cores.count();
    format!("{cores} cores of {model}, {instructions}, {gibibytes} GiB of memory")
}

fn is_of(line: &str, name: &str) -> bool {
    line.split_once(':')
        .is_some_and(|(field, _)| field.trim() == name)
}

fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| is_of(line, name))?;
    Some(line.split_once(':')?.1.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_told_in_one_line() {
        let core = "processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: fpu avx2 avx512f\n\n";
        let told = described(
            &core.repeat(2),
            "MemFree: 1 kB\nMemTotal:       25165824 kB\n",
        );
        assert_eq!(told, "2 cores of Some CPU, AVX-512, 24 GiB of memory");
        let older = core.replace("avx512f", "").replace("avx2", "sse2");
        assert!(described(&older, "").contains("no AVX2"));
    }
}
