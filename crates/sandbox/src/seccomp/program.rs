//! From verdicts by number to a classic BPF program: per architecture a binary search over runs of numbers with one verdict.

use sys::seccomp::Instruction;

/// `EPERM`
pub(super) const EPERM: u16 = 1;
/// `ENOSYS`
pub(super) const ENOSYS: u16 = 38;

/// When a call is allowed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Condition {
    /// Always.
    Always,
    /// Never; this is the answer.
    Never { errno: u16 },
    /// If none of these bits is set in the argument, else `EPERM`.
    NoneOfBits { argument: u32, bits: u32 },
    /// If the argument is one of these, else `EPERM`.
    OneOf { argument: u32, values: &'static [u32] },
    /// If the argument is none of these, else `EPERM`.
    NoneOf { argument: u32, values: &'static [u32] },
}

/// The calls of one architecture, in any order. Numbers that are absent are answered `ENOSYS`.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) architecture: u32,
    pub(super) calls: Vec<(u32, Condition)>,
}

// Operation codes (linux/bpf_common.h), and offsets into `struct seccomp_data`.
const LOAD: u16 = 0x20;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER_EQUAL: u16 = 0x35;
const JUMP_BITS: u16 = 0x45;
const RETURN: u16 = 0x06;
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

const ALLOW: Instruction = statement(RETURN, 0x7fff_0000);

const fn statement(code: u16, operand: u32) -> Instruction {
    Instruction { code, jump_true: 0, jump_false: 0, operand }
}

const fn refuse(errno: u16) -> Instruction {
    statement(RETURN, 0x0005_0000 | errno as u32)
}

/// The whole program. An architecture without a section is answered `ENOSYS`.
pub(super) fn assemble(sections: &[Section]) -> Vec<Instruction> {
    let mut program = vec![statement(LOAD, ARCHITECTURE)];
    for section in sections {
        let mut body = vec![statement(LOAD, NUMBER)];
        body.extend(search(&runs(section)));
        program.extend(branch(JUMP_EQUAL, section.architecture, body));
    }
    program.push(refuse(ENOSYS));
    program
}

/// `body` if the comparison holds, else what comes after it.
fn branch(code: u16, operand: u32, body: Vec<Instruction>) -> Vec<Instruction> {
    // Conditional jumps reach 255 instructions, the unconditional one any number.
    let skip = statement(JUMP, length(&body));
    let mut program = vec![Instruction { code, jump_true: 1, jump_false: 0, operand }, skip];
    program.extend(body);
    program
}

fn length(program: &[Instruction]) -> u32 {
    u32::try_from(program.len()).expect("a filter has at most 4096 instructions")
}

/// Runs of consecutive numbers with one condition: the first number of each, ascending, without gaps from zero on.
fn runs(section: &Section) -> Vec<(u32, Condition)> {
    let absent = Condition::Never { errno: ENOSYS };
    let mut calls = section.calls.clone();
    calls.sort_unstable_by_key(|&(number, _)| number);
    let mut runs: Vec<(u32, Condition)> = Vec::new();
    let mut push = |first: u32, condition: Condition| {
        if runs.last().is_none_or(|&(_, last)| last != condition) {
            runs.push((first, condition));
        }
    };
    let mut next = 0;
    for (number, condition) in calls {
        if number > next {
            push(next, absent);
        }
        push(number, condition);
        next = number + 1;
    }
    push(next, absent);
    runs
}

/// Finds the run of the loaded number by bisection.
fn search(runs: &[(u32, Condition)]) -> Vec<Instruction> {
    let (below, from) = runs.split_at(runs.len() / 2);
    match (below, from) {
        ([], [(_, condition)]) => decide(*condition),
        ([], _) => vec![refuse(ENOSYS)],
        (_, [(pivot, _), ..]) => {
            let mut program = branch(JUMP_GREATER_EQUAL, *pivot, search(from));
            program.extend(search(below));
            program
        }
        (_, []) => search(below),
    }
}

fn decide(condition: Condition) -> Vec<Instruction> {
    match condition {
        Condition::Always => vec![ALLOW],
        Condition::Never { errno } => vec![refuse(errno)],
        Condition::NoneOfBits { argument, bits } => {
            on_match(argument, JUMP_BITS, &[bits], refuse(EPERM), ALLOW)
        }
        Condition::OneOf { argument, values } => on_match(argument, JUMP_EQUAL, values, ALLOW, refuse(EPERM)),
        Condition::NoneOf { argument, values } => {
            on_match(argument, JUMP_EQUAL, values, refuse(EPERM), ALLOW)
        }
    }
}

/// `hit` if one comparison of the argument's lower half holds, else `miss`.
fn on_match(
    argument: u32,
    code: u16,
    operands: &[u32],
    hit: Instruction,
    miss: Instruction,
) -> Vec<Instruction> {
    let mut program = vec![statement(LOAD, ARGUMENTS + 8 * argument)];
    for (left, &operand) in (1..=operands.len()).rev().zip(operands) {
        // Over the comparisons that are left and the miss.
        let jump_true = u8::try_from(left).expect("a handful of values");
        program.push(Instruction { code, jump_true, jump_false: 0, operand });
    }
    program.extend([miss, hit]);
    program
}

/// Runs a program on the bytes of a `struct seccomp_data`, as the kernel does.
#[cfg(test)]
pub(super) fn interpret(program: &[Instruction], data: &[u8]) -> u32 {
    let (mut at, mut accumulator) = (0, 0);
    loop {
        let Instruction { code, jump_true, jump_false, operand } = program[at];
        at += 1;
        let holds = match code {
            LOAD => {
                let from = operand as usize;
                accumulator = u32::from_le_bytes(data[from..from + 4].try_into().unwrap());
                continue;
            }
            JUMP => {
                at += operand as usize;
                continue;
            }
            RETURN => return operand,
            JUMP_EQUAL => accumulator == operand,
            JUMP_GREATER_EQUAL => accumulator >= operand,
            JUMP_BITS => accumulator & operand != 0,
            other => panic!("operation {other:#x}"),
        };
        at += usize::from(if holds { jump_true } else { jump_false });
    }
}
