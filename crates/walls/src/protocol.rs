//! What the supervisor and a spawner say to each other.
//!
//! One request and one reply, each a single message on a `SOCK_SEQPACKET` socket. The layouts are fixed and carry a
//! version, because the two ends may be different builds for the length of an upgrade: a mismatch is refused.

use std::io;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

pub use crate::step::Step;
pub use crate::wall::{Wall, Without};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};

/// Changes whenever a layout or a meaning below changes.
pub const VERSION: u32 = 3;

/// The most cgroup descriptors one request carries: one per version 1 hierarchy in use.
pub const CGROUPS_MAX: usize = 16;

/// Descriptors that come before the cgroups: channel, log, net namespace and the optional extra one.
const FIXED_DESCRIPTORS: usize = 4;

/// The most descriptors one message carries.
pub const DESCRIPTORS_MAX: usize = FIXED_DESCRIPTORS + CGROUPS_MAX;

/// What a child becomes once its walls stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CellKind {
    /// Waits for one `Exec` frame and replaces itself by that program.
    Launcher,
    /// Continues as the Python bootstrap it was forked from.
    Python,
    /// The same, to be forked itself once it has loaded a function ([`crate::forker`]). Its descriptor 4 is where it is
    /// told to.
    Template,
    /// Unpacks one code package and exits. Its descriptor 4 is the package.
    Unpacker,
    /// Hosts WebAssembly programs.
    Wasm,
    /// Waits like a launcher, with the last walls still to be built: the file system they are about comes with its image.
    Container,
    /// Unpacks one image, whose files belong to many, and exits. Its descriptor 4 is the image.
    ImageUnpacker,
}

impl CellKind {
    fn code(self) -> u32 {
        match self {
            CellKind::Launcher => 1,
            CellKind::Python => 2,
            CellKind::Unpacker => 3,
            CellKind::Wasm => 4,
            CellKind::Template => 5,
            CellKind::Container => 6,
            CellKind::ImageUnpacker => 7,
        }
    }

    /// Whether it has [`ids::COUNT`](crate::ids::COUNT) uids of its own rather than one.
    #[must_use]
    pub fn has_many_ids(self) -> bool {
        matches!(self, CellKind::Container | CellKind::ImageUnpacker)
    }

    fn from_code(code: u32) -> Option<CellKind> {
        const ALL: [CellKind; 7] = [
            CellKind::Launcher,
            CellKind::Python,
            CellKind::Unpacker,
            CellKind::Wasm,
            CellKind::Template,
            CellKind::Container,
            CellKind::ImageUnpacker,
        ];
        ALL.into_iter().find(|kind| kind.code() == code)
    }
}

/// Asks a spawner for one child.
///
/// The descriptors that go with it, in this order:
/// 1. the channel, which becomes descriptor 3 of the child,
/// 2. the write end of the log pipe, which becomes 1 and 2,
/// 3. the net namespace,
/// 4. if `has_extra`: a descriptor that becomes 4 (the unpacker's package, a template's control socket),
/// 5. `cgroups` writable `tasks` (version 1) or `cgroup.procs` files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct MakeRequest {
    /// What the child becomes.
    pub kind: CellKind,
    /// The uid and gid on the host that no other live child has; the first of them for a child that has many.
    pub host_uid: u32,
    /// Size of `/tmp`; `/dev/shm` gets a quarter of it.
    pub tmp_bytes: u64,
    /// How many cgroup descriptors follow.
    pub cgroups: u32,
    /// Whether descriptor 4 is present.
    pub has_extra: bool,
    /// Whether `/proc` shows what concerns no process as well.
    pub full_proc: bool,
    /// The walls left out; [`Without::NOTHING`] except in tests.
    pub without: Without,
}

impl MakeRequest {
    /// Length of the message.
    pub const SIZE: usize = 32;

    /// How many descriptors go with this request.
    #[must_use]
    pub fn descriptors(&self) -> usize {
        3 + usize::from(self.has_extra) + self.cgroups as usize
    }

