//! Compression of layer tars.
//!
//! Compressed bytes depend on the input, the codec and its version only, never on the number of threads: input is cut into blocks of a
//! fixed size that are compressed apart and follow each other. gzip blocks are members (RFC 1952, 2.2), zstd blocks frames (RFC 8878, 3.1) of
//! their own, which readers put together: those of eStargz are made like that.
//!
//! Much of what is in images is compressed already, and gzip would look for matches in it as long as in anything else. Pieces of a block that look
//! like that become members of their own, which store them.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, TryRecvError};

use libdeflater::{CompressionLvl, Compressor};
use oci::Compression;

use crate::Limits;

/// Input bytes per independently compressed gzip block.
const GZIP_BLOCK: usize = 1 << 20;
/// Input bytes per zstd frame.
const ZSTD_BLOCK: usize = 4 << 20;
/// Blocks in memory at once.
const BLOCKS_AT_ONCE: usize = 8;

/// Input bytes that are looked at whether they can be compressed at all.
const GZIP_PIECE: usize = 64 << 10;
/// Bytes at each of four places of a piece whose distribution stands for it.
const SAMPLE: usize = 4 << 10;
/// How many different bytes a sample of noise has in effect, at least. All 256 show as about 241; what shows as 225 are 239, of which Huffman's code
/// would save 1.3 % at most; noise that is repeated within a piece is taken for noise, too.
const NOISE: u64 = 225;
/// From this level on somebody wants the smallest result, and nothing is taken for noise.
const THOROUGH_LEVEL: i32 = 7;

/// The level of libdeflate that is the fastest with which layers are smaller than those of BuildKit and buildah.
const GZIP_LEVEL: i32 = 4;
/// zstd's own default.
const ZSTD_LEVEL: i32 = 3;

/// Counts the changes after which the same tar gives other compressed bytes: of codec libraries, levels or block sizes. Compressed forms
/// are kept under it.
pub const VERSION: u32 = 3;

/// The level that is used where none is said; 0 for no compression.
#[must_use]
pub fn default_level(compression: Compression) -> i32 {
    match compression {
        Compression::None => 0,
        Compression::Gzip => GZIP_LEVEL,
        Compression::Zstd => ZSTD_LEVEL,
    }
}

/// The levels that there are, from the fastest to the smallest result.
#[must_use]
pub fn levels(compression: Compression) -> RangeInclusive<i32> {
    match compression {
        Compression::None => 0..=0,
        Compression::Gzip => 1..=12,
        Compression::Zstd => 1..=22,
    }
}

/// How a stream is packed, told from its first bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Packing {
    /// Not at all.
    Plain,
    /// RFC 1952.
    Gzip,
    /// RFC 8878, also when it begins with a skippable frame.
    Zstd,
    /// bzip2.
    Bzip2,
    /// The xz container.
    Xz,
}

impl Packing {
    /// Reads the magic number at the start of a stream.
    #[must_use]
    pub fn sniff(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [b'B', b'Z', b'h', ..] => Self::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            _ => Self::Plain,
        }
    }
}

impl From<Compression> for Packing {
    fn from(compression: Compression) -> Self {
        match compression {
            Compression::None => Self::Plain,
            Compression::Gzip => Self::Gzip,
            Compression::Zstd => Self::Zstd,
        }
    }
}

/// A stream grew beyond [`Limits::ratio`] while it was unpacked.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "{compressed_bytes} compressed bytes became over {bytes}, more than {ratio} times as many: this looks like a decompression bomb"
)]
pub struct Bomb {
    /// Read so far.
    pub compressed_bytes: u64,
    /// Made of it.
    pub bytes: u64,
    /// The limit.
    pub ratio: u64,
}

/// Unpacks a stream whose packing is told from its first bytes. A [`Bomb`] is an error inside the `io::Error`.
///
/// # Errors
/// Those of reading the first bytes.
pub fn unpacked<'r>(packed: impl Read + 'r, limits: &Limits) -> io::Result<Box<dyn Read + 'r>> {
    let mut packed = BufReader::with_capacity(1 << 17, Counted { inner: packed, bytes: 0 });
    let packing = Packing::sniff(packed.fill_buf()?);
    unpacked_as(packed, packing, limits)
}

