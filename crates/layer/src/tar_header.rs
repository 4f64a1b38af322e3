//! Canonical tar headers: one entry, one sequence of bytes.
//!
//! POSIX ustar, with a PAX extended header only for what ustar cannot say (pax(1), "pax Extended Header"): names over 100 bytes,
//! large numbers, nanoseconds, xattrs (as `SCHILY.xattr.*`, which every container tool reads). Owners are numbers, never names.

use sys::root::Time;

use crate::entries::{Entry, Kind};
use crate::whiteout;

/// Tar works in blocks of this many bytes.
pub const BLOCK: usize = 512;

/// Two empty blocks end an archive.
pub const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// Largest numbers that fit the octal fields of ustar.
const MAX_ID: u32 = 0o7_777_777;
const MAX_SIZE: u64 = 0o77_777_777_777;
const MAX_SECONDS: i64 = 0o77_777_777_777;
const MAX_NAME: usize = 100;

/// The fields of a member before it is cut to size.
struct Member<'e> {
    name: Vec<u8>,
    link: &'e [u8],
    kind: u8,
    mode: u32,
    owner: (u32, u32),
    size: u64,
    mtime: Time,
    device: (u32, u32),
}

/// Appends everything that stands before an entry's content. Implied entries have no place in a tar and append nothing.
pub fn append(entry: &Entry, to: &mut Vec<u8>) {
    if entry.implied {
        return;
    }
    append_member(&member_of(entry), entry, to);
    if entry.kind == (Kind::Directory { opaque: true }) {
        let mut name = entry.path.as_bytes().to_vec();
        if !name.is_empty() {
            name.push(b'/');
        }
        name.extend_from_slice(whiteout::OPAQUE);
        append_member(&marker(name), &Entry::whiteout(entry.path.clone()), to);
    }
}

/// Zero bytes that fill the last block after `size` bytes of content.
#[must_use]
pub fn padding(size: u64) -> &'static [u8] {
    let over = usize::try_from(size % BLOCK as u64).expect("less than a block");
    if over == 0 { &[] } else { &END[..BLOCK - over] }
}

fn member_of(entry: &Entry) -> Member<'_> {
    let mut name = entry.path.as_bytes().to_vec();
    let (mut link, mut device): (&[u8], _) = (&[], (0, 0));
    let kind = match &entry.kind {
        Kind::Whiteout => return marker(whiteout::hiding(&entry.path)),
        Kind::Directory { .. } => {
            name.extend_from_slice(if name.is_empty() { b"./" } else { b"/" });
            b'5'
        }
        Kind::File { .. } => b'0',
        Kind::HardLink { target } => {
            link = target.as_bytes();
            b'1'
        }
        Kind::Symlink { target } => {
            link = target;
            b'2'
        }
        Kind::CharDevice { major, minor } => {
            device = (*major, *minor);
            b'3'
        }
        Kind::BlockDevice { major, minor } => {
            device = (*major, *minor);
            b'4'
        }
        Kind::Fifo => b'6',
    };
    let owner = (entry.uid, entry.gid);
    Member { name, link, kind, mode: entry.mode, owner, size: entry.size(), mtime: entry.mtime, device }
}

/// An empty file that only its name gives a meaning.
fn marker(name: Vec<u8>) -> Member<'static> {
    Member {
        name,
        link: &[],
        kind: b'0',
        mode: 0,
        owner: (0, 0),
        size: 0,
        mtime: Time::default(),
        device: (0, 0),
    }
}

fn append_member(member: &Member<'_>, entry: &Entry, to: &mut Vec<u8>) {
    let records = pax_records(member, entry);
    if !records.is_empty() {
        let header = Member {
            name: b"PaxHeaders.0".to_vec(),
            link: &[],
            kind: b'x',
            mode: 0o644,
            owner: (0, 0),
            size: records.len() as u64,
            mtime: Time::default(),
            device: (0, 0),
        };
        append_block(&header, to);
        to.extend_from_slice(&records);
        to.extend_from_slice(padding(records.len() as u64));
    }
    append_block(member, to);
}

