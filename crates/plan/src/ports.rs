//! `EXPOSE`: `[[address:]host:]port[-port][/protocol]`.
//!
//! A few characters may be all the ports that there are, in each of a thousand lines. So a stage keeps ranges, their names are written once,
//! for the config of what the build gives, and the lines of history are copied from a table.

use std::collections::BTreeSet;
use std::sync::LazyLock;

/// Why a text names no port.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PortError {
    /// Nothing before the `/`.
    #[error("`{0}` has no port")]
    Missing(String),
    /// Not tcp, udp or sctp.
    #[error("{} is not a protocol", within(.0, .1))]
    Protocol(String, String),
    /// Not a number up to 65535, or not a range.
    #[error("{} is not a port or a range of ports from 0 to 65535", within(.0, .1))]
    Number(String, String),
    /// `9-8`.
    #[error("range {} ends before it begins", within(.0, .1))]
    Backwards(String, String),
    /// Host and container ranges of different length.
    #[error("the ranges in `{0}` differ in length")]
    Lengths(String),
    /// The part before two colons.
    #[error("{} is not an IP address", within(.0, .1))]
    Address(String, String),
}

fn within(spec: &str, part: &str) -> String {
    if spec == part { format!("`{part}`") } else { format!("`{part}` in `{spec}`") }
}

/// A transport that ports are of, in the order of the names.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Protocol {
    Sctp,
    Tcp,
    Udp,
}

impl Protocol {
    const ALL: [Self; 3] = [Self::Sctp, Self::Tcp, Self::Udp];

    const fn name(self) -> &'static str {
        match self {
            Self::Sctp => "sctp",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// What one word of EXPOSE stands for: a range of ports, mostly of one.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Ports {
    protocol: Protocol,
    first: u16,
    last: u16,
}

/// From how many ports on a range is copied from the table, which costs as much as all the ports do.
const MANY: u16 = 1000;

impl Ports {
    /// Adds `80/tcp 81/tcp` to a text.
    pub(crate) fn write_names(self, text: &mut String) {
        if self.last - self.first >= MANY {
            return text.push_str(AllNames::of(self.protocol).range(self.first, self.last));
        }
        let mut separator = "";
        for name in self.names() {
            text.push_str(separator);
            text.push_str(&name);
            separator = " ";
        }
    }

    /// How long that is, in bytes.
    pub(crate) fn names_bytes(self) -> usize {
        let (first, last) = (usize::from(self.first), usize::from(self.last));
        // Of one digit, of two, and so on.
        let digits: usize = [(0, 9), (10, 99), (100, 999), (1000, 9999), (10_000, 99_999)]
            .into_iter()
            .zip(1..)
            .map(|((low, high), digits)| (last.min(high) + 1).saturating_sub(first.max(low)) * digits)
            .sum();
        let each = "/ ".len() + self.protocol.name().len();
        digits + (last - first + 1) * each - " ".len()
    }

    fn names(self) -> impl Iterator<Item = String> {
        (self.first..=self.last).map(move |port| format!("{port}/{}", self.protocol.name()))
    }

    /// What is left of it from a port on.
    fn from(self, port: u16) -> Self {
        Self { first: self.first.max(port), ..self }
    }
}

/// The names of all ports of a protocol, as a line of history has them.
struct AllNames {
    text: String,
    /// Where each begins, and the end with the space that would stand before one more.
    starts: Vec<usize>,
}

impl AllNames {
    fn of(protocol: Protocol) -> &'static Self {
        static TABLES: [LazyLock<AllNames>; 3] = [
            LazyLock::new(|| AllNames::new(Protocol::Sctp)),
            LazyLock::new(|| AllNames::new(Protocol::Tcp)),
            LazyLock::new(|| AllNames::new(Protocol::Udp)),
        ];
        &TABLES[protocol as usize]
    }

    fn new(protocol: Protocol) -> Self {
        let mut names = Self { text: String::new(), starts: vec![0] };
        for port in 0..=u16::MAX {
            names.text.push_str(&format!("{port}/{} ", protocol.name()));
            names.starts.push(names.text.len());
        }
        names
    }

    fn range(&self, first: u16, last: u16) -> &str {
        let end = self.starts[usize::from(last) + 1] - " ".len();
        &self.text[self.starts[usize::from(first)]..end]
    }
}

/// The ports that a stage exposes.
#[derive(Clone, Debug, Default)]
pub(crate) struct PortSet(BTreeSet<Ports>);

impl PortSet {
    pub(crate) fn insert(&mut self, ports: Ports) {
        self.0.insert(ports);
    }

    /// Their names, each once.
    pub(crate) fn names(&self) -> impl Iterator<Item = String> {
        let mut before: Option<Ports> = None;
        // They are sorted by their first ports, so a range has in common with those before it what is below the end of the longest.
        self.0.iter().flat_map(move |ports| {
            let reached = before.filter(|before| before.protocol == ports.protocol).map(|before| before.last);
            let rest = reached.is_none_or(|reached| reached < ports.last).then(|| match reached {
                Some(reached) => ports.from(reached + 1),
                None => *ports,
            });
            before = rest.or(before);
            rest.into_iter().flat_map(Ports::names)
        })
    }
}

/// What one word of EXPOSE stands for. Of a mapping only the container's part counts.
pub(crate) fn parse(spec: &str) -> Result<Ports, PortError> {
    let mut parts = spec.rsplitn(3, ':');
    let container = parts.next().unwrap_or_default();
    let host = parts.next().unwrap_or_default();
    check_address(spec, parts.next().unwrap_or_default())?;
    let (ports, protocol) = split_protocol(spec, container)?;
    let (first, last) = range(spec, ports)?;
    if !host.is_empty() {
        let (host_first, host_last) = range(spec, host)?;
        if first != last && last - first != host_last - host_first {
            return Err(PortError::Lengths(spec.to_owned()));
        }
    }
    Ok(Ports { protocol, first, last })
}

