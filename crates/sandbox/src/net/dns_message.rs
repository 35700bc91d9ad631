//! Reading DNS messages from strangers: queries from cells and answers from the internet.
//!
//! Only what the stub decides on is read. Names are stepped over and never followed: a compression pointer ends a name,
//! so that no message can send a reader round in circles. Every read is checked against the message's end.
//!
//! # Invariants
//! - What is forwarded and what is handed back is put together here from a checked question and checked records; no
//!   header bits, options or extra sections of a stranger's pass.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::ranges::is_refused;

/// The longest query that is read: one name and one option record, with room.
pub(super) const QUERY_MAX: usize = 512;
/// What an answer to a datagram may have at most; larger ones do not cross every network in one piece.
const DATAGRAM_MAX: u16 = 1232;
/// What a client without the extension takes.
const PLAIN_MAX: u16 = 512;
const HEADER: usize = 12;
const NAME_MAX: usize = 255;

const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;
const TYPE_OPT: u16 = 41;
const TYPE_SVCB: u16 = 64;
const TYPE_HTTPS: u16 = 65;
/// Types that are no questions about a name: transfers of zones and the like, from 249 on; 255 is "everything".
const TYPES_META: std::ops::RangeInclusive<u16> = 249..=255;
const CLASS_IN: u16 = 1;

const FLAG_RESPONSE: u16 = 1 << 15;
const FLAG_TRUNCATED: u16 = 1 << 9;
const FLAG_RECURSE: u16 = 1 << 8;
const FLAG_RECURSES: u16 = 1 << 7;
const MASK_OPCODE: u16 = 0xf << 11;
const MASK_CODE: u16 = 0xf;

/// How a question was answered, as the header says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Code {
    ServerFailed = 2,
    NoSuchName = 3,
    NotImplemented = 4,
}

/// A cell's question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Query {
    id: u16,
    /// Name, type and class as they were asked.
    question: Vec<u8>,
    kind: u16,
    /// How large an answer the client takes in a datagram, if it uses the extension that says so.
    extended: Option<u16>,
}

impl Query {
    /// Reads a query; `None` for what is none, to which nobody answers.
    pub(super) fn parse(message: &[u8]) -> Option<Self> {
        if message.len() > QUERY_MAX {
            return None;
        }
        let mut reader = Reader::new(message);
        let header = Header::read(&mut reader)?;
        let plain = header.flags & (FLAG_RESPONSE | MASK_OPCODE) == 0;
        if !plain || header.questions != 1 || header.answers != 0 || header.authorities != 0 || header.additionals > 1 {
            return None;
        }
        let (question, kind) = read_question(&mut reader)?;
        let mut extended = None;
        if header.additionals == 1 {
            // The one that may be here: a record at the root whose class is the size.
            let at_root = reader.u8()? == 0;
            let (kind, size) = (reader.u16()?, reader.u16()?);
            if !at_root || kind != TYPE_OPT {
                return None;
            }
            extended = Some(size.clamp(PLAIN_MAX, DATAGRAM_MAX));
        }
        Some(Self { id: header.id, question, kind, extended })
    }

    /// Whether this is a kind of question that is not passed on.
    pub(super) fn is_meta(&self) -> bool {
        TYPES_META.contains(&self.kind)
    }

    /// The same question, to be sent on under another id.
    pub(super) fn forward(&self, id: u16) -> Vec<u8> {
        let additionals = u16::from(self.extended.is_some());
        let mut out = header(id, FLAG_RECURSE, [1, 0, 0, additionals]);
        out.extend_from_slice(&self.question);
        if self.extended.is_some() {
            out.push(0);
            for field in [TYPE_OPT, DATAGRAM_MAX, 0, 0, 0] {
                out.extend_from_slice(&field.to_be_bytes());
            }
        }
        out
    }

    /// An answer without records.
    pub(super) fn refuse(&self, code: Code) -> Vec<u8> {
        let mut out = header(self.id, FLAG_RESPONSE | FLAG_RECURSE | FLAG_RECURSES | code as u16, [1, 0, 0, 0]);
        out.extend_from_slice(&self.question);
        out
    }

