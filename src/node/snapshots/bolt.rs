//! Reads an etcd database as far as a person wants to know what is in it before a cluster is restored
//! from it: its revision, how many keys it has, and whose token its K3s had.
//!
//! The format is bbolt's (`page.go`, `bucket.go`) with etcd's keys (`mvcc/revision.go`) in it. A file that
//! somebody else may have written is not believed: each page is looked at once, none beyond the file.

use std::collections::HashMap;
use std::fs::File;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::fs::FileExt as _;

use prost::Message as _;

use crate::rpc::pb::mvccpb::KeyValue;

/// What a database tells of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// The newest revision.
    pub(crate) revision: i64,
    /// How many keys there are.
    pub(crate) keys: u64,
    /// What stands behind `/bootstrap/` in the keys of K3s's bootstrap data: the first twelve digits of
    /// the hash of the token (`pkg/cluster/encrypt.go`, `storageKey`).
    pub(crate) bootstrap: Vec<String>,
}

const MAGIC: u32 = 0xED0C_DAED;
const META: u16 = 0x04;
const LEAF: u16 = 0x02;
const BRANCH: u16 = 0x01;
const PAGE_HEADER: usize = 16;
const ELEMENT: usize = 16;
/// A leaf's element that is a bucket.
const BUCKET: u32 = 0x01;
/// No tree of pages is deeper.
const DEPTH_MAX: usize = 32;
/// Longest page with its overflow that is read: etcd's requests are far below.
const PAGE_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// A revision as a key: two numbers with a `_` between, and a `t` behind when the key was deleted.
const REVISION_BYTES: usize = 17;
const BOOTSTRAP: &[u8] = b"/bootstrap/";

/// Reads all keys.
///
/// # Errors
/// Why it cannot be read, in words.
pub(crate) fn read(file: &File) -> Result<Told, String> {
    let bytes = file.metadata().map_err(|error| error.to_string())?.len();
    let (page_size, root) = root(file)?;
    let mut tree = Tree { file, bytes, page_size, pages_left: bytes / page_size + 1 };
    let mut keys = None;
    tree.walk(root, 0, &mut |flags, key, value| {
        if flags & BUCKET != 0 && key == b"key" {
            keys = Some(u64_at(value, 0)?);
        }
        Ok(())
    })?;
    let keys = keys.ok_or("it has no keys of etcd's")?;
    let mut told = Told::default();
    let mut live: HashMap<u64, bool> = HashMap::new();
    let mut bootstrap: HashMap<Vec<u8>, bool> = HashMap::new();
    // A bucket that fits is in its parent's page; etcd's is then as good as empty.
    if keys == 0 {
        return Err("it holds nothing".to_owned());
    }
    tree.walk(keys, 0, &mut |_, key, value| {
        let revision = key.get(..8).ok_or("a revision is cut off")?;
        let revision = i64::from_be_bytes(revision.try_into().unwrap_or_default());
        told.revision = told.revision.max(revision);
        let is_live = key.len() == REVISION_BYTES;
        let pair = KeyValue::decode(value).map_err(|error| format!("a key: {error}"))?;
        let mut hasher = DefaultHasher::new();
        pair.key.hash(&mut hasher);
        live.insert(hasher.finish(), is_live);
        if let Some(rest) = pair.key.strip_prefix(BOOTSTRAP) {
            bootstrap.insert(rest.to_vec(), is_live);
        }
        Ok(())
    })?;
    told.keys = live.values().filter(|is_live| **is_live).count() as u64;
    let named = bootstrap.into_iter().filter(|(_, is_live)| *is_live);
    told.bootstrap = named.map(|(key, _)| String::from_utf8_lossy(&key).into_owned()).collect();
    told.bootstrap.sort();
    Ok(told)
}

/// The page size, and the root of the newest of the two meta pages that is right.
fn root(file: &File) -> Result<(u64, u64), String> {
    let first = meta(file, 0);
    let page_size = first.as_ref().map_or(4096, |meta| meta.page_size);
    let second = meta(file, page_size);
    let newest = [first, second].into_iter().flatten().max_by_key(|meta| meta.txid);
    newest
        .map(|meta| (meta.page_size, meta.root))
        .ok_or_else(|| "neither meta page is right".into())
}

struct Meta {
    page_size: u64,
    root: u64,
    txid: u64,
}