/// Whether a stream is packed, and unpacked from there on.
fn unpacked_as<'r, R: Read + 'r>(
    packed: BufReader<Counted<R>>,
    packing: Packing,
    limits: &Limits,
) -> io::Result<Box<dyn Read + 'r>> {
    let limits = *limits;
    fn guard<'r, D: Read + 'r>(
        decoder: D,
        limits: Limits,
        compressed: impl Fn(&D) -> u64 + 'r,
    ) -> Box<dyn Read + 'r> {
        Box::new(Guarded { decoder, compressed, limits, bytes: 0 })
    }
    Ok(match packing {
        Packing::Plain => Box::new(packed),
        Packing::Gzip => {
            guard(flate2::bufread::MultiGzDecoder::new(packed), limits, |d| d.get_ref().get_ref().bytes)
        }
        Packing::Bzip2 => {
            guard(bzip2::bufread::MultiBzDecoder::new(packed), limits, |d| d.get_ref().get_ref().bytes)
        }
        Packing::Xz => {
            let decoder = liblzma::bufread::XzDecoder::new_multi_decoder(packed);
            guard(decoder, limits, |d| d.get_ref().get_ref().bytes)
        }
        Packing::Zstd => {
            let mut decoder = zstd::Decoder::with_buffer(packed)?;
            decoder.window_log_max(limits.zstd_window_log)?;
            guard(decoder, limits, |d| d.get_ref().get_ref().bytes)
        }
    })
}

struct Counted<R> {
    inner: R,
    bytes: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.bytes += read as u64;
        Ok(read)
    }
}

struct Guarded<D, F> {
    decoder: D,
    compressed: F,
    limits: Limits,
    bytes: u64,
}

impl<D: Read, F: Fn(&D) -> u64> Read for Guarded<D, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.decoder.read(buffer)?;
        self.bytes += read as u64;
        if self.bytes > self.limits.ratio_from_bytes {
            let compressed_bytes = (self.compressed)(&self.decoder);
            let ratio = self.limits.ratio;
            if self.bytes / ratio > compressed_bytes {
                return Err(io::Error::other(Bomb { compressed_bytes, bytes: self.bytes, ratio }));
            }
        }
        Ok(read)
    }
}

/// Compresses a stream to its end, at the usual level. Uses the current rayon pool.
///
/// # Errors
/// Those of reader and writer.
pub fn compress(from: impl Read, compression: Compression, to: impl Write) -> io::Result<()> {
    compress_at(from, compression, default_level(compression), to)
}

/// The same at one of the [`levels`].
///
/// # Errors
/// Those of reader and writer.
pub fn compress_at(
    from: impl Read,
    compression: Compression,
    level: i32,
    mut to: impl Write,
) -> io::Result<()> {
    match compression {
        Compression::None => {
            let mut from = from;
            io::copy(&mut from, &mut to).map(|_| ())
        }
        Compression::Gzip => {
            in_blocks(from, GZIP_BLOCK, |block| gzip_members(block, level), |members| to.write_all(&members))
        }
        Compression::Zstd => in_blocks(
            from,
            ZSTD_BLOCK,
            |block| zstd::bulk::compress(block, level),
            |frame| to.write_all(&frame),
        ),
    }
}

/// A member for each run of what can be compressed and of what cannot.
fn gzip_members(block: &[u8], level: i32) -> io::Result<Vec<u8>> {
    let is_noise = |piece: &&[u8]| level < THOROUGH_LEVEL && is_noise(piece);
    let mut members = Vec::new();
    let mut rest = block;
    let mut pieces = block.chunks(GZIP_PIECE).map(|piece| (piece.len(), is_noise(&piece))).peekable();
    while let Some((mut length, is_noise)) = pieces.next() {
        while let Some((more, _)) = pieces.next_if(|(_, other)| *other == is_noise) {
            length += more;
        }
        let (run, after) = rest.split_at(length);
        append_member(run, if is_noise { 0 } else { level }, &mut members)?;
        rest = after;
    }
    if block.is_empty() {
        append_member(block, level, &mut members)?;
    }
    Ok(members)
}

fn append_member(run: &[u8], level: i32, members: &mut Vec<u8>) -> io::Result<()> {
    let level = CompressionLvl::new(level).map_err(|error| io::Error::other(format!("{error:?}")))?;
    let mut codec = Compressor::new(level);
    let start = members.len();
    members.resize(start + codec.gzip_compress_bound(run.len()), 0);
    let length = codec.gzip_compress(run, &mut members[start..]).map_err(io::Error::other)?;
    members.truncate(start + length);
    Ok(())
}

/// Whether a piece looks as if it were compressed, or encrypted: all bytes are about as frequent, wherever one looks.
fn is_noise(piece: &[u8]) -> bool {
    // Each quarter is looked at elsewhere, or noise could be told from pages with noise at their beginning.
    let mut samples = piece
        .chunks_exact(GZIP_PIECE / 4)
        .enumerate()
        .map(|(number, quarter)| &quarter[number * SAMPLE..][..SAMPLE]);
    piece.len() == GZIP_PIECE && samples.all(|sample| different_bytes(sample) >= NOISE)
}

