//! The process that every sandbox begins as a copy of.
//!
//! To execute our own program costs more than a sandbox: it is large, it is linked, and each of its pages that is touched must be
//! mapped. So it is executed once, by the launcher, and stays: a small process with one thread, which knows nothing of any
//! sandbox. For each it copies itself into new namespaces, as a child of the launcher, and goes on waiting. That it has one thread, so
//! that no lock can be held by another, is what makes the copy able to do all that follows.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use sys::descriptor_socket::{DescriptorSocket, Message};
use sys::process::{Forked, fork_into_namespaces};
use sys::this_process;

use super::message::{Order, Outcome, decode, encode, errno};
use super::{NOT_STARTED, enter, report_failure};

/// Serves the launcher until that closes the socket, and gives the exit code, in every copy as in the original.
pub(super) fn serve(orders: DescriptorSocket) -> i32 {
    // What the terminal sends to us and to our starter is for the starter alone. The copies begin so, too.
    if this_process::block_all_signals().is_err() {
        return NOT_STARTED;
    }
    while let Ok(Some(message)) = orders.receive() {
        match fork(message) {
            Side::Copy(socket, order) => {
                drop(orders);
                return enter(socket, order)
                    .map_or_else(|(socket, failure)| report_failure(&socket, failure), i32::from);
            }
            Side::Original(outcome, pidfd) => {
                let descriptors: Vec<_> = pidfd.iter().map(AsFd::as_fd).collect();
                let told = encode(&outcome).and_then(|text| orders.send(&text, &descriptors));
                if told.is_err() {
                    return NOT_STARTED;
                }
            }
        }
    }
    0
}

/// Which of the two a process is, and what it has to do.
enum Side {
    Copy(DescriptorSocket, Order),
    Original(Outcome, Option<OwnedFd>),
}

fn fork(message: Message) -> Side {
    let failed = |error: &io::Error| Side::Original(Outcome::Failed { errno: errno(error) }, None);
    let mut descriptors = message.descriptors.into_iter();
    let (socket, cgroup) = (descriptors.next().map(DescriptorSocket::from), descriptors.next());
    let (Ok(order), Some(socket)) = (decode::<Order>(&message.bytes), socket) else {
        return failed(&io::ErrorKind::InvalidData.into());
    };
    match fork_into_namespaces(cgroup.as_ref().map(AsFd::as_fd)) {
        Ok(Forked::Child) => Side::Copy(socket, order),
        Ok(Forked::Parent(child)) => Side::Original(Outcome::Forked { pid: child.pid }, Some(child.pidfd)),
        Err(error) => failed(&error),
    }
}
