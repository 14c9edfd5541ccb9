//! Descriptors that go from one process to another through a socket.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::{Result, retry_on_intr};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// Sends the byte `with`, and the descriptor beside it.
///
/// # Errors
/// Those of sendmsg(2).
pub fn send(socket: BorrowedFd<'_>, with: u8, descriptor: BorrowedFd<'_>) -> Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [descriptor];
    // There is room for one.
    if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(rustix::io::Errno::NOBUFS);
    }
    let byte = [with];
    retry_on_intr(|| {
        sendmsg(socket, &[IoSlice::new(&byte)], &mut control, SendFlags::NOSIGNAL).map(|_sent| ())
    })
}

/// Takes the next byte, and the descriptor that came with it; `None` if the other end was closed instead.
///
/// # Errors
/// Those of recvmsg(2).
pub fn receive(socket: BorrowedFd<'_>) -> Result<Option<(u8, Option<OwnedFd>)>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let received = retry_on_intr(|| {
        let mut buffer = [IoSliceMut::new(&mut byte)];
        recvmsg(socket, &mut buffer, &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    if received.bytes == 0 {
        return Ok(None);
    }
    let descriptors = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    Ok(Some((byte[0], descriptors.flatten().next())))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use rustix::pipe::pipe;

    use super::*;

    #[test]
    fn a_descriptor_arrives_beside_its_byte() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (reader, writer) = pipe().unwrap();
        send(theirs.as_fd(), 7, writer.as_fd()).unwrap();
        let (byte, received) = receive(ours.as_fd()).unwrap().unwrap();
        assert_eq!(byte, 7);
        rustix::io::write(received.unwrap(), b"x").unwrap();
        let mut read = [0; 2];
        assert_eq!(rustix::io::read(&reader, &mut read).unwrap(), 1);
    }

    #[test]
    fn a_socket_that_closes_gives_nothing() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        assert!(receive(ours.as_fd()).unwrap().is_none());
    }
}
