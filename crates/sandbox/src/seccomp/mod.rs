//! The system call filter: Docker's default profile, as a table ([`table`]) and a BPF program made from it ([`program`]).
//!
//! Two things differ from Docker. A call that the table does not know is answered `ENOSYS` instead of `EPERM`, so that a C library
//! newer than the table falls back to the older call. And `TIOCSTI` and `TIOCLINUX`, which type into a terminal, are refused on any
//! descriptor. Arguments are compared in their lower 32 bits, which is all that the kernel reads of those we look at: a family
//! number hidden behind upper bits does not pass.
//!
//! On x86_64, 32-bit programs have their own column; the x32 numbers are answered `ENOSYS`, as by a kernel built without x32.

mod program;
mod table;

use sys::seccomp::Instruction;

use program::{Condition, Section};

/// What becomes of a system call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Verdict {
    /// It is made.
    Allow,
    /// `EPERM`.
    Deny,
    /// `ENOSYS`, as from a kernel that does not have it.
    Absent,
    /// `clone`: allowed without new namespaces. (`clone3` hides its flags behind a pointer and is [`Verdict::Absent`].)
    CloneFlags,
    /// `personality`: allowed for the harmless ones and for asking.
    Personality,
    /// `socket`: any family but those that reach into the kernel's crypto interface and to the hypervisor.
    SocketFamily,
    /// `ioctl`: any but those that type into a terminal.
    Terminal,
}

/// `CLONE_NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET`
const NAMESPACE_FLAGS: u32 = 0x7e02_0000;
/// `PER_LINUX`, `PER_LINUX32`, each with and without `UNAME26`, and the question for the current one.
const PERSONALITIES: &[u32] = &[0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];
/// `AF_ALG`, `AF_VSOCK`
const REFUSED_FAMILIES: &[u32] = &[38, 40];
/// `TIOCSTI`, `TIOCLINUX`
const REFUSED_TERMINAL_REQUESTS: &[u32] = &[0x5412, 0x541c];

/// How the kernel names architectures to filters (`AUDIT_ARCH_…`).
const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;
const AARCH64: u32 = 0xc000_00b7;

impl Verdict {
    fn condition(self) -> Condition {
        match self {
            Self::Allow => Condition::Always,
            Self::Deny => Condition::Never { errno: program::EPERM },
            Self::Absent => Condition::Never { errno: program::ENOSYS },
            Self::CloneFlags => Condition::NoneOfBits { argument: 0, bits: NAMESPACE_FLAGS },
            Self::Personality => Condition::OneOf { argument: 0, values: PERSONALITIES },
            Self::SocketFamily => Condition::NoneOf { argument: 0, values: REFUSED_FAMILIES },
            Self::Terminal => Condition::NoneOf { argument: 1, values: REFUSED_TERMINAL_REQUESTS },
        }
    }
}

/// The filter for programs of the architecture that this is compiled for, and of its 32-bit sister where it has one.
pub(crate) fn filter() -> Vec<Instruction> {
    let sections = if cfg!(target_arch = "x86_64") {
        vec![section(X86_64, |call| call.x86_64), section(I386, |call| call.i386)]
    } else {
        vec![section(AARCH64, |call| call.aarch64)]
    };
    program::assemble(&sections)
}

