//! What a guest says over its port: a byte for the kind, the length in four bytes, the payload.

use std::io::{self, ErrorKind, Read, Write};

/// No frame is longer; more means that something else wrote to the port.
const LIMIT: u32 = 1 << 20;

/// A message from the guest.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame {
    /// Userspace has begun, this many milliseconds after the kernel.
    Up(u32),
    /// A step of the plan begins.
    Begin(u32),
    /// Bytes that the running step wrote to stdout.
    Stdout(Vec<u8>),
    /// Bytes that the running step wrote to stderr.
    Stderr(Vec<u8>),
    /// A step has ended.
    End(Ended),
    /// The whole plan has ended with this code; qemu's status must say the same.
    Exit(u8),
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ended {
    /// Its number in the plan.
    pub step: u32,
    /// Its exit code, or 128 and the number of the signal that ended it.
    pub code: u8,
    /// It was killed because its time was up.
    pub timed_out: bool,
    /// How long it ran.
    pub milliseconds: u32,
}

impl Frame {
    /// Writes the frame in one piece.
    pub fn write(&self, mut to: impl Write) -> io::Result<()> {
        let (kind, payload) = match self {
            Self::Up(milliseconds) => (b'U', milliseconds.to_le_bytes().to_vec()),
            Self::Begin(step) => (b'B', step.to_le_bytes().to_vec()),
            Self::Stdout(bytes) => (b'O', bytes.clone()),
            Self::Stderr(bytes) => (b'E', bytes.clone()),
            Self::End(Ended { step, code, timed_out, milliseconds }) => {
                let mut payload = step.to_le_bytes().to_vec();
                payload.extend([*code, u8::from(*timed_out)]);
                payload.extend(milliseconds.to_le_bytes());
                (b'D', payload)
            }
            Self::Exit(code) => (b'X', vec![*code]),
        };
        let length = u32::try_from(payload.len()).ok().filter(|length| *length <= LIMIT);
        let length = length.ok_or_else(|| bad("a frame is too long"))?;
        let mut frame = vec![kind];
        frame.extend(length.to_le_bytes());
        frame.extend(payload);
        to.write_all(&frame)
    }

    /// Reads a frame; `None` where the stream ends between two.
    pub fn read(mut from: impl Read) -> io::Result<Option<Self>> {
        let mut kind = [0];
        if let Err(error) = from.read_exact(&mut kind) {
            return if error.kind() == ErrorKind::UnexpectedEof { Ok(None) } else { Err(error) };
        }
        let mut length = [0; 4];
        from.read_exact(&mut length)?;
        let length = u32::from_le_bytes(length);
        if length > LIMIT {
            return Err(bad("a frame is too long"));
        }
        let mut payload = Vec::new();
        from.take(length.into()).read_to_end(&mut payload)?;
        if payload.len() as u64 != u64::from(length) {
            return Err(bad("a frame is cut off"));
        }
        let frame = match kind[0] {
            b'O' => Self::Stdout(payload),
            b'E' => Self::Stderr(payload),
            kind => Self::of_numbers(kind, &payload).ok_or_else(|| bad("a frame makes no sense"))?,
        };
        Ok(Some(frame))
    }

    fn of_numbers(kind: u8, payload: &[u8]) -> Option<Self> {
        let number = |at: usize| Some(u32::from_le_bytes(payload.get(at..at + 4)?.try_into().ok()?));
        match (kind, payload.len()) {
            (b'U', 4) => Some(Self::Up(number(0)?)),
            (b'B', 4) => Some(Self::Begin(number(0)?)),
            (b'D', 10) => Some(Self::End(Ended {
                step: number(0)?,
                code: payload[4],
                timed_out: payload[5] != 0,
                milliseconds: number(6)?,
            })),
            (b'X', 1) => Some(Self::Exit(payload[0])),
            _ => None,
        }
    }
}

fn bad(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_as_they_were_written() {
        let ended = Ended { step: 3, code: 137, timed_out: true, milliseconds: 70_000 };
        let frames = [
            Frame::Up(1800),
            Frame::Begin(3),
            Frame::Stdout(b"one\r\ntwo".to_vec()),
            Frame::Stderr(Vec::new()),
            Frame::End(ended),
            Frame::Exit(101),
        ];
        let mut stream = Vec::new();
        for frame in &frames {
            frame.write(&mut stream).expect("a vector takes everything");
        }
        let mut stream = stream.as_slice();
        for frame in frames {
            assert_eq!(Frame::read(&mut stream).expect("well formed"), Some(frame));
        }
        assert_eq!(Frame::read(&mut stream).expect("the end"), None);
    }

    #[test]
    fn what_is_no_frame_is_an_error() {
        assert!(Frame::read(&b"O\x05\0\0\0cut"[..]).is_err());
        assert!(Frame::read(&b"[    0.1] Kernel panic"[..]).is_err());
        assert!(Frame::read(&b"X\x02\0\0\0ab"[..]).is_err());
    }
}
