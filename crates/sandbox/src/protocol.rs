//! What the server and the supervisor say to each other.
//!
//! Each message is one packet of a fixed layout, little-endian, some with descriptors. Requests carry an id that their
//! answer repeats, so that many are in flight. A request names cells and interpreters by number and packages by digest; it
//! can name neither a path nor a uid. The supervisor takes every byte for hostile: a packet that does not decode, or that
//! brings other descriptors than its kind does, ends the session.

use std::io;

use dunlin_model::{CellId, Digest, InterpreterId};

use crate::{Bind, CellKind, Ended, Exit, LAYERS_MAX, Net, Prepare, Step, UnpackLimits};

/// The most bytes of an unpacker's report that are passed on.
pub(crate) const REPORT_MAX: usize = 64 * 1024;

/// The longest request: one to bind, with as many layers as there may be.
pub(crate) const REQUEST_MAX: usize = 128 + 32 * LAYERS_MAX;

/// The longest message from the supervisor.
pub(crate) const MESSAGE_MAX: usize = REPORT_MAX + 64;

/// The server asks for something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// Repeated by the answer. The server never has two requests of one id in flight.
    pub(crate) id: u64,
    pub(crate) ask: Ask,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    Make {
        kind: CellKind,
        net: Net,
    },
    Bind {
        cell: CellId,
        bind: Bind,
    },
    SetCpu {
        cell: CellId,
        cpu_millis: u32,
    },
    Socket {
        cell: CellId,
    },
    Freeze {
        cell: CellId,
        frozen: bool,
    },
    End {
        cell: CellId,
    },
    /// Brings one descriptor: the package.
    Unpack {
        package: Digest,
        limits: UnpackLimits,
        prepare: Prepare,
    },
    Discard {
        package: Digest,
    },
    Fork {
        template: CellId,
    },
}

/// The supervisor answers, or says that a cell has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// Answers `Make` and `Fork`. Brings channel, log, and the two files usage is read from.
    Made { id: u64, cell: CellId },
    /// Answers whatever has nothing to say.
    Done { id: u64 },
    /// Answers `Socket`. Brings the socket.
    Socket { id: u64 },
    /// Answers `Unpack`: how the unpacker ended and, unread, what it reported.
    Unpacked { id: u64, ended: Ended, report: Vec<u8> },
    /// Answers `Unpack`: the tree is there already.
    Present { id: u64 },
    /// Answers anything.
    Refused { id: u64, why: Refusal },
    /// Answers nothing: a cell has ended and its walls are down. Sent once per cell, before the `Done` of its `End`.
    Ended { cell: CellId, ended: Ended },
}

/// Why a request was not fulfilled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    NoSuchCell,
    AlreadyBound,
    /// See [`Bind::package`].
    NoSuchTree {
        place: u8,
    },
    Full,
    TimedOut,
    Failed {
        step: Step,
        errno: i32,
    },
}

impl Refusal {
    pub(crate) fn failed(step: Step, error: &io::Error) -> Self {
        Self::Failed { step, errno: error.raw_os_error().unwrap_or(libc::EIO) }
    }
}

/// The packet is no message of this protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the packet is no message of this protocol")]
pub(crate) struct Garbage;

