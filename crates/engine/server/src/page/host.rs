//! The names under which a page answers.
//!
//! A web site can give its own name the address of somebody's machine (DNS rebinding). A browser there then
//! takes the page for a part of the site, and lets the site's scripts read it; but it still sends the site's
//! name as `Host`. With TLS the certificate is not the site's, and with a token or a client's certificate the
//! site has none to show: then every name will do. A page without TLS or tokens answers
//!
//! - on loopback, to `localhost`, loopback addresses, and the host that it was told to listen on;
//! - elsewhere also to all other addresses, which no site has as its name, and to names that nobody can have
//!   registered as theirs: those of one label, those in domains for private use and in Kubernetes', and those
//!   in the machine's own domains, by `search` in `/etc/resolv.conf`.

use std::fs;
use std::net::{IpAddr, SocketAddr};

use axum::extract::{Request, State};
use axum::http::header::HOST;
use axum::http::uri::Authority;
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use pserver_cli::host::host_name;

/// Domains in which nobody can register a name: three for private use, and Kubernetes' for its Services.
const PRIVATE_DOMAINS: [&str; 5] = ["localhost", "local", "internal", "home.arpa", "svc"];

const RESOLVER_FILE: &str = "/etc/resolv.conf";

/// The names under which a page answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Names {
    /// All: other things keep strangers away.
    Any,
    /// Those of loopback, and the host that it was told to listen on.
    Loopback(String),
    /// Those that no web site can have, these names, and names in these domains.
    NoSite {
        names: Vec<String>,
        domains: Vec<String>,
    },
}

impl Names {
    /// The names for an open page that listens on `socket`, as it was told by `address` (`HOST:PORT`).
    pub(crate) fn of_open_page(socket: SocketAddr, address: &str) -> Self {
        let told = name_in(address).unwrap_or_default();
        if socket.ip().to_canonical().is_loopback() {
            return Names::Loopback(told);
        }
        let resolver = fs::read_to_string(RESOLVER_FILE).unwrap_or_default();
        let domains = PRIVATE_DOMAINS.iter().map(ToString::to_string);
        Names::NoSite {
            names: vec![told, host_name().to_ascii_lowercase()],
            domains: domains.chain(own_domains(&resolver)).collect(),
        }
    }

    /// Whether the page answers to a name, with or without a port.
    fn include(&self, host: &str) -> bool {
        if *self == Names::Any {
            return true;
        }
        let Some(name) = name_in(host) else {
            return false;
        };
        let ip = name.trim_matches(['[', ']']).parse::<IpAddr>();
        match (self, ip) {
            (Names::Any, _) | (Names::NoSite { .. }, Ok(_)) => true,
            (Names::Loopback(told), Ok(ip)) => ip.to_canonical().is_loopback() || name == *told,
            (Names::Loopback(told), Err(_)) => name == "localhost" || name == *told,
            (Names::NoSite { names, domains }, Err(_)) => {
                let is_in = |domain: &String| {
                    let below = name.strip_suffix(domain.as_str());
                    below.is_some_and(|below| below.ends_with('.'))
                };
                !name.contains('.') || names.contains(&name) || domains.iter().any(is_in)
            }
        }
    }
}

/// The host of `HOST:PORT` or `HOST`, in small letters and without the dot of the root.
fn name_in(host: &str) -> Option<String> {
    let authority: Authority = host.parse().ok()?;
    let name = authority.host().trim_end_matches('.').to_ascii_lowercase();
    (!name.is_empty() && !host.contains('@')).then_some(name)
}

/// The domains in which a machine looks for names.
fn own_domains(resolver: &str) -> Vec<String> {
    let mut domains = Vec::new();
    for line in resolver.lines() {
        let mut words = line.split_whitespace();
        if matches!(words.next(), Some("search" | "domain")) {
            let words = words.map(|domain| domain.trim_matches('.').to_ascii_lowercase());
            domains.extend(words.filter(|domain| !domain.is_empty()));
        }
    }
    domains
}

