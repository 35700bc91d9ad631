//! The body of a request: what is held, or a file that is read as it is sent.

use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, SizeHint};
use sha2::{Digest as _, Sha256};

const CHUNK_BYTES: usize = 256 << 10;

/// A file, read through once for its digest, which is under the signature.
#[derive(Debug)]
pub(crate) struct Upload {
    file: File,
    size: u64,
    pub(crate) sha256: String,
}

impl Upload {
    /// Reads `file` from its beginning.
    pub(crate) fn new(mut file: File) -> io::Result<Self> {
        file.rewind()?;
        let (mut hash, mut size) = (Sha256::new(), 0);
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                read => {
                    hash.update(&buffer[..read]);
                    size += read as u64;
                }
            }
        }
        file.rewind()?;
        Ok(Self { file, size, sha256: dunlin_model::Digest(hash.finalize().into()).to_string() })
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }
}

/// What is sent.
pub(crate) enum Outgoing {
    Held(Full<Bytes>),
    File { file: File, left: u64 },
}

impl From<Upload> for Outgoing {
    fn from(upload: Upload) -> Self {
        Self::File { file: upload.file, left: upload.size }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Held(held) => Pin::new(held).poll_frame(context).map_err(|never| match never {}),
            Self::File { left: 0, .. } => Poll::Ready(None),
            // It waits for the disk, and there is nothing else that this program could do meanwhile.
            Self::File { file, left } => {
                let most = usize::try_from(*left).unwrap_or(usize::MAX).min(CHUNK_BYTES);
                let mut chunk = vec![0; most];
                let read = match file.read(&mut chunk) {
                    Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
                    read => read,
                };
                Poll::Ready(Some(read.map(|read| {
                    chunk.truncate(read);
                    *left -= read as u64;
                    Frame::data(chunk.into())
                })))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Held(held) => held.is_end_stream(),
            Self::File { left, .. } => *left == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Held(held) => held.size_hint(),
            Self::File { left, .. } => SizeHint::with_exact(*left),
        }
    }
}
