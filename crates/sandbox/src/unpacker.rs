//! What the supervisor tells an unpacker, on the unpacker's channel: that its place stands, its limits, and what else to do.

use std::io::{self, Read};

use crate::{Prepare, UnpackLimits};

/// Starts an unpacker's work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    /// What the package may unpack to.
    pub(crate) limits: UnpackLimits,
    /// What else is to be done.
    pub(crate) prepare: Prepare,
}

impl Order {
    const SIZE: usize = 17;

    pub(crate) fn encode(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[..8].copy_from_slice(&self.limits.bytes.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.limits.entries.to_le_bytes());
        bytes[16] = self.prepare.code();
        bytes
    }

    /// Waits for the order. `UnexpectedEof` when the supervisor gave up before.
    pub(crate) fn receive(channel: impl Read) -> io::Result<Self> {
        let mut channel = channel;
        let mut bytes = [0; Self::SIZE];
        channel.read_exact(&mut bytes)?;
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let prepare = Prepare::from_code(bytes[16]).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { limits: UnpackLimits { bytes: word(0), entries: word(8) }, prepare })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_survives_its_bytes() {
        let order = Order { limits: UnpackLimits { bytes: 1 << 40, entries: 7 }, prepare: Prepare::Wasm };
        assert_eq!(Order::receive(&order.encode()[..]).unwrap(), order);
        assert!(Order::receive(&order.encode()[..9]).is_err());
    }
}
