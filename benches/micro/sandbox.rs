//! Starting `true` in a sandbox and waiting for its end. Decides what may be set up for each process, and what once.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use criterion::{Criterion, criterion_group};
use sandbox::{
    Access, Durability, HelperProgram, Layers, Limits, Machine, MissingCwd, Network, NewPrivileges, PidOne,
    Sandboxes, Spec, Stdio, Upper, User,
};
use sys::RootfsPath;
use testkit::requirements::{Need, can_run};

fn starting(criterion: &mut Criterion) {
    if !can_run("bench of starting sandboxes", &[Need::Root, Need::Busybox]) {
        return;
    }
    let work = tempfile::tempdir().expect("there is a temporary directory");
    let root = work.path().join("root");
    std::fs::create_dir(&root).expect("it is new");
    testkit::rootfs::make_busybox(&root).expect("busybox is there");
    let machine = Machine::probe(&[]).expect("root may make namespaces");
    let owner = format!("bench-{}", std::process::id()).parse().expect("it is a good name");
    let sandboxes = Sandboxes::open(machine, owner, HelperProgram::ThisProgram).expect("they can be started");
    let mut group = criterion.benchmark_group("sandbox");
    for (name, network) in [("host-network", Network::Host), ("no-network", Network::None)] {
        group.bench_function(format!("true/{name}"), |bencher| {
            bencher.iter(|| {
                let spec = spec(&root, work.path(), network);
                let (process, _output) = sandboxes.start(&spec).expect("true starts");
                assert_eq!(process.wait().expect("it ends").code(), 0);
            });
        });
    }
    group.finish();
    sandboxes.settle();
}

/// What a RUN has, without its mounts of single files.
fn spec(root: &Path, work: &Path, network: Network) -> Spec {
    Spec {
        root: Layers { lower: vec![root.to_owned()], upper: Some(upper(work)) },
        root_access: Access::ReadWrite,
        mounts: Vec::new(),
        args: vec!["/bin/true".into()],
        env: vec![("PATH".into(), "/bin".into())],
        cwd: RootfsPath::root(),
        missing_cwd: MissingCwd::Fail,
        user: User::default(),
        hostname: "bench".to_owned(),
        network,
        limits: Limits::default(),
        stdio: Stdio::Inherited,
        pid_one: PidOne::Command,
        new_privileges: NewPrivileges::Allowed,
        posture: sandbox::Posture::Confined,
    }
}

/// A new upper and work directory, as each RUN has them.
fn upper(work: &Path) -> Upper {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let made = |name: &str| -> PathBuf {
        let path = work.join(format!("{number}/{name}"));
        std::fs::create_dir_all(&path).expect("it is new");
        path
    };
    Upper { directory: made("upper"), work: made("work"), durability: Durability::Volatile }
}

criterion_group!(benches, starting);

fn main() {
    // The sandbox starts this very program anew to set a process up.
    sandbox::helper_main();
    benches();
    Criterion::default().configure_from_args().final_summary();
}
