//! Several pieces of bytes in one input.

/// Bytes of the length that stands before each piece, little-endian.
const LENGTH_BYTES: usize = 2;

/// The pieces in some bytes, each after its length. The last takes what is left if that is less.
pub(crate) fn pieces(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = bytes.split_first_chunk::<LENGTH_BYTES>()?;
        let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
        let (piece, rest) = rest.split_at(length);
        bytes = rest;
        Some(piece)
    })
}

/// The input that is made of these pieces.
///
/// # Panics
///
/// If one of them has more than 65,535 bytes.
#[must_use]
pub fn in_pieces(pieces: &[&[u8]]) -> Vec<u8> {
    let with_length = |piece: &&[u8]| {
        let length = u16::try_from(piece.len()).expect("a piece of a seed is short");
        [&length.to_le_bytes(), *piece].concat()
    };
    pieces.iter().flat_map(with_length).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_survive_and_the_last_may_be_cut() {
        let parts: [&[u8]; 3] = [b"abc", b"", b"de"];
        let bytes = in_pieces(&parts);
        assert_eq!(pieces(&bytes).collect::<Vec<_>>(), parts);
        let cut: Vec<_> = pieces(&bytes[..bytes.len() - 1]).collect();
        assert_eq!(cut, [b"abc".as_slice(), b"", b"d"]);
        assert_eq!(pieces(&[7]).count(), 0);
    }
}
