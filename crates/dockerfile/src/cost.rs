//! Counts work, so that a test can show that reading takes linear time without a clock. Free outside of tests.
//!
//! Whatever looks at a text says how many bytes it was given; whatever goes through a list, how many items.

#[cfg(test)]
thread_local! {
    static SPENT: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// Adds `amount` to this thread's count.
#[cfg(test)]
pub(crate) fn spend(amount: usize) {
    SPENT.with(|spent| spent.set(spent.get() + amount as u64));
}

/// Does nothing.
#[cfg(not(test))]
pub(crate) fn spend(_: usize) {}

#[cfg(test)]
mod tests {
    use super::SPENT;
    use crate::{Source, parse};

    fn cost_of(text: &str) -> u64 {
        let source = Source::new("Dockerfile", text.as_bytes());
        SPENT.with(|spent| spent.set(0));
        parse(&source);
        SPENT.with(std::cell::Cell::get)
    }

    /// Eight times the input takes at most nine times the work, whether or not it is well formed.
    #[track_caller]
    fn check(before: &str, unit: &str, after: &str) {
        let cost = |count: usize| cost_of(&format!("FROM a\n{before}{}{after}\n", unit.repeat(count)));
        let (small, large) = (cost(1_000), cost(8_000));
        assert!(large <= small * 9, "`{before}{unit}…`: {small} steps become {large}");
    }

    #[test]
    fn many_lines_take_linear_time() {
        for unit in [
            "RUN x\n",
            "FROM b AS c\n",
            "X\n",
            "# c\n",
            "ARG A=1\n",
            "CMD x\n",
            "RUN <<E\nx\nE\n",
            "RUN <<E\n",
        ] {
            check("", unit, "");
        }
    }

    #[test]
    fn long_lines_take_linear_time() {
        check("RUN ", "x", "");
        check("RUN ", "x \\\n", "");
        check("RUN x \\\n", "\n", "");
        check("RUN ", "<<A ", "");
        check("RUN cat ", "<< ", "");
        check("RUN ", "--mount=target=/x ", "");
        check("RUN --mount=", "target=/x,", "");
        check("COPY ", "--link ", "a b");
        check("COPY ", "a ", "b");
        check("COPY ", "<<A ", "b");
        check("COPY [", "\"a\", ", "\"b\"]");
        check("ENV ", "A=b ", "");
        check("ENV A=b \\\n", "C=d \\\n", "");
        check("ONBUILD ", "ONBUILD ", "");
        check("FROM ", "a ", "");
        check("EXPOSE ", "80 ", "");
    }

    #[test]
    fn hostile_words_take_linear_time() {
        for unit in
            ["'", "\"", "\\", "$", "${", "${a", "${a:-", "}", "\"${a:-", "<<", "[", "=", "`", "--", ","]
        {
            check("ENV A=", unit, "");
            check("WORKDIR ", unit, "");
            check("RUN --mount=", unit, " x");
            check("RUN ", unit, "<<E");
        }
    }

    #[test]
    fn one_mebibyte_in_a_line_is_read() {
        let text = format!("FROM a\nRUN {}\nENV A=\"{}\"\n", "x".repeat(1 << 20), "$b".repeat(1 << 19));
        let parsed = parse(&Source::new("Dockerfile", text.as_bytes()));
        assert_eq!(parsed.findings, []);
        assert_eq!(parsed.file.stages[0].instructions.len(), 2);
    }

    #[test]
    fn ten_thousand_stages_are_read() {
        let text: String = (0..10_000).map(|n| format!("FROM a AS s{n}\nCOPY --from=s{n} a b\n")).collect();
        let parsed = parse(&Source::new("Dockerfile", text.as_bytes()));
        assert_eq!(parsed.findings, []);
        assert_eq!(parsed.file.stages.len(), 10_000);
    }
}
