//! The frames around the messages of an event file: TensorFlow's TFRecord.
//!
//! ```text
//! length, u64 | its checksum, u32 | the message | its checksum, u32        all little-endian
//! ```
//!
//! Source: tensorflow/tensorflow, `core/lib/io/record_writer.h`.

/// Appends `message` to `file` as a record.
pub(crate) fn append(message: &[u8], file: &mut Vec<u8>) {
    let length = (message.len() as u64).to_le_bytes();
    file.extend_from_slice(&length);
    file.extend_from_slice(&masked_crc(&length).to_le_bytes());
    file.extend_from_slice(message);
    file.extend_from_slice(&masked_crc(message).to_le_bytes());
}

/// CRC-32C, turned by 15 bits and moved: the checksum of data that hold checksums themselves would else
/// be a poor one.
///
/// Source: tensorflow/tensorflow, `core/lib/hash/crc32c.h`, `Mask`.
fn masked_crc(bytes: &[u8]) -> u32 {
    const DELTA: u32 = 0xa282_ead8;
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(DELTA)
}

/// The messages of the records in `file`.
#[cfg(test)]
pub(crate) fn messages(mut file: &[u8]) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    while let Some((header, rest)) = file.split_first_chunk::<12>() {
        let length = u64::from_le_bytes(header[..8].try_into().unwrap()) as usize;
        assert_eq!(header[8..], masked_crc(&header[..8]).to_le_bytes());
        let (message, rest) = rest.split_at(length);
        let (checksum, rest) = rest.split_first_chunk().unwrap();
        assert_eq!(*checksum, masked_crc(message).to_le_bytes());
        messages.push(message.to_vec());
        file = rest;
    }
    assert!(file.is_empty(), "half a record");
    messages
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first record of an event file that TensorFlow wrote, but for the time in it: the length, and
    /// that length's checksum, are those of every such file.
    #[test]
    fn a_record_begins_as_tensorflows() {
        let mut file = Vec::new();
        append(&[7; 24], &mut file);
        let begin = [24, 0, 0, 0, 0, 0, 0, 0, 0xa3, 0x7f, 0x4b, 0x22];
        assert_eq!(file[..12], begin);
        assert_eq!(messages(&file), [[7; 24]]);
    }
}
