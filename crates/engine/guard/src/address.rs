//! Addresses as people type them: `HOST:PORT`.

use std::net::{Ipv4Addr, Ipv6Addr};

/// The longest name that a host can have in the DNS.
const MAX_HOST_CHARS: usize = 253;

/// A text that is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}; an address is HOST:PORT, such as 127.0.0.1:2222, ps.example:2222 or [::1]:2222")]
pub struct BadAddress(&'static str);

/// The address of a server to connect to.
///
/// # Errors
///
/// [`BadAddress`] with what is wrong, if it is none.
pub fn to_connect_to(text: &str) -> Result<String, BadAddress> {
    match host_and_port(text)? {
        (_, 0) => Err(BadAddress("no server listens on port 0")),
        _ => Ok(text.to_owned()),
    }
}

/// An address to listen on. Port 0 is any free one.
///
/// # Errors
///
/// As [`to_connect_to`].
pub fn to_listen_on(text: &str) -> Result<String, BadAddress> {
    host_and_port(text).map(|_| text.to_owned())
}

/// The parts of an address. The host is a name or a number, of IPv6 without its brackets.
///
/// # Errors
///
/// [`BadAddress`] with what is wrong, if it is none.
pub fn host_and_port(text: &str) -> Result<(&str, u16), BadAddress> {
    if text.contains("://") {
        return Err(BadAddress(
            "it begins with a scheme, which is to be left out",
        ));
    }
    let (host, port) = text.rsplit_once(':').ok_or(BadAddress("it has no port"))?;
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.parse().ok().filter(|_| digits);
    let port = port.ok_or(BadAddress("its port is no number up to 65535"))?;
    Ok((checked_host(host)?, port))
}

fn checked_host(host: &str) -> Result<&str, BadAddress> {
    if let Some(number) = host.strip_prefix('[') {
        let number = number.strip_suffix(']');
        let number = number.filter(|number| number.parse::<Ipv6Addr>().is_ok());
        return number.ok_or(BadAddress("what is in brackets is no IPv6 address"));
    }
    let of_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let of_number = |c: char| c.is_ascii_digit() || c == '.';
    if host.is_empty() {
        Err(BadAddress("it has no host"))
    } else if host.contains(':') {
        Err(BadAddress("an IPv6 address is to be in brackets"))
    } else if !host.chars().all(of_name) || host.len() > MAX_HOST_CHARS {
        Err(BadAddress("its host is no name that a host can have"))
    } else if host.chars().all(of_number) && host.parse::<Ipv4Addr>().is_err() {
        Err(BadAddress("its host is no IPv4 address"))
    } else {
        Ok(host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_names_or_numbers() {
        for (text, parts) in [
            ("127.0.0.1:2222", ("127.0.0.1", 2222)),
            ("ps.example:1", ("ps.example", 1)),
            ("cifar_ps-0:65535", ("cifar_ps-0", 65535)),
            ("[::1]:2222", ("::1", 2222)),
            ("0.0.0.0:0", ("0.0.0.0", 0)),
        ] {
            assert_eq!(host_and_port(text), Ok(parts));
        }
    }

    #[test]
    fn what_is_no_address_is_explained() {
        let long = format!("{}:1", "a".repeat(300));
        for (text, why) in [
            ("", "no port"),
            ("ps.example", "no port"),
            ("http://ps.example:2222", "begins with a scheme"),
            ("ps.example:", "its port"),
            ("ps.example:65536", "its port"),
            ("ps.example:+1", "its port"),
            ("ps.example:http", "its port"),
            ("ps.example:2222/", "its port"),
            (":2222", "no host"),
            ("::1:2222", "in brackets"),
            ("[ps.example]:2222", "no IPv6"),
            ("[::1:2222", "no IPv6"),
            ("999.0.0.1:2222", "no IPv4"),
            ("ps example:2222", "no name"),
            (" ps.example:2222", "no name"),
            ("user@ps.example:2222", "no name"),
            ("ps.example/x:2222", "no name"),
            (long.as_str(), "no name"),
        ] {
            for read in [to_connect_to, to_listen_on] {
                let error = read(text).unwrap_err().to_string();
                assert!(error.contains(why), "{text}: {error}");
                assert!(error.contains("HOST:PORT"), "{error}");
            }
        }
    }

    #[test]
    fn only_a_server_may_take_any_port() {
        assert!(to_listen_on("127.0.0.1:0").is_ok());
        assert!(to_connect_to("127.0.0.1:0").is_err());
    }
}