    /// What the client is told, given what came back for [`Query::forward`] under `id`. `None` if that is no answer to
    /// this question.
    pub(super) fn answer(&self, id: u16, message: &[u8]) -> Option<Vec<u8>> {
        let mut reader = Reader::new(message);
        let header_in = Header::read(&mut reader)?;
        if header_in.id != id || header_in.flags & (FLAG_RESPONSE | MASK_OPCODE) != FLAG_RESPONSE || header_in.questions != 1 {
            return None;
        }
        let (question, _) = read_question(&mut reader)?;
        if !question.eq_ignore_ascii_case(&self.question) {
            return None;
        }
        let begin = reader.at;
        for _ in 0..header_in.answers {
            match Record::read(&mut reader)?.leads_to_refused() {
                Some(false) => {}
                Some(true) => return Some(self.refuse(Code::NoSuchName)),
                None => return None,
            }
        }
        // Names point backwards only, so what follows the answers can be left off.
        let records = &message[begin..reader.at];
        let flags = FLAG_RESPONSE | FLAG_RECURSE | FLAG_RECURSES | header_in.flags & (FLAG_TRUNCATED | MASK_CODE);
        let mut out = header(self.id, flags, [1, header_in.answers, 0, 0]);
        // As the resolver wrote it: names in the records may point into it.
        out.extend_from_slice(&question);
        out.extend_from_slice(records);
        Some(out)
    }

    /// `answer` as it fits a datagram to this client: whole, or only its first part with the word to ask over a stream.
    pub(super) fn fit_datagram(&self, answer: Vec<u8>) -> Vec<u8> {
        if answer.len() <= usize::from(self.extended.unwrap_or(PLAIN_MAX)) {
            return answer;
        }
        let code = u16::from_be_bytes([answer[2], answer[3]]) & MASK_CODE;
        let flags = FLAG_RESPONSE | FLAG_RECURSE | FLAG_RECURSES | FLAG_TRUNCATED | code;
        let mut out = header(self.id, flags, [1, 0, 0, 0]);
        out.extend_from_slice(&self.question);
        out
    }
}

fn header(id: u16, flags: u16, counts: [u16; 4]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + NAME_MAX);
    for field in [id, flags].into_iter().chain(counts) {
        out.extend_from_slice(&field.to_be_bytes());
    }
    out
}

#[derive(Debug)]
struct Header {
    id: u16,
    flags: u16,
    questions: u16,
    answers: u16,
    authorities: u16,
    additionals: u16,
}

impl Header {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            id: reader.u16()?,
            flags: reader.u16()?,
            questions: reader.u16()?,
            answers: reader.u16()?,
            authorities: reader.u16()?,
            additionals: reader.u16()?,
        })
    }
}

/// A question's bytes and type. Its name is written out: there is nothing before it to point to.
fn read_question(reader: &mut Reader<'_>) -> Option<(Vec<u8>, u16)> {
    let begin = reader.at;
    if reader.name()? == Ending::Pointer {
        return None;
    }
    let (kind, class) = (reader.u16()?, reader.u16()?);
    (class == CLASS_IN).then(|| (reader.message[begin..reader.at].to_vec(), kind))
}

#[derive(Debug)]
struct Record<'m> {
    kind: u16,
    class: u16,
    content: &'m [u8],
}

impl<'m> Record<'m> {
    fn read(reader: &mut Reader<'m>) -> Option<Self> {
        reader.name()?;
        let (kind, class) = (reader.u16()?, reader.u16()?);
        reader.take(4)?; // how long it may be kept
        let length = reader.u16()?;
        Some(Self { kind, class, content: reader.take(length.into())? })
    }

    /// Whether it holds an address no function may reach; `None` if it is malformed.
    fn leads_to_refused(&self) -> Option<bool> {
        if self.class != CLASS_IN {
            return Some(false);
        }
        match self.kind {
            TYPE_A => Some(is_refused(ipv4(self.content)?)),
            TYPE_AAAA => Some(is_refused(ipv6(self.content)?)),
            TYPE_SVCB | TYPE_HTTPS => hints_lead_to_refused(self.content),
            _ => Some(false),
        }
    }
}

/// A service record may carry addresses beside its name, under the keys 4 and 6.
fn hints_lead_to_refused(content: &[u8]) -> Option<bool> {
    let mut reader = Reader::new(content);
    reader.take(2)?; // priority
    reader.name()?;
    while reader.at < content.len() {
        let (key, length) = (reader.u16()?, reader.u16()?);
        let value = reader.take(length.into())?;
        let refused = match key {
            4 if value.len() % 4 == 0 => value.chunks(4).filter_map(ipv4).any(is_refused),
            6 if value.len() % 16 == 0 => value.chunks(16).filter_map(ipv6).any(is_refused),
            4 | 6 => return None,
            _ => false,
        };
        if refused {
            return Some(true);
        }
    }
    Some(false)
}

fn ipv4(bytes: &[u8]) -> Option<IpAddr> {
    Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into())
}

fn ipv6(bytes: &[u8]) -> Option<IpAddr> {
    Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into())
}

/// How a name ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Root,
    Pointer,
}

#[derive(Debug)]
struct Reader<'m> {
    message: &'m [u8],
    at: usize,
}

impl<'m> Reader<'m> {
    fn new(message: &'m [u8]) -> Self {
        Self { message, at: 0 }
    }