    /// The message.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[0..4].copy_from_slice(&VERSION.to_ne_bytes());
        bytes[4..8].copy_from_slice(&self.kind.code().to_ne_bytes());
        bytes[8..12].copy_from_slice(&self.host_uid.to_ne_bytes());
        bytes[12..16].copy_from_slice(&self.cgroups.to_ne_bytes());
        bytes[16..24].copy_from_slice(&self.tmp_bytes.to_ne_bytes());
        bytes[24..28].copy_from_slice(&(u32::from(self.has_extra) | u32::from(self.full_proc) << 1).to_ne_bytes());
        bytes[28..32].copy_from_slice(&self.without.bits().to_ne_bytes());
        bytes
    }

    /// Reads a message back. `None` for another length, version or kind, or for more cgroups than [`CGROUPS_MAX`].
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<MakeRequest> {
        let bytes: &[u8; Self::SIZE] = bytes.try_into().ok()?;
        let cgroups = word(bytes, 12);
        if word(bytes, 0) != VERSION || cgroups as usize > CGROUPS_MAX {
            return None;
        }
        Some(MakeRequest {
            kind: CellKind::from_code(word(bytes, 4))?,
            host_uid: word(bytes, 8),
            tmp_bytes: u64::from(word(bytes, 16)) | u64::from(word(bytes, 20)) << 32,
            cgroups,
            has_extra: word(bytes, 24) & 1 != 0,
            full_proc: word(bytes, 24) & 2 != 0,
            without: Without::from_bits(word(bytes, 28)),
        })
    }

    /// Sends the request with its descriptors, which the caller keeps and may close afterwards.
    pub fn send(&self, socket: impl AsFd, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        if descriptors.len() != self.descriptors() || self.cgroups as usize > CGROUPS_MAX {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        send(socket, &self.to_bytes(), descriptors)
    }

    /// Receives a request. `Ok(None)` when the supervisor has closed its end.
    pub(crate) fn receive(socket: impl AsFd) -> io::Result<Option<(MakeRequest, Descriptors)>> {
        let mut bytes = [0; Self::SIZE];
        let (length, descriptors) = receive(socket, &mut bytes)?;
        if length == 0 {
            return Ok(None);
        }
        let invalid = || io::Error::from(io::ErrorKind::InvalidData);
        let request = MakeRequest::from_bytes(&bytes[..length]).ok_or_else(invalid)?;
        if descriptors.len() != request.descriptors() {
            return Err(invalid());
        }
        Ok(Some((request, descriptors)))
    }
}

/// Answers a [`MakeRequest`]: the child exists, or why it does not. The pidfd goes with it when it does. That the
/// child's walls stand is not said here but by the child, on its channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct MakeReply {
    /// The child's pid as the supervisor sees it; 0 when there is none.
    pub pid: i32,
    /// Why there is none; 0 when there is one.
    pub errno: i32,
    /// Which step failed.
    pub step: Step,
}

impl MakeReply {
    /// Length of the message.
    pub const SIZE: usize = 16;

    /// The message.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[0..4].copy_from_slice(&VERSION.to_ne_bytes());
        bytes[4..8].copy_from_slice(&self.pid.to_ne_bytes());
        bytes[8..12].copy_from_slice(&self.errno.to_ne_bytes());
        bytes[12..16].copy_from_slice(&(self.step as u32).to_ne_bytes());
        bytes
    }

    /// Reads a message back.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<MakeReply> {
        let bytes: &[u8; Self::SIZE] = bytes.try_into().ok()?;
        if word(bytes, 0) != VERSION {
            return None;
        }
        let step = word(bytes, 12);
        Some(MakeReply {
            pid: word(bytes, 4).cast_signed(),
            errno: word(bytes, 8).cast_signed(),
            step: Step::ALL.into_iter().find(|known| *known as u32 == step)?,
        })
    }

    pub(crate) fn send(&self, socket: impl AsFd, pidfd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        send(socket, &self.to_bytes(), pidfd.as_slice())
    }

    /// Waits for the answer to the request that was just sent. `UnexpectedEof` when the spawner is gone.
    pub fn receive(socket: impl AsFd) -> io::Result<(MakeReply, Option<OwnedFd>)> {
        let mut bytes = [0; Self::SIZE];
        let (length, mut descriptors) = receive(socket, &mut bytes)?;
        if length == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        let reply = MakeReply::from_bytes(&bytes[..length]).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        Ok((reply, descriptors.take(0)))
    }
}

/// The descriptors that came with a message, in order. Those not taken are closed.
#[derive(Debug)]
pub(crate) struct Descriptors {
    slots: [Option<OwnedFd>; DESCRIPTORS_MAX],
    length: usize,
}