impl Request {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        let kind = match &self.ask {
            Ask::Make { .. } => 1,
            Ask::Bind { .. } => 2,
            Ask::SetCpu { .. } => 3,
            Ask::Socket { .. } => 4,
            Ask::Freeze { .. } => 5,
            Ask::End { .. } => 6,
            Ask::Unpack { .. } => 7,
            Ask::Discard { .. } => 8,
            Ask::Fork { .. } => 9,
        };
        out.u8(kind).u64(self.id);
        match &self.ask {
            Ask::Make { kind, net } => {
                let (kind, interpreter) = match kind {
                    CellKind::Launcher => (1, 0),
                    CellKind::Python(interpreter) => (2, interpreter.0),
                    CellKind::Wasm => (3, 0),
                    CellKind::LeanPython(interpreter) => (4, interpreter.0),
                    CellKind::Template(interpreter) => (5, interpreter.0),
                    CellKind::Container => (6, 0),
                };
                out.u8(kind).rest(&interpreter.to_le_bytes());
                out.u8(match net {
                    Net::Loopback => 1,
                    Net::Internet => 2,
                });
            }
            Ask::Bind { cell, bind } => {
                out.u64(cell.0).u64(bind.memory_bytes).u64(bind.tmp_bytes).u32(bind.cpu_millis).u32(bind.pids);
                out.flag(bind.code.is_some()).digest(bind.code.unwrap_or(Digest([0; 32])));
                out.u8(u8::try_from(bind.layers.len()).expect("a bind has few layers"));
                for layer in &bind.layers {
                    out.digest(*layer);
                }
            }
            Ask::SetCpu { cell, cpu_millis } => {
                out.u64(cell.0).u32(*cpu_millis);
            }
            Ask::Socket { cell } | Ask::End { cell } | Ask::Fork { template: cell } => {
                out.u64(cell.0);
            }
            Ask::Freeze { cell, frozen } => {
                out.u64(cell.0).flag(*frozen);
            }
            Ask::Unpack { package, limits, prepare } => {
                out.digest(*package).u64(limits.bytes).u64(limits.entries).u8(prepare.code());
            }
            Ask::Discard { package } => {
                out.digest(*package);
            }
        }
        out.0
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Garbage> {
        let mut from = Reader(bytes);
        let kind = from.u8()?;
        let id = from.u64()?;
        let ask = match kind {
            1 => Ask::Make {
                kind: match (from.u8()?, from.take().map(u16::from_le_bytes)?) {
                    (1, 0) => CellKind::Launcher,
                    (2, interpreter) => CellKind::Python(InterpreterId(interpreter)),
                    (3, 0) => CellKind::Wasm,
                    (4, interpreter) => CellKind::LeanPython(InterpreterId(interpreter)),
                    (5, interpreter) => CellKind::Template(InterpreterId(interpreter)),
                    (6, 0) => CellKind::Container,
                    _ => return Err(Garbage),
                },
                net: match from.u8()? {
                    1 => Net::Loopback,
                    2 => Net::Internet,
                    _ => return Err(Garbage),
                },
            },
            2 => {
                let cell = CellId(from.u64()?);
                let (memory_bytes, tmp_bytes) = (from.u64()?, from.u64()?);
                let (cpu_millis, pids) = (from.u32()?, from.u32()?);
                let (has_code, digest) = (from.flag()?, from.digest()?);
                let count = usize::from(from.u8()?);
                if count > LAYERS_MAX {
                    return Err(Garbage);
                }
                let layers = (0..count).map(|_| from.digest()).collect::<Result<_, _>>()?;
                let bind = Bind { code: has_code.then_some(digest), layers, memory_bytes, cpu_millis, pids, tmp_bytes };
                Ask::Bind { cell, bind }
            }
            3 => Ask::SetCpu { cell: CellId(from.u64()?), cpu_millis: from.u32()? },
            4 => Ask::Socket { cell: CellId(from.u64()?) },
            5 => Ask::Freeze { cell: CellId(from.u64()?), frozen: from.flag()? },
            6 => Ask::End { cell: CellId(from.u64()?) },
            7 => Ask::Unpack {
                package: from.digest()?,
                limits: UnpackLimits { bytes: from.u64()?, entries: from.u64()? },
                prepare: Prepare::from_code(from.u8()?).ok_or(Garbage)?,
            },
            8 => Ask::Discard { package: from.digest()? },
            9 => Ask::Fork { template: CellId(from.u64()?) },
            _ => return Err(Garbage),
        };
        from.end()?;
        Ok(Self { id, ask })
    }

    /// How many descriptors come with this request.
    pub(crate) fn descriptors(&self) -> usize {
        usize::from(matches!(self.ask, Ask::Unpack { .. }))
    }
}

impl Message {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        match self {
            Self::Made { id, cell } => out.u8(1).u64(*id).u64(cell.0),
            Self::Done { id } => out.u8(2).u64(*id),
            Self::Socket { id } => out.u8(3).u64(*id),
            Self::Unpacked { id, ended, report } => out.u8(4).u64(*id).ended(ended).rest(report),
            Self::Present { id } => out.u8(5).u64(*id),
            Self::Refused { id, why } => out.u8(6).u64(*id).refusal(*why),
            Self::Ended { cell, ended } => out.u8(7).u64(cell.0).ended(ended),
        };
        out.0
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Garbage> {
        let mut from = Reader(bytes);
        let message = match from.u8()? {
            1 => Self::Made { id: from.u64()?, cell: CellId(from.u64()?) },
            2 => Self::Done { id: from.u64()? },
            3 => Self::Socket { id: from.u64()? },
            4 => {
                let (id, ended) = (from.u64()?, from.ended()?);
                if from.0.len() > REPORT_MAX {
                    return Err(Garbage);
                }
                Self::Unpacked { id, ended, report: std::mem::take(&mut from.0).to_vec() }
            }
            5 => Self::Present { id: from.u64()? },
            6 => Self::Refused { id: from.u64()?, why: from.refusal()? },
            7 => Self::Ended { cell: CellId(from.u64()?), ended: from.ended()? },
            _ => return Err(Garbage),
        };
        from.end()?;
        Ok(message)
    }

