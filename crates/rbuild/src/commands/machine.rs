//! What rbuild is and what it finds here: `version`, `info`.

use sandbox::{Machine, SandboxError};
use serde_json::{Value, json};

use crate::cli::{FormatArgs, Global};
use crate::failure::Failure;
use crate::listing;
use crate::session::{Session, store_failure};

/// Until there is a bridge, a RUN reaches what the machine reaches. Whoever builds must know.
const RUN_NETWORK: &str = "the machine's own (`--network none` for none)";

/// Shows the version.
pub(crate) fn version(args: &FormatArgs) -> Result<(), Failure> {
    let (version, platform) = (env!("CARGO_PKG_VERSION"), oci::Platform::host().to_string());
    let rows = [("version", version.to_owned()), ("platform", platform.clone())];
    listing::print_facts(args.format, &rows, &json!({ "version": version, "platform": platform }))
}

/// Shows the store and what the machine allows.
pub(crate) fn info(args: &FormatArgs, global: &Global) -> Result<(), Failure> {
    let session = Session::open(global)?;
    let store = session.store();
    let images = store.image_ids().map_err(|error| store_failure(&error))?.len();
    let tags = store.tags().map_err(|error| store_failure(&error))?.len();
    let root = store.root().display().to_string();
    let machine = Machine::probe(&[]);
    let mut rows = vec![
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("platform", oci::Platform::host().to_string()),
        ("store", root.clone()),
        ("images", format!("{images}, with {tags} names")),
        ("network of RUN", RUN_NETWORK.to_owned()),
    ];
    rows.extend(machine_rows(&machine));
    let document = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "platform": oci::Platform::host().to_string(),
        "store": { "root": root, "images": images, "names": tags },
        "run_network": "host",
        "machine": machine_document(&machine),
    });
    listing::print_facts(args.format, &rows, &document)?;
    session.close()
}

fn machine_rows(machine: &Result<Machine, SandboxError>) -> Vec<(&'static str, String)> {
    let machine = match machine {
        Ok(machine) => machine,
        Err(error) => return vec![("sandbox", format!("not available: {error}"))],
    };
    let yes_no = |flag: bool| if flag { "yes" } else { "no" }.to_owned();
    let mut rows = vec![
        ("kernel", machine.kernel.clone()),
        ("overlayfs takes layers one by one", yes_no(machine.lowerdir_append)),
        ("system calls filtered", yes_no(machine.seccomp)),
        ("cgroup 2", list(&machine.cgroup2_controllers, machine.cgroup2.is_some())),
        ("cgroup 1", list(machine.cgroup1.keys(), !machine.cgroup1.is_empty())),
        ("devices filtered", yes_no(machine.device_filter)),
    ];
    let lowered = machine.lowered();
    rows.extend(lowered.into_iter().map(|sentence| ("lowered", sentence.to_owned())));
    rows
}

/// Controllers, if the hierarchy is there at all.
fn list<'c>(controllers: impl IntoIterator<Item = &'c String>, is_there: bool) -> String {
    let names: Vec<&str> = controllers.into_iter().map(String::as_str).collect();
    match (is_there, names.is_empty()) {
        (false, _) => "no".to_owned(),
        (true, true) => "yes, without controllers".to_owned(),
        (true, false) => names.join(" "),
    }
}

fn machine_document(machine: &Result<Machine, SandboxError>) -> Value {
    match machine {
        Err(error) => json!({ "error": error.to_string() }),
        Ok(machine) => json!({
            "kernel": machine.kernel,
            "overlay_lowerdir_append": machine.lowerdir_append,
            "seccomp": machine.seccomp,
            "cgroup2": machine.cgroup2,
            "cgroup2_controllers": machine.cgroup2_controllers,
            "cgroup1_controllers": machine.cgroup1.keys().collect::<Vec<_>>(),
            "device_filter": machine.device_filter,
            "lowered": machine.lowered(),
        }),
    }
}