/// How a port was written, right or wrong.
#[derive(Debug)]
pub(crate) struct Style<'s> {
    /// Whether it names an address or a port of the host.
    pub(crate) is_mapping: bool,
    /// The container's part.
    pub(crate) container: &'s str,
    /// The protocol, or nothing.
    pub(crate) protocol: &'s str,
}

impl<'s> Style<'s> {
    pub(crate) fn of(spec: &'s str) -> Self {
        let (host, container) = spec.rsplit_once(':').unwrap_or(("", spec));
        let (_, protocol) = container.split_once('/').unwrap_or((container, ""));
        Self { is_mapping: !host.is_empty(), container, protocol }
    }
}

fn check_address(spec: &str, address: &str) -> Result<(), PortError> {
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    if address.is_empty() || bare.parse::<std::net::IpAddr>().is_ok() {
        return Ok(());
    }
    Err(PortError::Address(spec.to_owned(), address.to_owned()))
}

fn split_protocol<'a>(spec: &str, container: &'a str) -> Result<(&'a str, Protocol), PortError> {
    let (ports, protocol) = container.split_once('/').unwrap_or((container, ""));
    if ports.is_empty() {
        return Err(PortError::Missing(spec.to_owned()));
    }
    let written = if protocol.is_empty() { Protocol::Tcp.name() } else { protocol };
    let known = Protocol::ALL.into_iter().find(|known| known.name().eq_ignore_ascii_case(written));
    let unknown = || PortError::Protocol(spec.to_owned(), protocol.to_owned());
    known.map(|known| (ports, known)).ok_or_else(unknown)
}

fn range(spec: &str, text: &str) -> Result<(u16, u16), PortError> {
    let number = |digits: &str| {
        let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        let value = is_number.then(|| digits.parse::<u16>().ok()).flatten();
        value.ok_or_else(|| PortError::Number(spec.to_owned(), text.to_owned()))
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    if last < first {
        return Err(PortError::Backwards(spec.to_owned(), text.to_owned()));
    }
    Ok((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    #[track_caller]
    fn check(spec: &str, expected: Expect) {
        expected.assert_eq(&parse(spec).map_or_else(|e| e.to_string(), names_of));
    }

    fn names_of(ports: Ports) -> String {
        let mut text = String::new();
        ports.write_names(&mut text);
        text
    }

    #[test]
    fn ports_and_ranges_get_a_protocol() {
        check("80", expect!["80/tcp"]);
        check("53/UDP", expect!["53/udp"]);
        check("80/", expect!["80/tcp"]);
        check("8000-8002/sctp", expect!["8000/sctp 8001/sctp 8002/sctp"]);
        check("0", expect!["0/tcp"]);
    }

    #[test]
    fn of_a_mapping_only_the_container_counts() {
        check("8080:80", expect!["80/tcp"]);
        check("127.0.0.1:8080:80/udp", expect!["80/udp"]);
        check("127.0.0.1::80", expect!["80/tcp"]);
        check("[::1]:8080:80", expect!["80/tcp"]);
        check("9000-9001:90-91", expect!["90/tcp 91/tcp"]);
        check("9000-9005:90", expect!["90/tcp"]);
    }

    #[test]
    fn a_range_from_the_table_is_what_its_ports_are() {
        for spec in ["0-65535", "9-1010/udp", "64000-65535/sctp", "0-1000"] {
            let ports = parse(spec).unwrap();
            assert!(ports.last - ports.first >= MANY);
            assert_eq!(names_of(ports), ports.names().collect::<Vec<_>>().join(" "), "{spec}");
        }
    }

    #[test]
    fn how_long_names_are_is_known_before() {
        for spec in
            ["0", "9", "10/udp", "99-100", "0-65535/sctp", "1-65534", "999-1000/udp", "65535", "12-345"]
        {
            let ports = parse(spec).unwrap();
            assert_eq!(ports.names_bytes(), names_of(ports).len(), "{spec}");
        }
    }

    #[test]
    fn a_set_of_ranges_names_each_port_once() {
        let names = |specs: &[&str]| {
            let mut set = PortSet::default();
            specs.iter().for_each(|spec| set.insert(parse(spec).unwrap()));
            set.names().collect::<Vec<_>>().join(" ")
        };
        expect!["1/tcp 2/tcp 3/tcp 4/tcp 5/tcp 6/tcp 2/udp"]
            .assert_eq(&names(&["1-5", "2", "2/udp", "3-6", "1", "5-6", "1-5"]));
        expect!["65534/tcp 65535/tcp"].assert_eq(&names(&["65535", "65534-65535", "65535"]));
    }

    #[test]
    fn wrong_ports_say_what_is_wrong() {
        check("http", expect!["`http` is not a port or a range of ports from 0 to 65535"]);
        check("65536", expect!["`65536` is not a port or a range of ports from 0 to 65535"]);
        check("/tcp", expect!["`/tcp` has no port"]);
        check("80/quic", expect!["`quic` in `80/quic` is not a protocol"]);
        check("9-8", expect!["range `9-8` ends before it begins"]);
        check("1-2-3", expect!["`1-2-3` is not a port or a range of ports from 0 to 65535"]);
        check("1-3:4-5", expect!["the ranges in `1-3:4-5` differ in length"]);
        check("x:1:2", expect!["`x` in `x:1:2` is not an IP address"]);
    }
}