    /// How many descriptors come with this message.
    pub(crate) fn descriptors(&self) -> usize {
        match self {
            Self::Made { .. } => 4,
            Self::Socket { .. } => 1,
            _ => 0,
        }
    }
}

#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn u8(&mut self, value: u8) -> &mut Self {
        self.0.push(value);
        self
    }

    fn u32(&mut self, value: u32) -> &mut Self {
        self.rest(&value.to_le_bytes())
    }

    fn u64(&mut self, value: u64) -> &mut Self {
        self.rest(&value.to_le_bytes())
    }

    fn i32(&mut self, value: i32) -> &mut Self {
        self.rest(&value.to_le_bytes())
    }

    fn flag(&mut self, value: bool) -> &mut Self {
        self.u8(value.into())
    }

    fn digest(&mut self, digest: Digest) -> &mut Self {
        self.rest(&digest.0)
    }

    fn rest(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn ended(&mut self, ended: &Ended) -> &mut Self {
        let (how, value) = match ended.exit {
            Exit::Code(code) => (1, code),
            Exit::Signal(signal) => (2, signal),
            Exit::Unknown => (3, 0),
        };
        self.u8(how).i32(value).flag(ended.out_of_memory).u64(ended.cpu_us)
    }

    fn refusal(&mut self, why: Refusal) -> &mut Self {
        match why {
            Refusal::NoSuchCell => self.u8(1),
            Refusal::AlreadyBound => self.u8(2),
            Refusal::NoSuchTree { place } => self.u8(3).u8(place),
            Refusal::Full => self.u8(4),
            Refusal::TimedOut => self.u8(5),
            Refusal::Failed { step, errno } => self.u8(6).u8(step as u8).i32(errno),
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Garbage> {
        let (head, tail) = self.0.split_first_chunk().ok_or(Garbage)?;
        self.0 = tail;
        Ok(*head)
    }

    fn u8(&mut self) -> Result<u8, Garbage> {
        Ok(self.take::<1>()?[0])
    }

    fn u32(&mut self) -> Result<u32, Garbage> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Garbage> {
        self.take().map(u64::from_le_bytes)
    }

    fn i32(&mut self) -> Result<i32, Garbage> {
        self.take().map(i32::from_le_bytes)
    }

    fn flag(&mut self) -> Result<bool, Garbage> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Garbage),
        }
    }

    fn digest(&mut self) -> Result<Digest, Garbage> {
        self.take().map(Digest)
    }

    fn ended(&mut self) -> Result<Ended, Garbage> {
        let (how, value) = (self.u8()?, self.i32()?);
        let exit = match how {
            1 => Exit::Code(value),
            2 => Exit::Signal(value),
            3 => Exit::Unknown,
            _ => return Err(Garbage),
        };
        Ok(Ended { exit, out_of_memory: self.flag()?, cpu_us: self.u64()? })
    }

    fn refusal(&mut self) -> Result<Refusal, Garbage> {
        Ok(match self.u8()? {
            1 => Refusal::NoSuchCell,
            2 => Refusal::AlreadyBound,
            3 => Refusal::NoSuchTree { place: self.u8()? },
            4 => Refusal::Full,
            5 => Refusal::TimedOut,
            6 => {
                let number = self.u8()?;
                let step = Step::ALL.into_iter().find(|step| *step as u8 == number).ok_or(Garbage)?;
                Refusal::Failed { step, errno: self.i32()? }
            }
            _ => return Err(Garbage),
        })
    }

    fn end(&self) -> Result<(), Garbage> {
        if self.0.is_empty() { Ok(()) } else { Err(Garbage) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests() -> Vec<Request> {
        let cell = CellId(7);
        let package = Digest([9; 32]);
        let bind = Bind {
            code: Some(package),
            layers: vec![package; LAYERS_MAX],
            memory_bytes: 1 << 40,
            cpu_millis: 500,
            pids: 64,
            tmp_bytes: 3,
        };
        let asks = [
            Ask::Make { kind: CellKind::Launcher, net: Net::Internet },
            Ask::Make { kind: CellKind::Python(InterpreterId(0)), net: Net::Loopback },
            Ask::Make { kind: CellKind::Python(InterpreterId(u16::MAX)), net: Net::Loopback },
            Ask::Make { kind: CellKind::LeanPython(InterpreterId(1)), net: Net::Internet },
            Ask::Make { kind: CellKind::Template(InterpreterId(1)), net: Net::Internet },
            Ask::Make { kind: CellKind::Wasm, net: Net::Loopback },
            Ask::Make { kind: CellKind::Container, net: Net::Internet },
            Ask::Fork { template: CellId(11) },
            Ask::Bind { cell, bind: Bind { code: None, layers: Vec::new(), ..bind } },
            Ask::Bind { cell, bind },
            Ask::SetCpu { cell, cpu_millis: 1 },
            Ask::Socket { cell },
            Ask::Freeze { cell, frozen: true },
            Ask::End { cell },
            Ask::Unpack { package, limits: UnpackLimits { bytes: 1, entries: 2 }, prepare: Prepare::Wasm },
            Ask::Discard { package },
        ];
        asks.into_iter().enumerate().map(|(id, ask)| Request { id: id as u64, ask }).collect()
    }

    fn messages() -> Vec<Message> {
        let ended = Ended { exit: Exit::Signal(9), out_of_memory: true, cpu_us: 77 };
        let mut all = vec![
            Message::Made { id: 1, cell: CellId(2) },
            Message::Done { id: 1 },
            Message::Socket { id: 1 },
            Message::Unpacked { id: 1, ended: ended.clone(), report: b"{}".to_vec() },
            Message::Present { id: 1 },
            Message::Ended { cell: CellId(1), ended },
        ];
        let steps = Step::ALL.map(|step| Refusal::Failed { step, errno: -5 });
        let others =
            [Refusal::NoSuchCell, Refusal::AlreadyBound, Refusal::NoSuchTree { place: 3 }, Refusal::Full, Refusal::TimedOut];
        all.extend(others.into_iter().chain(steps).map(|why| Message::Refused { id: 3, why }));
        all
    }

    #[test]
    fn every_message_survives_its_bytes() {
        for request in requests() {
            let bytes = request.encode();
            assert!(bytes.len() <= REQUEST_MAX);
            assert_eq!(Request::decode(&bytes), Ok(request));
        }
        for message in messages() {
            assert_eq!(Message::decode(&message.encode()), Ok(message));
        }
    }

    #[test]
    fn a_shortened_or_lengthened_message_is_garbage() {
        for bytes in requests().iter().map(Request::encode) {
            for length in 0..bytes.len() {
                assert_eq!(Request::decode(&bytes[..length]), Err(Garbage));
            }
            assert_eq!(Request::decode(&[&bytes[..], &[0]].concat()), Err(Garbage));
        }
        for message in messages() {
            let bytes = message.encode();
            let report = matches!(message, Message::Unpacked { .. }) as usize * 2;
            for length in 0..bytes.len() - report {
                assert_eq!(Message::decode(&bytes[..length]), Err(Garbage), "{message:?}");
            }
        }
    }

    #[test]
    fn any_bytes_decode_to_a_message_that_encodes_to_them_or_to_an_error() {
        // A fixed seed: xorshift is enough to reach every branch from mutated messages.
        let mut seed = 0x2545_f491_4f6c_dd1d_u64;
        let mut random = move || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        let seeds: Vec<Vec<u8>> = requests().iter().map(Request::encode).chain(messages().iter().map(Message::encode)).collect();
        for _ in 0..200_000 {
            let mut bytes = seeds[(random() % seeds.len() as u64) as usize].clone();
            for _ in 0..1 + random() % 3 {
                let at = (random() % bytes.len() as u64) as usize;
                bytes[at] = random() as u8;
            }
            bytes.truncate((random() % 160) as usize + 1);
            if let Ok(request) = Request::decode(&bytes) {
                let again = request.encode();
                assert_eq!(Request::decode(&again), Ok(request));
            }
            if let Ok(message) = Message::decode(&bytes) {
                let again = message.encode();
                assert_eq!(Message::decode(&again), Ok(message));
            }
        }
    }
}
