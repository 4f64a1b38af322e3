//! `STOPSIGNAL`: which texts name a signal on Linux.

const NAMES: [&str; 35] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE",
    "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU",
    "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ", "RTMIN",
];

/// Whether `text` is a signal's number, or its name in any case with or without `SIG`.
pub(crate) fn is_signal(text: &str) -> bool {
    if let Ok(number) = text.parse::<i32>() {
        return number != 0;
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    NAMES.contains(&name) || is_realtime(name)
}

/// The name that was probably meant.
pub(crate) fn nearest(text: &str) -> Option<String> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    crate::meant::nearest(name, NAMES).map(|name| format!("SIG{name}"))
}

/// `RTMIN+1` to `RTMIN+15`, `RTMAX-14` to `RTMAX`.
fn is_realtime(name: &str) -> bool {
    let within =
        |digits: &str, last: u8| digits.parse::<u8>().is_ok_and(|offset| (1..=last).contains(&offset));
    match (name.strip_prefix("RTMIN+"), name.strip_prefix("RTMAX-")) {
        (Some(offset), _) => within(offset, 15),
        (_, Some(offset)) => within(offset, 14),
        _ => name == "RTMAX",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_signals() {
        for text in ["SIGTERM", "term", "SigQuit", "9", "64", "SIGRTMIN+3", "RTMAX-14", "SIGRTMAX"] {
            assert!(is_signal(text), "{text}");
        }
        for text in ["", "0", "SIGFOO", "SIG", "RTMIN+16", "RTMAX-15", "9x"] {
            assert!(!is_signal(text), "{text}");
        }
        assert_eq!(nearest("sigtrem").as_deref(), Some("SIGTERM"));
    }
}
