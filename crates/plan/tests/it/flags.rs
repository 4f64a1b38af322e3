//! `args.txt`: flags of `rbuild build`, one a line, to a [`Request`].

use plan::{BuildArg, ContextKind, Entitlement, ExtraHost, NamedContext, NetworkMode, Request};

/// The request of somebody on an amd64 machine.
pub(crate) fn request(flags: &str) -> Request {
    let mut request = Request {
        target: None,
        build_args: Vec::new(),
        platform: None,
        build_platform: "linux/amd64".parse().unwrap(),
        named_contexts: Vec::new(),
        labels: Vec::new(),
        network: NetworkMode::Default,
        extra_hosts: Vec::new(),
        allowed: std::collections::BTreeSet::new(),
    };
    for line in flags.lines() {
        let (flag, value) =
            line.split_once(' ').unwrap_or_else(|| panic!("`{line}` is not of the form `--flag value`"));
        set(&mut request, flag, value);
    }
    request
}

fn set(request: &mut Request, flag: &str, value: &str) {
    let pair = || value.split_once('=').unwrap_or_else(|| panic!("`{flag} {value}` lacks its `=`"));
    match flag {
        "--target" => request.target = Some(value.to_owned()),
        "--platform" => request.platform = Some(value.parse().unwrap()),
        "--build-arg" => {
            let (name, value) =
                value.split_once('=').map_or((value, None), |(name, value)| (name, Some(value)));
            request.build_args.push(BuildArg { name: name.to_owned(), value: value.map(ToOwned::to_owned) });
        }
        "--build-context" => {
            let (name, value) = pair();
            let image = value.strip_prefix("docker-image://");
            let kind = image.map_or(ContextKind::Directory, |image| {
                ContextKind::Image(oci::Reference::parse(image).unwrap())
            });
            request.named_contexts.push(NamedContext { name: name.to_owned(), kind });
        }
        "--label" => request.labels.push((pair().0.to_owned(), pair().1.to_owned())),
        "--network" => {
            request.network = match value {
                "none" => NetworkMode::None,
                "host" => NetworkMode::Host,
                other => panic!("`{other}` is no network of these tests"),
            };
        }
        "--add-host" => {
            let (name, address) = pair();
            request.extra_hosts.push(ExtraHost { name: name.to_owned(), address: address.parse().unwrap() });
        }
        "--allow" => {
            let known = Entitlement::ALL.into_iter().find(|known| known.as_str() == value);
            request.allowed.insert(known.unwrap());
        }
        other => panic!("`{other}` is no flag of these tests"),
    }
}