impl Descriptors {
    fn none() -> Descriptors {
        Descriptors { slots: [const { None }; DESCRIPTORS_MAX], length: 0 }
    }

    /// How many came.
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// Looks at one.
    pub(crate) fn get(&self, index: usize) -> Option<BorrowedFd<'_>> {
        self.slots.get(index)?.as_ref().map(AsFd::as_fd)
    }

    /// Takes one out.
    pub(crate) fn take(&mut self, index: usize) -> Option<OwnedFd> {
        self.slots.get_mut(index)?.take()
    }

    /// Closes those numbered higher than `number`; the numbers up to it are somebody else's by now.
    pub(crate) fn close_above(self, number: i32) {
        for descriptor in self.slots.into_iter().flatten() {
            if descriptor.as_raw_fd() <= number {
                std::mem::forget(descriptor);
            }
        }
    }
}

pub(crate) fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub(crate) fn send(socket: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let sent =
        rustix::io::retry_on_intr(|| rustix::net::sendmsg(&socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL))?;
    if sent == bytes.len() { Ok(()) } else { Err(io::Error::from(io::ErrorKind::WriteZero)) }
}

pub(crate) fn receive(socket: impl AsFd, bytes: &mut [u8]) -> io::Result<(usize, Descriptors)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(&socket, &mut [IoSliceMut::new(bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    let mut descriptors = Descriptors::none();
    for ancillary in control.drain() {
        let RecvAncillaryMessage::ScmRights(received) = ancillary else { continue };
        for descriptor in received {
            if let Some(slot) = descriptors.slots.get_mut(descriptors.length) {
                *slot = Some(descriptor);
                descriptors.length += 1;
            }
        }
    }
    if message.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    }
    Ok((message.bytes, descriptors))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_survives_its_bytes() {
        for kind in [
            CellKind::Launcher,
            CellKind::Python,
            CellKind::Unpacker,
            CellKind::Wasm,
            CellKind::Template,
            CellKind::Container,
            CellKind::ImageUnpacker,
        ] {
            let request = MakeRequest {
                kind,
                host_uid: 2_000_000_123,
                tmp_bytes: 0x1_2345_6789,
                cgroups: 5,
                has_extra: true,
                full_proc: true,
                without: Without::from(Wall::Seccomp).and(Wall::DeathSignal),
            };
            assert_eq!(MakeRequest::from_bytes(&request.to_bytes()), Some(request));
            assert_eq!(request.descriptors(), 9);
        }
    }

    #[test]
    fn a_foreign_request_is_refused() {
        let good = MakeRequest {
            kind: CellKind::Launcher,
            host_uid: 1,
            tmp_bytes: 1,
            cgroups: 0,
            has_extra: false,
            full_proc: false,
            without: Without::NOTHING,
        }
        .to_bytes();
        assert!(MakeRequest::from_bytes(&good).is_some());
        for (at, value) in [(0, 99), (4, 99), (12, 200)] {
            let mut bad = good;
            bad[at] = value;
            assert_eq!(MakeRequest::from_bytes(&bad), None, "byte {at}");
        }
        assert_eq!(MakeRequest::from_bytes(&good[1..]), None);
    }

    #[test]
    fn a_reply_survives_its_bytes() {
        for step in Step::ALL {
            let reply = MakeReply { pid: -7, errno: 38, step };
            assert_eq!(MakeReply::from_bytes(&reply.to_bytes()), Some(reply));
        }
    }

    #[test]
    fn a_request_travels_with_its_descriptors() {
        let (left, right) = rustix::net::socketpair(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::SEQPACKET,
            rustix::net::SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        let request = MakeRequest {
            kind: CellKind::Python,
            host_uid: 5,
            tmp_bytes: 6,
            cgroups: 1,
            has_extra: false,
            full_proc: false,
            without: Without::NOTHING,
        };
        let four = [left.as_fd(); 4];
        request.send(&left, &four).unwrap();
        let (received, descriptors) = MakeRequest::receive(&right).unwrap().unwrap();
        assert_eq!((received, descriptors.len()), (request, 4));
        assert!(request.send(&left, &four[1..]).is_err());
        drop((left, descriptors));
        assert!(MakeRequest::receive(&right).unwrap().is_none());
    }
}
