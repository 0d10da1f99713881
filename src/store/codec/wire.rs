//! The primitives of the codec: variable-length integers, lengths, slices. Knows no commands.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::CodecError;

/// Appends primitives to a growing buffer.
pub(in crate::store) struct Writer(BytesMut);

impl Writer {
    /// An empty buffer with room for `capacity` bytes.
    pub(in crate::store) fn with_capacity(capacity: usize) -> Self {
        Self(BytesMut::with_capacity(capacity))
    }

    /// What was written.
    pub(in crate::store) fn finish(self) -> Bytes {
        self.0.freeze()
    }

    /// How many bytes were written.
    pub(in crate::store) fn written(&self) -> usize {
        self.0.len()
    }

    /// One byte.
    pub(in crate::store) fn byte(&mut self, value: u8) {
        self.0.put_u8(value);
    }

    /// LEB128: seven bits a byte, least significant first.
    pub(in crate::store) fn unsigned(&mut self, mut value: u64) {
        while value >= 0x80 {
            #[expect(clippy::cast_possible_truncation, reason = "the low seven bits are meant")]
            self.0.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        #[expect(clippy::cast_possible_truncation, reason = "it is below 0x80 here")]
        self.0.put_u8(value as u8);
    }

    /// Zigzag, so that small negative numbers stay short.
    pub(in crate::store) fn signed(&mut self, value: i64) {
        self.unsigned(((value << 1) ^ (value >> 63)).cast_unsigned());
    }

    /// A length.
    pub(in crate::store) fn len(&mut self, value: usize) {
        self.unsigned(value as u64);
    }

    /// Bytes whose number the reader knows.
    pub(in crate::store) fn fixed(&mut self, value: &[u8]) {
        self.0.put_slice(value);
    }

    /// A length and that many bytes.
    pub(in crate::store) fn bytes(&mut self, value: &[u8]) {
        self.len(value.len());
        self.0.put_slice(value);
    }
}

/// Takes primitives off the front of a buffer; byte strings are slices of it, not copies.
pub(in crate::store) struct Reader(Bytes);

impl Reader {
    pub(in crate::store) fn new(input: Bytes) -> Self {
        Self(input)
    }

    /// How many bytes are left.
    pub(in crate::store) fn remaining(&self) -> usize {
        self.0.len()
    }

    pub(in crate::store) fn byte(&mut self) -> Result<u8, CodecError> {
        self.0.try_get_u8().map_err(|_| CodecError::Truncated)
    }

    pub(in crate::store) fn unsigned(&mut self) -> Result<u64, CodecError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(CodecError::Number);
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(CodecError::Number)
    }

    pub(in crate::store) fn signed(&mut self) -> Result<i64, CodecError> {
        let raw = self.unsigned()?;
        Ok((raw >> 1).cast_signed() ^ -((raw & 1).cast_signed()))
    }

    /// A length that fits into what is left: each counted thing takes at least one byte, so a
    /// lying length cannot make the caller reserve more memory than the input has bytes.
    pub(in crate::store) fn len(&mut self) -> Result<usize, CodecError> {
        let value = self.unsigned()?;
        match usize::try_from(value) {
            Ok(value) if value <= self.0.len() => Ok(value),
            _ => Err(CodecError::Truncated),
        }
    }

    pub(in crate::store) fn bytes(&mut self) -> Result<Bytes, CodecError> {
        let len = self.len()?;
        Ok(self.0.split_to(len))
    }

    pub(in crate::store) fn string(&mut self) -> Result<String, CodecError> {
        String::from_utf8(self.bytes()?.into()).map_err(|_| CodecError::Text)
    }

    /// Exactly `N` bytes.
    pub(in crate::store) fn fixed<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        let mut bytes = [0; N];
        self.0.try_copy_to_slice(&mut bytes).map_err(|_| CodecError::Truncated)?;
        Ok(bytes)
    }

    /// All that is left.
    pub(in crate::store) fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.0)
    }

    /// All that is left, as text.
    pub(in crate::store) fn rest_string(&mut self) -> Result<String, CodecError> {
        String::from_utf8(self.rest().into()).map_err(|_| CodecError::Text)
    }
}