/// How many different bytes there are in effect: the inverse of how likely two of them are the same (Simpson's index).
fn different_bytes(sample: &[u8]) -> u64 {
    let mut counts = [0_u64; 256];
    sample.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
    let pairs: u64 = counts.iter().map(|count| count * count).sum();
    (sample.len() as u64).pow(2) / pairs.max(1)
}

/// Cuts a stream into blocks, works on several at once while the next are read, and gives the results on in order. Of an empty stream it gives
/// one of an empty block. After an error no block is begun.
fn in_blocks<T: Send>(
    mut from: impl Read,
    block_bytes: usize,
    work: impl Fn(&[u8]) -> io::Result<T> + Sync,
    mut give: impl FnMut(T) -> io::Result<()>,
) -> io::Result<()> {
    let is_over = AtomicBool::new(false);
    let work = |block: &[u8]| {
        let is_over = is_over.load(Ordering::Relaxed);
        if is_over { Err(io::Error::other("given up")) } else { work(block) }
    };
    let work = &work;
    rayon::in_place_scope(|scope| {
        let mut blocks = || {
            let mut under_way = VecDeque::with_capacity(BLOCKS_AT_ONCE);
            let mut is_first = true;
            loop {
                let mut block = Vec::with_capacity(block_bytes);
                from.by_ref().take(block_bytes as u64).read_to_end(&mut block)?;
                let is_last = block.len() < block_bytes;
                if !block.is_empty() || is_first {
                    let (sender, receiver) = mpsc::sync_channel(1);
                    scope.spawn(move |_| drop(sender.send(work(&block))));
                    under_way.push_back(receiver);
                }
                is_first = false;
                while under_way.len() == BLOCKS_AT_ONCE || (is_last && !under_way.is_empty()) {
                    let Some(next) = under_way.pop_front() else { break };
                    give(result_of(&next)?)?;
                }
                if is_last {
                    return Ok(());
                }
            }
        };
        blocks().inspect_err(|_| is_over.store(true, Ordering::Relaxed))
    })
}

