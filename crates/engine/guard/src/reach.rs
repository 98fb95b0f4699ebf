//! Where a server may listen: unencrypted on this machine alone, unless somebody says otherwise.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};

use rustix::io::Errno;
use rustix::net::sockopt::{set_ipv6_v6only, set_socket_reuseaddr};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::error::GuardError;

/// Connections that may wait to be taken in, as many as std asks for.
const BACKLOG: i32 = 128;

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
/// `[::]` is every address of this machine, by IPv6 and IPv4, whatever the machine's default
/// (`net.ipv6.bindv6only`). Where the kernel has no IPv6, that is `0.0.0.0`.
///
/// # Errors
///
/// If none of them can be had.
pub fn bind(addresses: impl ToSocketAddrs) -> io::Result<TcpListener> {
    let addresses: Vec<SocketAddr> = addresses.to_socket_addrs()?.collect();
    let everywhere = addresses
        .iter()
        .find(|address| address.ip() == Ipv6Addr::UNSPECIFIED);
    let Some(everywhere) = everywhere else {
        return TcpListener::bind(&addresses[..]);
    };
    match bind_everywhere(everywhere.port()) {
        Err(Errno::AFNOSUPPORT) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, everywhere.port())),
        listener => Ok(listener?),
    }
}

fn bind_everywhere(port: u16) -> rustix::io::Result<TcpListener> {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::INET6, SocketType::STREAM, flags, None)?;
    set_socket_reuseaddr(&socket, true)?;
    set_ipv6_v6only(&socket, false)?;
    rustix::net::bind(&socket, &SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(TcpListener::from(socket))
}

/// Whether only this machine reaches the address.
pub(crate) fn is_here(address: &SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unencrypted_a_server_listens_on_this_machine_alone() {
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