fn pax_records(member: &Member<'_>, entry: &Entry) -> Vec<u8> {
    let mut records = Vec::new();
    let (uid, gid) = member.owner;
    if member.name.len() > MAX_NAME {
        append_record(b"path", &member.name, &mut records);
    }
    if member.link.len() > MAX_NAME {
        append_record(b"linkpath", member.link, &mut records);
    }
    if member.size > MAX_SIZE {
        append_record(b"size", member.size.to_string().as_bytes(), &mut records);
    }
    if uid > MAX_ID {
        append_record(b"uid", uid.to_string().as_bytes(), &mut records);
    }
    if gid > MAX_ID {
        append_record(b"gid", gid.to_string().as_bytes(), &mut records);
    }
    // A copy, since a field of a packed struct cannot be borrowed.
    let seconds = member.mtime.seconds;
    if member.mtime.nanos != 0 || !(0..=MAX_SECONDS).contains(&seconds) {
        append_record(b"mtime", pax_time(member.mtime).as_bytes(), &mut records);
    }
    for xattr in &entry.xattrs {
        let key = [b"SCHILY.xattr.", &*xattr.name].concat();
        append_record(&key, &xattr.value, &mut records);
    }
    records
}

/// Seconds with as many decimals as there are; the fraction of a time before 1970 counts downwards, as in Go's reader.
fn pax_time(time: Time) -> String {
    let (sign, seconds, nanos) = if time.seconds < 0 && time.nanos > 0 {
        ("-", -(time.seconds + 1), 1_000_000_000 - time.nanos)
    } else {
        ("", time.seconds, time.nanos)
    };
    let text = format!("{sign}{seconds}.{nanos:09}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// `LENGTH key=value\n`, where the length counts itself.
fn append_record(key: &[u8], value: &[u8], to: &mut Vec<u8>) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + decimal_digits(rest);
    if decimal_digits(length) > decimal_digits(rest) {
        length = rest + decimal_digits(length);
    }
    to.extend_from_slice(length.to_string().as_bytes());
    to.push(b' ');
    to.extend_from_slice(key);
    to.push(b'=');
    to.extend_from_slice(value);
    to.push(b'\n');
}

fn decimal_digits(number: usize) -> usize {
    number.checked_ilog10().map_or(1, |log| log as usize + 1)
}

/// The 512-byte header. What does not fit its field is cut; the PAX record before it says it whole.
fn append_block(member: &Member<'_>, to: &mut Vec<u8>) {
    let mut block = [0; BLOCK];
    put(&mut block[..100], &member.name);
    put_octal(&mut block[100..108], u64::from(member.mode & 0o7777));
    put_octal(&mut block[108..116], u64::from(member.owner.0.min(MAX_ID)));
    put_octal(&mut block[116..124], u64::from(member.owner.1.min(MAX_ID)));
    put_octal(&mut block[124..136], if member.size > MAX_SIZE { 0 } else { member.size });
    put_octal(&mut block[136..148], u64::try_from(member.mtime.seconds.min(MAX_SECONDS)).unwrap_or(0));
    block[148..156].fill(b' ');
    block[156] = member.kind;
    put(&mut block[157..257], member.link);
    block[257..265].copy_from_slice(b"ustar\x0000");
    put_octal(&mut block[329..337], u64::from(member.device.0));
    put_octal(&mut block[337..345], u64::from(member.device.1));
    let sum: u64 = block.iter().map(|&b| u64::from(b)).sum();
    put_octal(&mut block[148..155], sum);
    to.extend_from_slice(&block);
}

fn put(field: &mut [u8], bytes: &[u8]) {
    let length = bytes.len().min(field.len());
    field[..length].copy_from_slice(&bytes[..length]);
}

/// Right-aligned octal with leading zeros and a final NUL.
fn put_octal(field: &mut [u8], mut number: u64) {
    let last = field.len() - 1;
    field[last] = 0;
    for digit in field[..last].iter_mut().rev() {
        *digit = b'0' + u8::try_from(number & 7).expect("three bits");
        number >>= 3;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar_read::Members;
    use crate::{FileDigest, Xattr};
    use sys::RootfsPath;

    fn round_trip(entry: &Entry, content: &[u8]) -> Vec<String> {
        let mut bytes = Vec::new();
        append(entry, &mut bytes);
        bytes.extend_from_slice(content);
        bytes.extend_from_slice(padding(content.len() as u64));
        bytes.extend_from_slice(&END);
        let mut members = Members::new(&bytes[..], &crate::Limits::STANDARD);
        let mut lines = Vec::new();
        while let Some(member) = members.next_member().unwrap() {
            let show = |bytes: &[u8]| String::from_utf8_lossy(bytes).chars().take(40).collect::<String>();
            let pax: Vec<_> =
                member.records.iter().map(|(k, v)| format!("{}={}", show(k), show(v))).collect();
            let header = &member.header;
            lines.push(format!(
                "{:?} {} {:o} {}:{} {} {} {pax:?}",
                header.entry_type(),
                String::from_utf8_lossy(&member.path),
                header.mode().unwrap(),
                header.uid().unwrap(),
                header.gid().unwrap(),
                member.size,
                header.mtime().unwrap(),
            ));
        }
        lines
    }

    fn file(path: &str, size: u64) -> Entry {
        let kind = Kind::File { size, digest: FileDigest([0; 32]), member: 0 };
        let time = Time { seconds: 1_700_000_000, nanos: 0 };
        Entry {
            kind,
            mode: 0o4755,
            uid: 7,
            gid: 8,
            ..Entry::directory(RootfsPath::parse(path).unwrap(), time)
        }
    }

    #[test]
    fn a_plain_file_needs_no_extension() {
        expect_test::expect![[r#"
            [
                "Regular a/b 4755 7:8 3 1700000000 []",
            ]
        "#]]
        .assert_debug_eq(&round_trip(&file("a/b", 3), b"abc"));
    }

    #[test]
    fn what_ustar_cannot_say_goes_into_records() {
        let long = format!("{}/x", "n".repeat(120));
        let entry = Entry {
            uid: 3_000_000,
            mtime: Time { seconds: -2, nanos: 500_000_000 },
            xattrs: [Xattr { name: b"user.k".as_slice().into(), value: b"v\n=".as_slice().into() }].into(),
            ..file(&long, 0)
        };
        let lines = round_trip(&entry, b"");
        assert_eq!(lines.len(), 1);
        for record in ["path=nnn", "uid=3000000", "mtime=-1.5", "SCHILY.xattr.user.k=v\\n="] {
            assert!(lines[0].contains(record), "{record} is not in {}", lines[0]);
        }
    }

    #[test]
    fn directories_markers_and_the_root_have_their_names() {
        let time = Time::default();
        let opaque = Entry {
            kind: Kind::Directory { opaque: true },
            ..Entry::directory(RootfsPath::parse("d").unwrap(), time)
        };
        expect_test::expect![[r#"
            [
                "Directory d/ 755 0:0 0 0 []",
                "Regular d/.wh..wh..opq 0 0:0 0 0 []",
            ]
        "#]]
        .assert_debug_eq(&round_trip(&opaque, b""));
        assert_eq!(
            round_trip(&Entry::directory(RootfsPath::root(), time), b""),
            ["Directory ./ 755 0:0 0 0 []"]
        );
        assert_eq!(
            round_trip(&Entry::whiteout(RootfsPath::parse("a/b").unwrap()), b""),
            ["Regular a/.wh.b 0 0:0 0 0 []"]
        );
        let implied = Entry { implied: true, ..Entry::directory(RootfsPath::parse("i").unwrap(), time) };
        assert!(round_trip(&implied, b"").is_empty());
    }

    #[test]
    fn record_lengths_count_their_own_digits() {
        for size in [1, 5, 6, 7, 90, 91, 92, 93, 94, 95, 989, 990, 991, 992, 993, 994, 995] {
            let mut record = Vec::new();
            append_record(b"k", &vec![b'v'; size], &mut record);
            let text = String::from_utf8(record).unwrap();
            assert_eq!(text.split(' ').next().unwrap(), text.len().to_string());
        }
    }
}
