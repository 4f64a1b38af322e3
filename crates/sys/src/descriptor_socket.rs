//! A connected pair of sockets that carries short messages together with descriptors (unix(7), SCM_RIGHTS).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

/// Most descriptors in one message (`SCM_MAX_FD` of the kernel).
pub const MAX_DESCRIPTORS: usize = 253;

/// Longest message.
pub const MAX_MESSAGE_BYTES: usize = 16 * 1024;

/// One end of a pair; messages keep their boundaries.
#[derive(Debug)]
pub struct DescriptorSocket(OwnedFd);

/// What [`DescriptorSocket::receive`] gives.
#[derive(Debug)]
pub struct Message {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The descriptors, close-on-exec.
    pub descriptors: Vec<OwnedFd>,
}

impl From<OwnedFd> for DescriptorSocket {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl From<DescriptorSocket> for OwnedFd {
    fn from(socket: DescriptorSocket) -> Self {
        socket.0
    }
}

impl AsFd for DescriptorSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl DescriptorSocket {
    /// Makes a connected pair, both close-on-exec.
    ///
    /// # Errors
    /// `EMFILE` and the like.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (one, other) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self(one), Self(other)))
    }

    /// Sends one message of at most [`MAX_MESSAGE_BYTES`] with at most [`MAX_DESCRIPTORS`]. Neither may be empty bytes.
    ///
    /// # Errors
    /// `EPIPE` if the other end is closed; no signal is raised.
    pub fn send(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        rustix::net::sendmsg(&self.0, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Receives one message; `None` when the other end is closed.
    ///
    /// # Errors
    /// `ECONNRESET` if the other end was closed with unread messages; `InvalidData` for a message that was cut off.
    pub fn receive(&self) -> io::Result<Option<Message>> {
        let mut bytes = vec![0; MAX_MESSAGE_BYTES];
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let mut parts = [IoSliceMut::new(&mut bytes)];
            match rustix::net::recvmsg(&self.0, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
                Err(rustix::io::Errno::INTR) => {}
                other => break other?,
            }
        };
        if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        }
        let mut descriptors = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
        bytes.truncate(received.bytes);
        Ok((received.bytes > 0).then_some(Message { bytes, descriptors }))
    }

    /// Whether the other end is closed, without waiting.
    ///
    /// # Errors
    /// Those of poll(2).
    pub fn is_closed(&self) -> io::Result<bool> {
        let mut entry = [PollFd::new(&self.0, PollFlags::empty())];
        rustix::event::poll(&mut entry, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
        Ok(entry[0].revents().intersects(PollFlags::HUP | PollFlags::ERR))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;

    use super::*;

    #[test]
    fn a_message_carries_descriptors_and_the_end_is_seen() {
        let (one, other) = DescriptorSocket::pair().unwrap();
        let file = crate::memory_file::sealed("test", b"inside").unwrap();
        one.send(b"hello", &[file.as_fd()]).unwrap();
        let message = other.receive().unwrap().unwrap();
        assert_eq!(message.bytes, b"hello");
        let mut text = String::new();
        File::from(message.descriptors.into_iter().next().unwrap()).read_to_string(&mut text).unwrap();
        assert_eq!(text, "inside");
        assert!(!other.is_closed().unwrap());
        drop(one);
        assert!(other.is_closed().unwrap());
        assert!(other.receive().unwrap().is_none());
    }
}
