//! `--dns`, `--dns-search` and `--dns-option`: the `/etc/resolv.conf` that RUNs see (resolv.conf(5)).

use std::net::IpAddr;

/// What is said instead of what the machine's file says, each kind for itself.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Resolver {
    pub(crate) servers: Vec<IpAddr>,
    /// `.` alone stands for none.
    pub(crate) search: Vec<String>,
    pub(crate) options: Vec<String>,
}

impl Resolver {
    /// The file, after that of the machine.
    pub(crate) fn resolv_conf(&self, of_machine: &[u8]) -> Vec<u8> {
        if *self == Self::default() {
            return of_machine.to_vec();
        }
        let text = String::from_utf8_lossy(of_machine);
        let is_replaced = |line: &&str| match line.split_whitespace().next() {
            Some("nameserver") => !self.servers.is_empty(),
            Some("search" | "domain") => !self.search.is_empty(),
            Some("options") => !self.options.is_empty(),
            _ => false,
        };
        let mut lines: Vec<String> =
            text.lines().filter(|line| !is_replaced(line)).map(ToOwned::to_owned).collect();
        lines.extend(self.servers.iter().map(|server| format!("nameserver {server}")));
        if !self.search.is_empty() && self.search != ["."] {
            lines.push(format!("search {}", self.search.join(" ")));
        }
        if !self.options.is_empty() {
            lines.push(format!("options {}", self.options.join(" ")));
        }
        lines.iter().flat_map(|line| [line.as_bytes(), b"\n"].concat()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_line_is_replaced_for_itself() {
        let machine = b"# ours\ndomain a\nnameserver 10.0.0.1\nnameserver 10.0.0.2\noptions ndots:2\n";
        let check = |servers: &[&str], search: &[&str], options: &[&str], expected: &str| {
            let owned = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
            let servers = servers.iter().map(|server| server.parse().unwrap()).collect();
            let resolver = Resolver { servers, search: owned(search), options: owned(options) };
            assert_eq!(String::from_utf8(resolver.resolv_conf(machine)).unwrap(), expected);
        };
        check(&[], &[], &[], std::str::from_utf8(machine).unwrap());
        check(&["::1"], &[], &[], "# ours\ndomain a\noptions ndots:2\nnameserver ::1\n");
        check(
            &[],
            &["b", "c"],
            &["timeout:1", "rotate"],
            "# ours\nnameserver 10.0.0.1\nnameserver 10.0.0.2\nsearch b c\noptions timeout:1 rotate\n",
        );
        check(&[], &["."], &[], "# ours\nnameserver 10.0.0.1\nnameserver 10.0.0.2\noptions ndots:2\n");
    }
}
