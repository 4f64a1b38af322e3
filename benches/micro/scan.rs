//! Scanning a context. Decides whether the walk and the stat cache stay within 1.5 times what looking at each file costs.

use std::path::Path;

use benches::micro::scaled;
use context::{Attributes, Context, Ignore, Parents, Source};
use criterion::{Criterion, criterion_group, criterion_main};
use testkit::tree::{self, Shape};

/// The files of a `COPY . .`, by name and digest; the stat cache is kept for the next time.
fn select(top: &Path, stat_cache: &Path) -> usize {
    let context = Context::open(top, Ignore::none(), Some(stat_cache)).expect("the context is there");
    let excludes = Ignore::none();
    let source = Source { pattern: b".", excludes: &excludes, parents: Parents::Dropped };
    let selection = context.select(&source).expect("it can be read");
    selection.digest(Attributes::ALL).expect("no file changes");
    context.save().expect("the stat cache can be written");
    selection.len()
}

fn scanning(criterion: &mut Criterion) {
    let work = tempfile::tempdir().expect("there is a temporary directory");
    let (top, cache) = (work.path().join("context"), work.path().join("stat-cache"));
    std::fs::create_dir(&top).expect("it is new");
    let shape = scaled(
        Shape { top_directories: 20, directories_each: 20, files: 10_000, size_bytes: 40_000_000 },
        Shape { top_directories: 2, directories_each: 2, files: 40, size_bytes: 4_000 },
    );
    tree::plant(&top, shape).expect("the tree can be made");
    let mut group = criterion.benchmark_group("scan");
    group.sample_size(20);
    group.bench_function("nothing-known", |bencher| {
        bencher.iter(|| {
            if cache.exists() {
                std::fs::remove_file(&cache).expect("it is ours");
            }
            select(&top, &cache)
        });
    });
    group.bench_function("unchanged", |bencher| bencher.iter(|| select(&top, &cache)));
    group.finish();
}

criterion_group!(benches, scanning);
criterion_main!(benches);
