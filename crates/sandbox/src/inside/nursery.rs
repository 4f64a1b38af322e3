//! Where the first processes of sandboxes are born.
//!
//! To execute our own program costs more than a sandbox: it is large, it is linked, and each of its pages that is touched must be
//! mapped. So it is executed once, by the launcher, and stays: a small process with one thread, which knows nothing of any
//! sandbox. For each it makes a copy of itself in new namespaces, a child of the launcher, and goes on waiting.

use std::os::fd::AsFd;

use sys::descriptor_socket::{DescriptorSocket, Message};
use sys::process::{Forked, fork_into_namespaces};
use sys::this_process;

use super::message::{Birth, Order, decode, encode, errno};
use super::{NOT_STARTED, enter, report_failure};
use crate::Network;

/// Serves the launcher until that closes the socket, and gives the exit code, in every copy as in the original.
pub(super) fn serve(orders: DescriptorSocket) -> i32 {
    // What the terminal sends to us and to our starter is for the starter alone. The copies begin so, too.
    if this_process::block_all_signals().is_err() {
        return NOT_STARTED;
    }
    while let Ok(Some(order)) = orders.receive() {
        match bear(order) {
            Outcome::Copy(socket, network) => {
                drop(orders);
                return enter(socket, network)
                    .map_or_else(|(socket, failure)| report_failure(&socket, failure), i32::from);
            }
            Outcome::Original(birth, pidfd) => {
                let descriptors: Vec<_> = pidfd.iter().map(AsFd::as_fd).collect();
                let told = encode(&birth).and_then(|text| orders.send(&text, &descriptors));
                if told.is_err() {
                    return NOT_STARTED;
                }
            }
        }
    }
    0
}

enum Outcome {
    Copy(DescriptorSocket, Network),
    Original(Birth, Option<std::os::fd::OwnedFd>),
}

fn bear(order: Message) -> Outcome {
    let failed = |error: &std::io::Error| Outcome::Original(Birth::Failed { errno: errno(error) }, None);
    let mut descriptors = order.descriptors.into_iter();
    let (socket, cgroup) = (descriptors.next().map(DescriptorSocket::from), descriptors.next());
    let (Ok(Order { network }), Some(socket)) = (decode(&order.bytes), socket) else {
        return failed(&std::io::ErrorKind::InvalidData.into());
    };
    match fork_into_namespaces(cgroup.as_ref().map(AsFd::as_fd)) {
        Ok(Forked::Child) => Outcome::Copy(socket, network),
        Ok(Forked::Parent(child)) => Outcome::Original(Birth::Born { pid: child.pid }, Some(child.pidfd)),
        Err(error) => failed(&error),
    }
}
