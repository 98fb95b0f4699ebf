//! Hosts with addresses of their own on this machine: network namespaces, each on a cable to one switch.
//!
//! A cable can be pulled, put back and narrowed. The switch is in a namespace as well, so that nothing of
//! this is seen by the machine's own network. Takes root, and `ip` and `tc` of iproute2.

use std::process::{self, Command};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::program::{command, skip};

/// Hosts on one switch. Dropped, it is gone; whatever runs on a host has to be dropped before.
#[derive(Debug)]
pub(crate) struct Network {
    prefix: String,
    hosts: Vec<&'static str>,
}

impl Network {
    /// A network of these hosts, or `None`, with a word why, where this process may not make one.
    /// `CIFAR_REQUIRE_HOSTS=1` makes that a failure.
    pub(crate) fn of(hosts: &[&'static str]) -> Option<Self> {
        static NETWORKS: AtomicUsize = AtomicUsize::new(0);
        let number = NETWORKS.fetch_add(1, Ordering::Relaxed);
        let mut network = Network {
            prefix: format!("cifar-{}-{number}", process::id()),
            hosts: Vec::new(),
        };
        match network.make(hosts) {
            Ok(()) => Some(network),
            Err(why) => {
                skip("HOSTS", &format!("there is no network of hosts: {why}"));
                None
            }
        }
    }

    fn make(&mut self, hosts: &[&'static str]) -> Result<(), String> {
        let switch = self.namespace("switch");
        run(&format!("ip netns add {switch}"))?;
        run(&format!("ip -n {switch} link add bridge type bridge"))?;
        run(&format!("ip -n {switch} link set bridge up"))?;
        for host in hosts {
            self.hosts.push(host);
            let (namespace, address) = (self.namespace(host), self.address(host));
            let port = self.port(host);
            for words in [
                format!("ip netns add {namespace}"),
                format!(
                    "ip link add eth0 netns {namespace} type veth peer name {port} netns {switch}"
                ),
                format!("ip -n {switch} link set {port} master bridge up"),
                format!("ip -n {namespace} address add {address}/24 dev eth0"),
                format!("ip -n {namespace} link set eth0 up"),
                format!("ip -n {namespace} link set lo up"),
            ] {
                run(&words)?;
            }
        }
        Ok(())
    }

    fn namespace(&self, host: &str) -> String {
        format!("{}-{host}", self.prefix)
    }

    fn number(&self, host: &str) -> usize {
        let number = self.hosts.iter().position(|other| *other == host);
        1 + number.unwrap_or_else(|| panic!("{host} is not in this network"))
    }

    fn port(&self, host: &str) -> String {
        format!("port{}", self.number(host))
    }

    pub(crate) fn address(&self, host: &str) -> String {
        format!("10.77.0.{}", self.number(host))
    }

    /// As [`command`], on a host. `ip` becomes the program, so that it gets the signals.
    pub(crate) fn command(&self, host: &str, program: &str) -> Command {
        let mut on_host = command("ip");
        on_host.args(["netns", "exec", &self.namespace(host), program]);
        on_host
    }

    /// Nothing comes or goes, and nobody is told: what is under way is lost.
    pub(crate) fn pull_cable(&self, host: &str) {
        eprintln!("the cable of {host} is pulled");
        self.set_cable(host, "down");
    }

    pub(crate) fn put_cable_back(&self, host: &str) {
        eprintln!("the cable of {host} is put back");
        self.set_cable(host, "up");
    }

    fn set_cable(&self, host: &str, to: &str) {
        let (switch, port) = (self.namespace("switch"), self.port(host));
        run(&format!("ip -n {switch} link set {port} {to}")).unwrap();
    }

    /// What the host sends goes no faster than this.
    pub(crate) fn narrow_cable(&self, host: &str, rate: &str) {
        eprintln!(
            "{host} at {} sends no faster than {rate}",
            self.address(host)
        );
        let namespace = self.namespace(host);
        let limit = format!("tbf rate {rate} burst 64kb latency 1s");
        run(&format!(
            "tc -n {namespace} qdisc replace dev eth0 root {limit}"
        ))
        .unwrap();
    }

    pub(crate) fn widen_cable(&self, host: &str) {
        eprintln!("{host} sends as fast as it can again");
        let namespace = self.namespace(host);
        run(&format!("tc -n {namespace} qdisc delete dev eth0 root")).unwrap();
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in self.hosts.iter().chain(&["switch"]) {
            // It may not have been made.
            let _ = run(&format!("ip netns delete {}", self.namespace(name)));
        }
    }
}

/// Runs a command line without quotes; what it says where it fails.
fn run(words: &str) -> Result<(), String> {
    let mut parts = words.split(' ');
    let output = Command::new(parts.next().unwrap()).args(parts).output();
    let output = output.map_err(|error| format!("{words}: {error}"))?;
    let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{words}: {stderr}")),
    }
}