fn section(architecture: u32, number: impl Fn(&table::Call) -> i32) -> Section {
    let calls = table::CALLS
        .iter()
        .filter_map(|call| Some((u32::try_from(number(call)).ok()?, call.verdict.condition())))
        .collect();
    Section { architecture, calls }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use expect_test::{Expect, expect};

    use super::*;

    /// Runs the filter as the kernel would, on one call.
    #[track_caller]
    fn run(sections: &[Section], architecture: u32, number: u32, arguments: [u64; 2]) -> String {
        let mut data = Vec::new();
        data.extend(number.to_le_bytes());
        data.extend(architecture.to_le_bytes());
        data.extend(0_u64.to_le_bytes());
        arguments.iter().for_each(|argument| data.extend(argument.to_le_bytes()));
        match program::interpret(&program::assemble(sections), &data) {
            0x7fff_0000 => "allow".to_owned(),
            0x0005_0001 => "EPERM".to_owned(),
            0x0005_0026 => "ENOSYS".to_owned(),
            other => panic!("verdict {other:#x}"),
        }
    }

    fn all_sections() -> Vec<Section> {
        vec![section(X86_64, |c| c.x86_64), section(I386, |c| c.i386), section(AARCH64, |c| c.aarch64)]
    }

    #[test]
    fn every_number_of_every_architecture_has_the_verdict_of_its_name() {
        let sections = all_sections();
        for (architecture, number) in [
            (X86_64, (|c| c.x86_64) as fn(&table::Call) -> i32),
            (I386, |c| c.i386),
            (AARCH64, |c| c.aarch64),
        ] {
            for call in table::CALLS {
                let Ok(number) = u32::try_from(number(call)) else { continue };
                let expected = match call.verdict {
                    Verdict::Deny => "EPERM",
                    Verdict::Absent => "ENOSYS",
                    _ => "allow",
                };
                // Zero arguments satisfy every condition.
                assert_eq!(run(&sections, architecture, number, [0, 0]), expected, "{}", call.name);
            }
            assert_eq!(run(&sections, architecture, 9999, [0, 0]), "ENOSYS");
        }
    }

    #[test]
    fn no_number_is_in_the_table_twice() {
        let columns: [fn(&table::Call) -> i32; 3] = [|c| c.x86_64, |c| c.i386, |c| c.aarch64];
        for column in columns {
            let mut seen = BTreeMap::new();
            for call in table::CALLS.iter().filter(|c| column(c) >= 0) {
                assert_eq!(seen.insert(column(call), call.name), None, "{}", call.name);
            }
        }
    }

    #[track_caller]
    fn check(name: &str, arguments: [u64; 2], expected: Expect) {
        let call = table::CALLS.iter().find(|call| call.name == name).unwrap();
        expected.assert_eq(&run(&all_sections(), X86_64, call.x86_64 as u32, arguments));
    }

    #[test]
    fn arguments_decide_for_clone_personality_socket_and_ioctl() {
        check("clone", [0x0120_0011, 0], expect!["allow"]); // what fork uses
        check("clone", [0x1000_0000, 0], expect!["EPERM"]); // a user namespace
        check("clone", [0x0200_0000, 0], expect!["EPERM"]); // a cgroup namespace
        check("clone3", [0, 0], expect!["ENOSYS"]);
        check("personality", [0xffff_ffff, 0], expect!["allow"]);
        check("personality", [0x0040_0000, 0], expect!["EPERM"]); // ADDR_NO_RANDOMIZE
        check("socket", [2, 0], expect!["allow"]);
        check("socket", [38, 0], expect!["EPERM"]);
        check("socket", [39, 0], expect!["allow"]);
        check("socket", [40, 0], expect!["EPERM"]);
        check("socket", [0x1_0000_0026, 0], expect!["EPERM"]);
        check("ioctl", [0, 0x5413], expect!["allow"]);
        check("ioctl", [0, 0x5412], expect!["EPERM"]);
        check("ioctl", [0, 0x541c], expect!["EPERM"]);
        check("ioctl", [0, 0xffff_ffff_0000_5412], expect!["EPERM"]);
    }

    #[test]
    fn x32_numbers_and_foreign_architectures_do_not_exist() {
        assert_eq!(run(&all_sections(), X86_64, 0x4000_0000, [0, 0]), "ENOSYS");
        assert_eq!(run(&all_sections(), 0x1234, 0, [0, 0]), "ENOSYS");
    }

    #[test]
    fn the_filter_fits_the_kernels_limit() {
        assert!(program::assemble(&all_sections()).len() < 4096);
    }
}