fn meta(file: &File, at: u64) -> Option<Meta> {
    let mut page = [0; PAGE_HEADER + 64];
    file.read_exact_at(&mut page, at).ok()?;
    let (header, meta) = page.split_at(PAGE_HEADER);
    let is_meta = u16_at(header, 8).ok()? & META != 0 && u32_at(meta, 0).ok()? == MAGIC;
    let page_size = u64::from(u32_at(meta, 8).ok()?);
    let sum = u64_at(meta, 56).ok()?;
    let is_size = page_size.is_power_of_two() && (512..=1 << 20).contains(&page_size);
    let is_right = is_meta && is_size && (sum == 0 || sum == fnv(meta.get(..56)?));
    is_right.then_some(Meta {
        page_size,
        root: u64_at(meta, 16).ok()?,
        txid: u64_at(meta, 48).ok()?,
    })
}

/// FNV-1a, the sum of a meta page.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

struct Tree<'f> {
    file: &'f File,
    bytes: u64,
    page_size: u64,
    /// How many pages may still be looked at: a tree that bites its own tail ends.
    pages_left: u64,
}

/// What is done with a leaf's element: its flags, key and value.
type Visit<'v> = dyn FnMut(u32, &[u8], &[u8]) -> Result<(), String> + 'v;

impl Tree<'_> {
    fn walk(&mut self, id: u64, depth: usize, visit: &mut Visit<'_>) -> Result<(), String> {
        if depth > DEPTH_MAX {
            return Err("its pages lead nowhere".to_owned());
        }
        let page = self.page(id)?;
        let (flags, count) = (u16_at(&page, 8)?, usize::from(u16_at(&page, 10)?));
        for number in 0..count {
            let start = PAGE_HEADER + number * ELEMENT;
            if flags & BRANCH != 0 {
                self.walk(u64_at(&page, start + 8)?, depth + 1, visit)?;
            } else if flags & LEAF != 0 {
                let key = start + u32_at(&page, start + 4)? as usize;
                let value = key + u32_at(&page, start + 8)? as usize;
                let end = value + u32_at(&page, start + 12)? as usize;
                let cut = || "an element goes beyond its page".to_owned();
                let (key, value) = (page.get(key..value), page.get(value..end));
                let (key, value) = (key.ok_or_else(cut)?, value.ok_or_else(cut)?);
                visit(u32_at(&page, start)?, key, value)?;
            } else {
                return Err(format!("page {id} is of no known kind"));
            }
        }
        Ok(())
    }

    fn page(&mut self, id: u64) -> Result<Vec<u8>, String> {
        let lost = || format!("page {id} is not there");
        self.pages_left =
            self.pages_left.checked_sub(1).ok_or("its pages lead in circles".to_owned())?;
        let at = id.checked_mul(self.page_size).filter(|at| *at < self.bytes).ok_or_else(lost)?;
        let mut head = [0; PAGE_HEADER];
        self.file.read_exact_at(&mut head, at).map_err(|error| error.to_string())?;
        let bytes = (u64::from(u32_at(&head, 12)?) + 1) * self.page_size;
        if u64_at(&head, 0)? != id || bytes > PAGE_BYTES_MAX || at + bytes > self.bytes {
            return Err(lost());
        }
        let mut page = vec![0; usize::try_from(bytes).map_err(|error| error.to_string())?];
        self.file.read_exact_at(&mut page, at).map_err(|error| error.to_string())?;
        Ok(page)
    }
}

fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], String> {
    let found = bytes.get(at..at + N).and_then(|found| found.try_into().ok());
    found.ok_or_else(|| "a number goes beyond its page".to_owned())
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, String> {
    bytes_at(bytes, at).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, String> {
    bytes_at(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64, String> {
    bytes_at(bytes, at).map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const PAGE: usize = 4096;

    fn page(id: u64, flags: u16, count: u16) -> Vec<u8> {
        let mut page = id.to_le_bytes().to_vec();
        page.extend(flags.to_le_bytes());
        page.extend(count.to_le_bytes());
        page.extend(0_u32.to_le_bytes());
        page
    }

    fn leaf(id: u64, elements: &[(u32, Vec<u8>, Vec<u8>)]) -> Vec<u8> {
        let mut page = page(id, LEAF, u16::try_from(elements.len()).unwrap());
        let mut data = Vec::new();
        for (number, (flags, key, value)) in elements.iter().enumerate() {
            let pos = (elements.len() - number) * ELEMENT + data.len();
            let words = [pos, key.len(), value.len()].map(|word| u32::try_from(word).unwrap());
            for word in [[*flags].as_slice(), &words].concat() {
                page.extend(word.to_le_bytes());
            }
            data.extend_from_slice(key);
            data.extend_from_slice(value);
        }
        page.extend(data);
        page
    }

    fn meta_page(id: u64, txid: u64, root: u64) -> Vec<u8> {
        let mut page = page(id, META, 0);
        let mut meta = Vec::new();
        for word in [MAGIC, 2, u32::try_from(PAGE).unwrap(), 0] {
            meta.extend(word.to_le_bytes());
        }
        for word in [root, 0, 2, 9, txid] {
            meta.extend(word.to_le_bytes());
        }
        let sum = fnv(&meta);
        page.extend(meta);
        page.extend(sum.to_le_bytes());
        page
    }

    fn pair(revision: i64, key: &str, deleted: bool) -> (u32, Vec<u8>, Vec<u8>) {
        let mut at = revision.to_be_bytes().to_vec();
        at.push(b'_');
        at.extend(0_i64.to_be_bytes());
        if deleted {
            at.push(b't');
        }
        let value = KeyValue { key: key.as_bytes().to_vec().into(), ..KeyValue::default() };
        (0, at, value.encode_to_vec())
    }

    fn database(pages: &[Vec<u8>]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        for page in pages {
            let mut page = page.clone();
            page.resize(PAGE, 0);
            file.write_all(&page).unwrap();
        }
        file
    }

    /// Two leaves under a branch: keys that are written, written again and deleted.
    fn sample(txids: (u64, u64)) -> Vec<Vec<u8>> {
        let bucket = |root: u64| [root.to_le_bytes(), 0_u64.to_le_bytes()].concat();
        let mut branch = page(4, BRANCH, 2);
        for id in [5_u64, 6] {
            branch.extend([0; 8]);
            branch.extend(id.to_le_bytes());
        }
        let first = [pair(2, "/bootstrap/0a0b", false), pair(3, "/a", false), pair(4, "/a", false)];
        let second = [
            pair(5, "/b", false),
            pair(6, "/b", true),
            pair(7, "/bootstrap/0a0b", true),
            pair(8, "/bootstrap/0c0d", false),
        ];
        vec![
            meta_page(0, txids.0, 3),
            meta_page(1, txids.1, 3),
            page(2, 0x10, 0),
            leaf(3, &[(BUCKET, b"key".to_vec(), bucket(4))]),
            branch,
            leaf(5, &first),
            leaf(6, &second),
        ]
    }

    #[test]
    fn revision_keys_and_token_are_told() {
        let told = read(&database(&sample((7, 8)))).unwrap();
        let bootstrap = vec!["0c0d".to_owned()];
        assert_eq!(told, Told { revision: 8, keys: 2, bootstrap });
    }

    #[test]
    fn one_right_meta_page_is_enough_and_none_is_refused() {
        let mut pages = sample((9, 8));
        pages[0][PAGE_HEADER + 20] ^= 1;
        assert_eq!(read(&database(&pages)).unwrap().revision, 8);
        pages[1][PAGE_HEADER + 20] ^= 1;
        assert_eq!(read(&database(&pages)).unwrap_err(), "neither meta page is right");
    }

    #[test]
    fn what_leads_nowhere_is_refused() {
        let mut pages = sample((7, 8));
        let in_circles = 4_u64.to_le_bytes();
        pages[4][PAGE_HEADER + 8..PAGE_HEADER + 16].copy_from_slice(&in_circles);
        let refused = read(&database(&pages)).unwrap_err();
        assert!(refused.contains("its pages lead"), "{refused}");
        pages[4][PAGE_HEADER + 8..PAGE_HEADER + 16].copy_from_slice(&99_u64.to_le_bytes());
        assert_eq!(read(&database(&pages)).unwrap_err(), "page 99 is not there");
        let mut pages = sample((7, 8));
        pages[5][PAGE_HEADER + 8..PAGE_HEADER + 12].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(read(&database(&pages)).unwrap_err(), "an element goes beyond its page");
        assert!(read(&database(&[])).is_err());
    }
}