/// Waits for the result of a task. On a thread of the pool itself it works on what else there is to do meanwhile: it may be the only one.
fn result_of<T>(task: &Receiver<io::Result<T>>) -> io::Result<T> {
    let gone = |_| io::Error::other("a block was not compressed");
    loop {
        match task.try_recv() {
            Ok(result) => return result,
            Err(TryRecvError::Disconnected) => return Err(gone(mpsc::RecvError)),
            Err(TryRecvError::Empty) => {}
        }
        if rayon::yield_now() != Some(rayon::Yield::Executed) {
            return task.recv().map_err(gone)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    /// Text that compresses somewhat, of about `bytes` bytes.
    fn sample(bytes: usize) -> Vec<u8> {
        (0..)
            .flat_map(|n: u64| format!("{} {n}\n", n.wrapping_mul(0x9E37_79B9) >> 7).into_bytes())
            .take(bytes)
            .collect()
    }

    fn unpack(bytes: &[u8], limits: &Limits) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        unpacked(bytes, limits)?.read_to_end(&mut all)?;
        Ok(all)
    }

    #[test]
    fn what_is_compressed_comes_back() {
        for size in [0, 1, GZIP_BLOCK - 1, GZIP_BLOCK, GZIP_BLOCK + 1, 9 * GZIP_BLOCK + 5] {
            let data = sample(size);
            for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
                let mut packed = Vec::new();
                compress(&data[..], compression, &mut packed).unwrap();
                assert_eq!(unpack(&packed, &Limits::STANDARD).unwrap(), data, "{compression} of {size}");
            }
        }
    }

    /// Bytes that no codec makes fewer.
    fn noise(bytes: usize) -> Vec<u8> {
        let mut seed = 1_u64;
        let next = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 56) as u8
        };
        std::iter::repeat_with(next).take(bytes).collect()
    }

    #[test]
    fn incompressible_data_survives() {
        let noise = noise(3 * GZIP_BLOCK);
        for compression in [Compression::Gzip, Compression::Zstd] {
            let mut packed = Vec::new();
            compress(&noise[..], compression, &mut packed).unwrap();
            assert!(unpack(&packed, &Limits::STANDARD).unwrap() == noise);
            assert!(packed.len() < noise.len() + noise.len() / 1000, "{compression}: {}", packed.len());
        }
    }

    #[test]
    fn only_what_cannot_be_compressed_is_taken_for_noise() {
        let text = sample(GZIP_PIECE);
        assert!(is_noise(&noise(GZIP_PIECE)));
        assert!(!is_noise(&text));
        assert!(!is_noise(&noise(GZIP_PIECE - 1)), "a rest");
        let half = [&text[..GZIP_PIECE / 2], &noise(GZIP_PIECE / 2)].concat();
        assert!(!is_noise(&half));
        let page = [&noise(8 << 10)[..], &[0; 8 << 10]].concat();
        assert!(!is_noise(&page.repeat(4)));
        let hexadecimal: Vec<u8> =
            noise(GZIP_PIECE).iter().map(|byte| b"0123456789abcdef"[usize::from(byte % 16)]).collect();
        assert!(!is_noise(&hexadecimal));
    }

    #[test]
    fn noise_among_other_things_is_stored_unless_it_is_to_be_small() {
        let (text, noise) = (sample(GZIP_PIECE), noise(GZIP_PIECE));
        let data = [&text[..], &noise, &noise, &text, &noise, &text, &text].concat().repeat(5);
        let sizes = [GZIP_LEVEL, THOROUGH_LEVEL].map(|level| {
            let mut packed = Vec::new();
            compress_at(&data[..], Compression::Gzip, level, &mut packed).unwrap();
            assert!(unpack(&packed, &Limits::STANDARD).unwrap() == data);
            packed.len()
        });
        // The noise is the same again each time, but further off than a match can be.
        assert!(sizes[0] < sizes[1] + sizes[1] / 50, "{sizes:?}");
        let members = gzip_members(&[&text[..], &noise, &noise, &text].concat(), GZIP_LEVEL).unwrap();
        let alone = [&text[..], &[&noise[..], &noise].concat(), &text].map(|run| {
            let mut member = Vec::new();
            append_member(run, if run.len() > GZIP_PIECE { 0 } else { GZIP_LEVEL }, &mut member).unwrap();
            member
        });
        assert!(members == alone.concat());
        let whole = [&text[..], &noise, &noise, &text].concat();
        let mut member = Vec::new();
        append_member(&whole, THOROUGH_LEVEL, &mut member).unwrap();
        assert!(gzip_members(&whole, THOROUGH_LEVEL).unwrap() == member);
    }

    #[test]
    fn the_number_of_threads_does_not_show() {
        let data = sample(20 * GZIP_BLOCK);
        for compression in [Compression::Gzip, Compression::Zstd] {
            let with_threads = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let mut packed = Vec::new();
                pool.install(|| compress(&data[..], compression, &mut packed)).unwrap();
                packed
            };
            assert!(with_threads(1) == with_threads(3));
        }
    }

    #[test]
    fn after_an_error_no_block_is_begun() {
        let begun = AtomicUsize::new(0);
        let work = |_: &[u8]| Ok(begun.fetch_add(1, Ordering::Relaxed));
        // Its only thread reads first.
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let broken = || io::Cursor::new([0; 4]).chain(Broken);
        assert!(pool.install(|| in_blocks(broken(), 1, work, |_| Ok(()))).is_err());
        assert_eq!(begun.into_inner(), 0);
    }

    struct Broken;

    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("broken"))
        }
    }

    #[test]
    fn a_higher_level_gives_less_and_every_level_comes_back() {
        let data = sample(2 * GZIP_BLOCK);
        for compression in [Compression::Gzip, Compression::Zstd] {
            let sizes: Vec<usize> = [1, *levels(compression).end()]
                .map(|level| {
                    let mut packed = Vec::new();
                    compress_at(&data[..], compression, level, &mut packed).unwrap();
                    assert!(unpack(&packed, &Limits::STANDARD).unwrap() == data, "{compression} {level}");
                    packed.len()
                })
                .to_vec();
            assert!(sizes[1] < sizes[0], "{compression}: {sizes:?}");
        }
    }

    #[test]
    fn a_bomb_is_stopped() {
        let limits = Limits { ratio: 10, ratio_from_bytes: 1 << 16, ..Limits::STANDARD };
        for compression in [Compression::Gzip, Compression::Zstd] {
            let mut packed = Vec::new();
            compress(&vec![0; 10 << 20][..], compression, &mut packed).unwrap();
            let error = unpack(&packed, &limits).unwrap_err();
            assert!(error.to_string().contains("decompression bomb"), "{error}");
        }
    }

    #[test]
    fn packings_are_told_by_their_magic() {
        assert_eq!(Packing::sniff(b"\x1f\x8b\x08"), Packing::Gzip);
        assert_eq!(Packing::sniff(b"\x52\x2a\x4d\x18x"), Packing::Zstd);
        assert_eq!(Packing::sniff(b"BZh9"), Packing::Bzip2);
        assert_eq!(Packing::sniff(b"\xfd7zXZ\0"), Packing::Xz);
        assert_eq!(Packing::sniff(b""), Packing::Plain);
    }
}
