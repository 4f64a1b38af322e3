//! Parsing. Decides whether a parsed Dockerfile is worth keeping between builds: it is not while this is far below a millisecond.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dockerfile::{Source, parse};

/// A stage with every shape of instruction that costs something: flags, continuation, JSON, heredoc, comments.
const STAGE: &str = r#"
FROM --platform=$BUILDPLATFORM debian:12 AS stage
ARG VERSION=1 NAME="a b"
ENV PATH=/opt/bin:$PATH \
    LANG=C.UTF-8
# what is needed to compile
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked \
    --mount=type=secret,id=token,required=true \
    apt-get update && \
    # the compiler
    apt-get install -y gcc make
COPY --from=base --chown=1000:1000 --chmod=0644 ["src/main file.c", "include/*.h", "/source/"]
COPY <<one <<-two /etc/
line ${VERSION:-none}
one
	indented
	two
HEALTHCHECK --interval=5s CMD ["curl", "-f", "http://localhost/"]
ENTRYPOINT ["/bin/tool", "--serve"]
"#;

fn parsing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse");
    for stages in [1, 100] {
        let text = STAGE.repeat(stages).replacen("\n", "", 1);
        let source = Source::new("Dockerfile".to_owned(), text.as_bytes());
        assert!(!parse(&source).has_errors());
        group.throughput(Throughput::Bytes(text.len() as u64));
        group
            .bench_function(format!("{stages}-stages"), |bencher| bencher.iter(|| parse(black_box(&source))));
    }
    group.finish();
}

criterion_group!(benches, parsing);
criterion_main!(benches);
