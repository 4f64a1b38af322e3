//! Host names to addresses, and how far into a network an address leads.
//!
//! A registry on the internet that redirects us to `http://169.254.169.254/` or to a service on loopback would have us make requests
//! that it cannot make itself. So every address has a [`Reach`], and a redirect or token realm may not lead further inward than where it
//! came from. The check is made on the very addresses that are then connected to: a name that resolves differently the next time
//! gains nothing.

use std::fmt::Debug;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _};

/// Who can be behind an address. The order is from outward to inward.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Reach {
    /// Anybody on the internet.
    Public,
    /// This organisation: RFC 1918, shared, unique local and reserved addresses.
    Private,
    /// This link, such as a cloud's metadata service.
    LinkLocal,
    /// This machine.
    Loopback,
}

impl Reach {
    /// All of them, in order.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 4] = [Self::Public, Self::Private, Self::LinkLocal, Self::Loopback];

    /// The reach of an address; an IPv4 address within an IPv6 one counts as itself.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::of_v4(address),
            IpAddr::V6(address) => embedded_v4(address).map_or_else(|| Self::of_v6(address), Self::of_v4),
        }
    }

    fn of_v4(address: Ipv4Addr) -> Self {
        match address.octets() {
            [0 | 127, ..] => Self::Loopback,
            [169, 254, ..] => Self::LinkLocal,
            [10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] => Self::Private,
            [192, 0, 0, _] | [198, 18 | 19, ..] | [224..=255, ..] => Self::Private,
            _ => Self::Public,
        }
    }

    fn of_v6(address: Ipv6Addr) -> Self {
        match address.segments() {
            [0, 0, 0, 0, 0, 0, 0, 0 | 1] => Self::Loopback,
            [0xfe80..=0xfebf, ..] => Self::LinkLocal,
            [0xfc00..=0xfdff, ..] | [0xfec0..=0xffff, ..] => Self::Private,
            _ => Self::Public,
        }
    }

    /// Whether a server within `self` may send us to one within `target`: outward, or where it is itself. The link's own services are
    /// nobody else's to name.
    #[must_use]
    pub fn may_lead_to(self, target: Self) -> bool {
        target == self || target == Self::Public || (self == Self::Loopback && target == Self::Private)
    }
}

/// Mapped (`::ffff:a.b.c.d`) and NAT64 (`64:ff9b::a.b.c.d`) addresses.
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [.., high, low] = address.segments();
    let nat64 = address.segments()[..6] == [0x64, 0xff9b, 0, 0, 0, 0];
    let embedded = Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    address.to_ipv4_mapped().or_else(|| nat64.then_some(embedded))
}

/// One address of a host.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Address {
    /// Where to connect.
    pub socket: SocketAddr,
    /// Who can be there.
    pub reach: Reach,
}

/// Looks names up. A parameter, so that tests can give names to servers on loopback and a reach to them.
pub trait Names: Debug + Send + Sync {
    /// All addresses of `host`, which has no brackets around an IPv6 literal.
    ///
    /// # Errors
    /// Those of the system's resolver.
    fn addresses(&self, host: &str, port: u16) -> io::Result<Vec<Address>>;
}

/// The system's resolver.
#[derive(Clone, Copy, Debug)]
pub struct SystemNames;

impl Names for SystemNames {
    fn addresses(&self, host: &str, port: u16) -> io::Result<Vec<Address>> {
        let found = (host, port).to_socket_addrs()?;
        Ok(found.map(|socket| Address { socket, reach: Reach::of(socket.ip()) }).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(address: &str, expected: Reach) {
        assert_eq!(Reach::of(address.parse().unwrap()), expected, "{address}");
    }

    #[test]
    fn addresses_are_told_apart_in_every_spelling() {
        check("93.184.216.34", Reach::Public);
        check("2606:2800:220:1::1", Reach::Public);
        check("10.1.2.3", Reach::Private);
        check("172.31.255.1", Reach::Private);
        check("172.32.0.1", Reach::Public);
        check("192.168.0.1", Reach::Private);
        check("100.64.0.1", Reach::Private);
        check("fd00::1", Reach::Private);
        check("169.254.169.254", Reach::LinkLocal);
        check("fe80::1", Reach::LinkLocal);
        check("127.0.0.1", Reach::Loopback);
        check("0.0.0.0", Reach::Loopback);
        check("::1", Reach::Loopback);
        check("::ffff:127.0.0.1", Reach::Loopback);
        check("::ffff:169.254.169.254", Reach::LinkLocal);
        check("64:ff9b::7f00:1", Reach::Loopback);
    }

    #[test]
    fn nobody_leads_inward() {
        use Reach::{LinkLocal, Loopback, Private, Public};
        let allowed = |from: Reach| Reach::ALL.map(|to| from.may_lead_to(to));
        assert_eq!(allowed(Public), [true, false, false, false]);
        assert_eq!(allowed(Private), [true, true, false, false]);
        assert_eq!(allowed(LinkLocal), [true, false, true, false]);
        assert_eq!(allowed(Loopback), [true, true, false, true]);
    }
}