/// Passes a request on if the page answers to the name that it was asked by.
pub(crate) async fn is_asked_by_name(
    State(names): State<Names>,
    request: Request,
    next: Next,
) -> Response {
    let in_headers = request.headers().get_all(HOST).iter();
    let mut asked: Vec<&str> = in_headers
        .map(|host: &HeaderValue| host.to_str().unwrap_or_default())
        .collect();
    asked.extend(request.uri().authority().map(Authority::as_str));
    // Every browser sends one; who sends none is a probe.
    let Some(host) = asked.into_iter().find(|host| !names.include(host)) else {
        return next.run(request).await;
    };
    let why = format!(
        "this page does not accept the host name {host:?} (protection against DNS rebinding): use an IP address, \
         or start the server with --http NAME:PORT; behind a proxy, have that send `Host: localhost`; with TLS or \
         a token any name works\n"
    );
    (StatusCode::MISDIRECTED_REQUEST, why).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(names: &Names, hosts: &[&str], expected: bool) {
        for host in hosts {
            assert_eq!(names.include(host), expected, "{host:?} of {names:?}");
        }
    }

    #[test]
    fn on_loopback_there_are_few_names() {
        let names = |socket: &str, address| Names::of_open_page(socket.parse().unwrap(), address);
        let loopback = names("127.0.0.1:8080", "127.0.0.1:0");
        let good = [
            "localhost",
            "LocalHost.:9",
            "127.0.0.1:8080",
            "127.7.7.7",
            "[::1]:1",
            "[::ffff:127.0.0.1]",
        ];
        let bad = [
            "",
            ":80",
            "trainer",
            "10.0.0.1",
            "[::2]",
            "0.0.0.0",
            "me@localhost",
            "localhost.site.example",
            "x.localhost",
        ];
        check(&loopback, &good, true);
        check(&loopback, &bad, false);
        check(&names("[::1]:8080", "[::1]:8080"), &good, true);
        let told = names("127.0.1.1:8080", "Trainer.example:0");
        check(&told, &["trainer.EXAMPLE:8080"], true);
        check(&told, &["other.example"], false);
    }

    #[test]
    fn elsewhere_there_are_those_that_no_site_has() {
        let open = Names::of_open_page("0.0.0.0:8080".parse().unwrap(), "0.0.0.0:8080");
        check(
            &open,
            &[
                "10.0.0.1:8080",
                "[fd00::1]:8080",
                "localhost",
                "cifar-server:8080",
                "cifar-server.cifar.svc.",
                "cifar-server.cifar.svc.cluster.local:8080",
                "nas.home.arpa",
            ],
            true,
        );
        let sites = [
            "site.example:8080",
            "10.0.0.1.site.example",
            "mysvc.xsvc",
            "",
        ];
        check(&open, &sites, false);
        let told = Names::of_open_page("10.0.0.1:80".parse().unwrap(), "trainer.example:80");
        check(&told, &["trainer.example"], true);
        check(&told, &["x.trainer.example"], false);
        check(&Names::Any, &["site.example", ""], true);
    }

    #[test]
    fn a_pod_has_the_names_of_its_cluster() {
        let resolver = "nameserver 10.96.0.10\n\
             search cifar.svc.Corp.example svc.corp.example corp.example.\n\
             options ndots:5\n";
        let names = Names::NoSite {
            names: Vec::new(),
            domains: own_domains(resolver),
        };
        check(
            &names,
            &[
                "cifar-server:8080",
                "cifar-server.cifar.svc.corp.example",
                "trainer.corp.example",
            ],
            true,
        );
        // A namespace may be called as a domain in which anybody registers names, such as `dev`.
        let sites = ["corp.example.site", "cifar.site", "site.cifar"];
        check(&names, &sites, false);
        assert!(own_domains("# search x\nnameserver 1.1.1.1\n").is_empty());
    }
}