    fn take(&mut self, length: usize) -> Option<&'m [u8]> {
        let end = self.at.checked_add(length)?;
        let taken = self.message.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// Steps over a name.
    fn name(&mut self) -> Option<Ending> {
        let begin = self.at;
        loop {
            let length = self.u8()?;
            match length >> 6 {
                0 if length == 0 => return (self.at - begin <= NAME_MAX).then_some(Ending::Root),
                0 => drop(self.take(length.into())?),
                3 => return self.u8().map(|_| Ending::Pointer),
                _ => return None,
            }
            if self.at - begin > NAME_MAX {
                return None;
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// `name` as it goes over the wire.
    fn wire(name: &str) -> Vec<u8> {
        let mut out = Vec::new();
        for label in name.split('.').filter(|label| !label.is_empty()) {
            out.push(label.len() as u8);
            out.extend_from_slice(label.as_bytes());
        }
        out.push(0);
        out
    }

    pub(in super::super) fn query(id: u16, name: &str, kind: u16) -> Vec<u8> {
        let mut out = header(id, FLAG_RECURSE, [1, 0, 0, 0]);
        out.extend(wire(name));
        out.extend([kind, CLASS_IN].iter().flat_map(|field| field.to_be_bytes()));
        out
    }

    /// The answer of a resolver to the message `to`, with these records, each owned by a pointer to the question.
    pub(in super::super) fn reply(to: &[u8], records: &[(u16, &[u8])]) -> Vec<u8> {
        let mut out = to.to_vec();
        out[2..4].copy_from_slice(&(FLAG_RESPONSE | FLAG_RECURSE | FLAG_RECURSES).to_be_bytes());
        out[6..8].copy_from_slice(&(records.len() as u16).to_be_bytes());
        for (kind, content) in records {
            out.extend([0xc0, HEADER as u8]);
            out.extend([*kind, CLASS_IN, 0, 60, content.len() as u16].iter().flat_map(|field| field.to_be_bytes()));
            out.extend_from_slice(content);
        }
        out
    }

    fn asked(name: &str, kind: u16) -> (Query, Vec<u8>) {
        let query = Query::parse(&query(7, name, kind)).unwrap();
        let forwarded = query.forward(0xbeef);
        (query, forwarded)
    }

    fn code_of(answer: &[u8]) -> u16 {
        u16::from_be_bytes([answer[2], answer[3]]) & MASK_CODE
    }

    #[test]
    fn a_public_answer_comes_back_under_the_clients_id() {
        let (query, forwarded) = asked("example.com", TYPE_A);
        let answer = query.answer(0xbeef, &reply(&forwarded, &[(TYPE_A, &[8, 8, 8, 8])])).unwrap();
        assert_eq!(answer[..2], 7u16.to_be_bytes());
        assert_eq!(code_of(&answer), 0);
        assert_eq!(answer[answer.len() - 4..], [8, 8, 8, 8]);
    }

    #[test]
    fn an_answer_that_leads_to_a_refused_range_becomes_no_such_name() {
        let v6 = |text: &str| text.parse::<Ipv6Addr>().unwrap().octets();
        let hint = |address: [u8; 4]| [&[0, 1, 0, 0, 4, 0, 4][..], &address].concat();
        let cases: [(u16, Vec<u8>); 6] = [
            (TYPE_A, vec![10, 0, 0, 1]),
            (TYPE_A, vec![169, 254, 169, 254]),
            (TYPE_AAAA, v6("fd00:ec2::254").to_vec()),
            (TYPE_AAAA, v6("::ffff:127.0.0.1").to_vec()),
            (TYPE_AAAA, v6("64:ff9b::a00:1").to_vec()),
            (TYPE_HTTPS, hint([192, 168, 0, 1])),
        ];
        for (kind, content) in cases {
            let (query, forwarded) = asked("rebind.example", kind);
            // A public address in front does not help.
            let message = reply(&forwarded, &[(TYPE_A, &[8, 8, 8, 8]), (kind, &content)]);
            let answer = query.answer(0xbeef, &message).unwrap();
            assert_eq!(code_of(&answer), Code::NoSuchName as u16, "{kind} {content:?}");
            assert_eq!(answer, query.refuse(Code::NoSuchName));
        }
        let (query, forwarded) = asked("fine.example", TYPE_HTTPS);
        let answer = query.answer(0xbeef, &reply(&forwarded, &[(TYPE_HTTPS, &hint([8, 8, 4, 4]))])).unwrap();
        assert_eq!(code_of(&answer), 0);
    }

    #[test]
    fn only_the_answer_to_this_question_counts() {
        let (query, forwarded) = asked("example.com", TYPE_A);
        let good = reply(&forwarded, &[(TYPE_A, &[8, 8, 8, 8])]);
        assert!(query.answer(0xbeee, &good).is_none());
        assert!(query.answer(0xbeef, &forwarded).is_none(), "a query is no answer");
        let (_, other) = asked("example.org", TYPE_A);
        assert!(query.answer(0xbeef, &reply(&other, &[])).is_none());
        let shouted: Vec<_> = good.iter().enumerate().map(|(at, b)| if at < 24 { b.to_ascii_uppercase() } else { *b }).collect();
        let id = u16::from_be_bytes([shouted[0], shouted[1]]);
        assert!(query.answer(id, &shouted).is_some(), "case does not matter");
    }

    #[test]
    fn compression_can_neither_loop_nor_reach_outside() {
        let (query, forwarded) = asked("example.com", TYPE_A);
        let mut message = reply(&forwarded, &[(TYPE_A, &[8, 8, 8, 8])]);
        let at = forwarded.len();
        for target in [at as u16, 0x3fff, 0] {
            // The record's name points at itself, past the end, at the header: it is not followed.
            message[at..at + 2].copy_from_slice(&(0xc000 | target).to_be_bytes());
            assert!(query.answer(0xbeef, &message).is_some());
        }
        message[at] = 0x80;
        assert!(query.answer(0xbeef, &message).is_none(), "an unknown kind of label");
        // A question that is a pointer to itself.
        let mut looped = super::tests::query(1, "a", TYPE_A);
        looped[HEADER..HEADER + 2].copy_from_slice(&[0xc0, HEADER as u8]);
        assert!(Query::parse(&looped).is_none());
    }

    #[test]
    fn no_cut_or_flipped_message_is_read_past_its_end() {
        let (query, forwarded) = asked("www.example.com", TYPE_A);
        let whole = reply(
            &forwarded,
            &[(5, &wire("x.example")), (TYPE_A, &[8, 8, 8, 8]), (TYPE_HTTPS, &[0, 1, 0, 0, 4, 0, 4, 1, 1, 1, 1])],
        );
        for end in 0..whole.len() {
            assert!(query.answer(0xbeef, &whole[..end]).is_none());
            let _ = Query::parse(&whole[..end]);
        }
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut flipped = whole.clone();
                flipped[at] ^= 1 << bit;
                let _ = query.answer(0xbeef, &flipped);
                let _ = Query::parse(&flipped);
            }
        }
    }

    #[test]
    fn what_is_no_query_is_not_answered() {
        let good = query(1, "example.com", TYPE_A);
        assert!(Query::parse(&good).is_some());
        let with = |at: usize, value: u8| {
            let mut message = good.clone();
            message[at] = value;
            message
        };
        assert!(Query::parse(&with(2, 0x80)).is_none(), "a response");
        assert!(Query::parse(&with(2, 0x28)).is_none(), "an update");
        assert!(Query::parse(&with(5, 2)).is_none(), "two questions");
        assert!(Query::parse(&with(7, 1)).is_none(), "an answer in a query");
        assert!(Query::parse(&with(good.len() - 1, 3)).is_none(), "another class");
        assert!(Query::parse(&query(1, &["a"; 128].join("."), TYPE_A)).is_none(), "a name of 257 bytes");
        assert!(Query::parse(&query(1, &["a"; 127].join("."), TYPE_A)).is_some(), "a name of 255 bytes");
        assert!(Query::parse(&query(1, "example.com", 252)).unwrap().is_meta());
    }

    #[test]
    fn the_extension_is_spoken_only_with_those_who_do() {
        let plain = Query::parse(&query(1, "example.com", TYPE_A)).unwrap();
        assert_eq!(plain.forward(2)[10..12], [0, 0]);
        let mut message = query(1, "example.com", TYPE_A);
        message[11] = 1;
        message.extend([0, 0, 41, 0xff, 0xff, 0, 0, 0x80, 0, 0, 0]);
        let extended = Query::parse(&message).unwrap();
        assert_eq!(extended.extended, Some(DATAGRAM_MAX));
        let forwarded = extended.forward(2);
        assert_eq!(forwarded[10..12], [0, 1]);
        assert_eq!(forwarded[forwarded.len() - 11..], [0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn an_answer_too_large_for_a_datagram_says_ask_again_over_a_stream() {
        let (query, forwarded) = asked("example.com", 16);
        let long = [255; 250];
        let answer = query.answer(0xbeef, &reply(&forwarded, &[(16, &long), (16, &long), (16, &long)])).unwrap();
        let cut = query.fit_datagram(answer.clone());
        assert!(answer.len() > 512 && cut.len() < 64);
        assert_eq!(u16::from_be_bytes([cut[2], cut[3]]) & FLAG_TRUNCATED, FLAG_TRUNCATED);
    }
}
