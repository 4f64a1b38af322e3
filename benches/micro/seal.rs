//! Sealing what a RUN wrote. Decides the size of batches and how many readers pay off; sha256 of the tar is the floor.

use benches::micro::scaled;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use layer::Merged;
use layer::seal::seal;
use sys::root::Dir;
use testkit::tree::{self, Shape};

fn sealing(criterion: &mut Criterion) {
    let work = tempfile::tempdir().expect("there is a temporary directory");
    let shapes = [
        ("small-files", scaled(shape(10_000, 20_000_000), shape(40, 4_000))),
        ("large-files", scaled(shape(16, 200_000_000), shape(4, 400_000))),
    ];
    let mut group = criterion.benchmark_group("seal");
    group.sample_size(10);
    for (name, shape) in shapes {
        let top = work.path().join(name);
        std::fs::create_dir(&top).expect("it is new");
        tree::plant(&top, shape).expect("the tree can be made");
        let tree = Dir::open(&top).expect("it was just made");
        let below = Merged::new(Vec::new());
        group.throughput(Throughput::Bytes(shape.size_bytes));
        for threads in [1, 2, 4] {
            group.bench_function(format!("{name}/{threads}-readers"), |bencher| {
                bencher.iter(|| seal(&tree, &below, threads, &|| false).expect("nothing changes"));
            });
        }
    }
    group.finish();
}

fn shape(files: usize, size_bytes: u64) -> Shape {
    Shape { top_directories: 4, directories_each: 4, files, size_bytes }
}

criterion_group!(benches, sealing);
criterion_main!(benches);
