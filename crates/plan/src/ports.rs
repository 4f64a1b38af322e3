//! `EXPOSE`: `[[address:]host:]port[-port][/protocol]`.

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

/// The `port/protocol` names that one word of EXPOSE stands for, in order. Of a mapping only the container's part counts.
pub(crate) fn parse(spec: &str) -> Result<Vec<String>, PortError> {
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
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
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

fn split_protocol<'a>(spec: &str, container: &'a str) -> Result<(&'a str, String), PortError> {
    let (ports, protocol) = container.split_once('/').unwrap_or((container, ""));
    if ports.is_empty() {
        return Err(PortError::Missing(spec.to_owned()));
    }
    match protocol.to_ascii_lowercase().as_str() {
        "" => Ok((ports, "tcp".to_owned())),
        known @ ("tcp" | "udp" | "sctp") => Ok((ports, known.to_owned())),
        _ => Err(PortError::Protocol(spec.to_owned(), protocol.to_owned())),
    }
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
        expected.assert_eq(&parse(spec).map_or_else(|e| e.to_string(), |ports| ports.join(" ")));
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
