//! Which devices can be opened: Docker's default rules, as a program for a cgroup 2.

/// Access to devices: nodes of every kind may be made, and these character devices used.
#[derive(Debug)]
pub(crate) struct Rules {
    usable: &'static [Device],
}

#[derive(Clone, Copy, Debug)]
struct Device {
    major: i32,
    /// `None`: every minor.
    minor: Option<i32>,
}

const fn device(major: i32, minor: i32) -> Device {
    Device { major, minor: Some(minor) }
}

/// Docker's default rules.
pub(crate) const RULES: Rules = Rules {
    usable: &[
        device(1, 3),                       // null
        device(1, 5),                       // zero
        device(1, 7),                       // full
        device(1, 8),                       // random
        device(1, 9),                       // urandom
        device(5, 0),                       // tty
        device(5, 1),                       // console
        device(5, 2),                       // ptmx
        Device { major: 136, minor: None }, // pts/*
    ],
};

// eBPF operations, registers and `struct bpf_cgroup_dev_ctx` (linux/bpf.h): the access wanted in the upper half of the first word
// and the kind of device in the lower, then major and minor.
const LOAD_WORD: u8 = 0x61;
const AND: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const MOVE: u8 = 0xb7;
const COPY: u8 = 0xbf;
const JUMP_IF_NOT: u8 = 0x55;
const EXIT: u8 = 0x95;
const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const ACCESS_MAKE_NODE: i32 = 1;
const KIND_CHARACTER: i32 = 2;

impl Rules {
    /// The rules as instructions for [`sys::device_filter::load`].
    pub(crate) fn program(&self) -> Vec<u64> {
        let mut program = vec![
            operation(LOAD_WORD, KIND, CONTEXT, 0, 0),
            operation(COPY, ACCESS, KIND, 0, 0),
            operation(AND, KIND, 0, 0, 0xffff),
            operation(SHIFT_RIGHT, ACCESS, 0, 0, 16),
            operation(LOAD_WORD, MAJOR, CONTEXT, 4, 0),
            operation(LOAD_WORD, MINOR, CONTEXT, 8, 0),
        ];
        program.extend(allow_if(&[(ACCESS, ACCESS_MAKE_NODE)]));
        for device in self.usable {
            let mut tests = vec![(KIND, KIND_CHARACTER), (MAJOR, device.major)];
            tests.extend(device.minor.map(|minor| (MINOR, minor)));
            program.extend(allow_if(&tests));
        }
        program.extend([operation(MOVE, RESULT, 0, 0, 0), operation(EXIT, 0, 0, 0, 0)]);
        program
    }
}

/// Ends with yes if all registers have these values, else goes on behind.
fn allow_if(tests: &[(u8, i32)]) -> Vec<u64> {
    let mut program = Vec::new();
    for (left, &(register, value)) in (1..=tests.len()).rev().zip(tests) {
        // Over the tests that are left and the two instructions of the yes.
        let skip = i16::try_from(left + 1).expect("a handful of tests");
        program.push(operation(JUMP_IF_NOT, register, 0, skip, value));
    }
    program.extend([operation(MOVE, RESULT, 0, 0, 1), operation(EXIT, 0, 0, 0, 0)]);
    program
}

/// Packs one instruction as `struct bpf_insn`.
fn operation(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> u64 {
    let registers = destination | source << 4;
    let [o0, o1] = offset.to_le_bytes();
    let [i0, i1, i2, i3] = immediate.to_le_bytes();
    u64::from_le_bytes([code, registers, o0, o1, i0, i1, i2, i3])
}
