//! Where a server may listen: in clear on this machine alone, unless somebody says otherwise.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};

use rustix::io::Errno;

use crate::error::GuardError;

/// Whether what travels is encrypted, or may do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cover {
    /// TLS.
    Encrypted,
    /// Neither TLS nor a word about it.
    Clear,
    /// `--insecure`.
    ClearOnPurpose,
}

/// The sockets that `address` (`HOST:PORT`, of the flag `flag`) stands for, if a server may listen there.
///
/// # Errors
///
/// [`GuardError::Clear`] if other machines could read along, [`GuardError::Address`] if it is none.
pub fn listen_on(
    flag: &'static str,
    address: &str,
    cover: Cover,
) -> Result<Vec<SocketAddr>, GuardError> {
    let found = address
        .to_socket_addrs()
        .map_err(|source| GuardError::Address {
            flag,
            address: address.to_owned(),
            source,
        })?;
    let found: Vec<SocketAddr> = found.collect();
    if cover == Cover::Clear && !found.iter().all(is_here) {
        return Err(GuardError::Clear {
            flag,
            address: address.to_owned(),
        });
    }
    Ok(found)
}

/// Listens on the first of these addresses that can be had.
///
/// `[::]` is every address of this machine, by IPv6 and IPv4. Where the kernel has no IPv6, that is `0.0.0.0`.
///
/// # Errors
///
/// If none of them can be had.
pub fn bind(addresses: impl ToSocketAddrs) -> io::Result<TcpListener> {
    let addresses: Vec<SocketAddr> = addresses.to_socket_addrs()?.collect();
    TcpListener::bind(&addresses[..]).or_else(|error| {
        let has_no_ipv6 = error.raw_os_error() == Some(Errno::AFNOSUPPORT.raw_os_error());
        let mut everywhere = addresses.iter().filter(|a| a.ip() == Ipv6Addr::UNSPECIFIED);
        match everywhere.next() {
            Some(address) if has_no_ipv6 => {
                TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port()))
            }
            _ => Err(error),
        }
    })
}

/// Whether only this machine reaches the address.
pub(crate) fn is_here(address: &SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_clear_a_server_listens_on_this_machine_alone() {
        let listen =
            |address, cover| listen_on("--listen", address, cover).map(|found| found.len());
        for here in [
            "127.0.0.1:0",
            "127.9.9.9:1",
            "[::1]:2222",
            "[::ffff:127.0.0.1]:1",
        ] {
            assert!(matches!(listen(here, Cover::Clear), Ok(1)), "{here}");
        }
        for open in [
            "0.0.0.0:2222",
            "[::]:2222",
            "10.0.0.1:2222",
            "[::ffff:10.0.0.1]:1",
        ] {
            let refused = listen(open, Cover::Clear).unwrap_err().to_string();
            assert!(
                refused.contains("--insecure") && refused.contains(open),
                "{refused}"
            );
            for cover in [Cover::Encrypted, Cover::ClearOnPurpose] {
                assert!(matches!(listen(open, cover), Ok(1)), "{open}");
            }
        }
        assert!(matches!(
            listen("nonsense", Cover::Encrypted),
            Err(GuardError::Address { .. })
        ));
    }
}
