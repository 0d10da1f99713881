//! Writing a database in one pass: buckets in the order of their names, in each the keys in theirs.
//!
//! A tree is built from its leaves: of each level only the page that is being filled is in memory. What
//! is known at the end only, the meta pages, is written to the file's begin at the end.

use std::io::{self, Seek, SeekFrom, Write};

use bytes::BufMut as _;

use super::page::{
    self, BRANCH, BUCKET, BUCKET_BYTES, ELEMENT_BYTES, FREE_LIST, HEADER_BYTES, LEAF, META, Meta,
    PAGE_BYTES,
};

/// The first page that is neither meta nor free list.
const FIRST_PAGE: u64 = 3;
const FREE_LIST_PAGE: u64 = 2;

/// A page that is being filled.
#[derive(Debug, Default)]
struct Level {
    first_key: Option<Vec<u8>>,
    /// Where each key is among `data`, its size, then flags and size of the value, or the page below.
    elements: Vec<Element>,
    data: Vec<u8>,
}

#[derive(Debug)]
struct Element {
    at: usize,
    key_bytes: usize,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Value { flags: u32, bytes: usize },
    Below(u64),
}

impl Level {
    fn bytes(&self) -> usize {
        HEADER_BYTES + self.elements.len() * ELEMENT_BYTES + self.data.len()
    }

    /// Whether one more element leaves it within a page.
    fn has_room(&self, bytes: usize) -> bool {
        self.elements.is_empty()
            || self.elements.len() < usize::from(u16::MAX) - 1
                && self.bytes() + ELEMENT_BYTES + bytes <= PAGE_BYTES
    }

    fn push(&mut self, key: &[u8], value: &[u8], kind: Kind) {
        self.first_key.get_or_insert_with(|| key.to_vec());
        self.elements.push(Element { at: self.data.len(), key_bytes: key.len(), kind });
        self.data.extend_from_slice(key);
        self.data.extend_from_slice(value);
    }

    /// The page with as many more as it needs.
    fn encode(&self, id: u64) -> io::Result<Vec<u8>> {
        let pages = self.bytes().div_ceil(PAGE_BYTES);
        let is_branch =
            self.elements.first().is_some_and(|element| matches!(element.kind, Kind::Below(_)));
        let count = u16::try_from(self.elements.len()).map_err(io::Error::other)?;
        let overflow = number(pages - 1)?;
        let mut out = page::header(id, if is_branch { BRANCH } else { LEAF }, count, overflow);
        let mut left = self.elements.len();
        for element in &self.elements {
            let at = number(left * ELEMENT_BYTES + element.at)?;
            left -= 1;
            match element.kind {
                Kind::Value { flags, bytes } => {
                    out.put_u32_le(flags);
                    out.put_u32_le(at);
                    out.put_u32_le(number(element.key_bytes)?);
                    out.put_u32_le(number(bytes)?);
                }
                Kind::Below(page) => {
                    out.put_u32_le(at);
                    out.put_u32_le(number(element.key_bytes)?);
                    out.put_u64_le(page);
                }
            }
        }
        out.extend_from_slice(&self.data);
        out.resize(pages * PAGE_BYTES, 0);
        Ok(out)
    }
}

fn number(size: usize) -> io::Result<u32> {
    u32::try_from(size).map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "it is too large"))
}

/// Pages in order, and where the next one goes.
#[derive(Debug)]
struct Pages<W> {
    out: W,
    next: u64,
}

impl<W: Write> Pages<W> {
    fn write(&mut self, level: &Level) -> io::Result<u64> {
        let id = self.next;
        let bytes = level.encode(id)?;
        self.out.write_all(&bytes)?;
        self.next += (bytes.len() / PAGE_BYTES) as u64;
        Ok(id)
    }
}

/// A tree that is being built, from the leaves up.
#[derive(Debug, Default)]
struct Tree {
    levels: Vec<Level>,
    last_key: Option<Vec<u8>>,
}

impl Tree {
    fn put<W: Write>(
        &mut self,
        pages: &mut Pages<W>,
        key: &[u8],
        value: &[u8],
        flags: u32,
    ) -> io::Result<()> {
        if self.last_key.as_deref().is_some_and(|last| last >= key) {
            let why = "the keys of a database are not in order";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        let last = self.last_key.get_or_insert_default();
        last.clear();
        last.extend_from_slice(key);
        self.add(pages, 0, key, value, Kind::Value { flags, bytes: value.len() })
    }

    fn add<W: Write>(
        &mut self,
        pages: &mut Pages<W>,
        height: usize,
        key: &[u8],
        value: &[u8],
        kind: Kind,
    ) -> io::Result<()> {
        if self.levels.len() == height {
            self.levels.push(Level::default());
        }
        let Some(level) = self.levels.get_mut(height) else { return Ok(()) };
        if level.has_room(key.len() + value.len()) {
            level.push(key, value, kind);
            return Ok(());
        }
        let full = std::mem::take(level);
        level.push(key, value, kind);
        self.write(pages, height, &full)
    }

    /// Writes a page and notes it on the level above.
    fn write<W: Write>(
        &mut self,
        pages: &mut Pages<W>,
        height: usize,
        full: &Level,
    ) -> io::Result<()> {
        let id = pages.write(full)?;
        let first = full.first_key.as_deref().unwrap_or_default();
        self.add(pages, height + 1, first, &[], Kind::Below(id))
    }

    /// Writes what is left. Gives the root; nothing for an empty tree.
    fn finish<W: Write>(mut self, pages: &mut Pages<W>) -> io::Result<Option<u64>> {
        let mut height = 0;
        while let Some(level) = self.levels.get_mut(height) {
            let level = std::mem::take(level);
            if height + 1 == self.levels.len() {
                return pages.write(&level).map(Some);
            }
            self.write(pages, height, &level)?;
            height += 1;
        }
        Ok(None)
    }
}

/// Writes a database. [`Writer::finish`] makes it whole; nothing is synced.
#[derive(Debug)]
pub struct Writer<W: Write + Seek> {
    pages: Pages<W>,
    /// The tree of buckets.
    root: Tree,
    /// The bucket that is being filled.
    open: Option<(String, Tree)>,
}

impl<W: Write + Seek> Writer<W> {
    /// Begins a database in an empty file.
    pub fn new(mut out: W) -> io::Result<Self> {
        out.seek(SeekFrom::Start(FIRST_PAGE * PAGE_BYTES as u64))?;
        let pages = Pages { out, next: FIRST_PAGE };
        Ok(Self { pages, root: Tree::default(), open: None })
    }

    /// Begins the next bucket, which stays empty when nothing is put into it.
    pub fn bucket(&mut self, name: &str) -> io::Result<()> {
        self.close()?;
        self.open = Some((name.to_owned(), Tree::default()));
        Ok(())
    }

    /// Puts a pair into the bucket that was begun last, behind all that are there.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        match &mut self.open {
            Some((_, tree)) => tree.put(&mut self.pages, key, value, 0),
            None => Err(io::Error::new(io::ErrorKind::InvalidInput, "there is no bucket")),
        }
    }

    fn close(&mut self) -> io::Result<()> {
        let Some((name, tree)) = self.open.take() else { return Ok(()) };
        let value = match tree.finish(&mut self.pages)? {
            Some(root) => page::bucket(root),
            // An empty leaf without a page of its own.
            None => [page::bucket(0), page::header(0, LEAF, 0, 0)].concat(),
        };
        debug_assert!(value.len() >= BUCKET_BYTES);
        self.root.put(&mut self.pages, name.as_bytes(), &value, BUCKET)
    }

    /// Ends the database.
    pub fn finish(mut self) -> io::Result<W> {
        self.close()?;
        let Some(root) = std::mem::take(&mut self.root).finish(&mut self.pages)? else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "there is no bucket"));
        };
        let Pages { mut out, next: end } = self.pages;
        out.seek(SeekFrom::Start(0))?;
        for transaction in 0..2 {
            let meta = Meta {
                page_size: PAGE_BYTES as u64,
                root,
                free_list: FREE_LIST_PAGE,
                end,
                transaction,
            };
            let mut bytes = page::header(transaction, META, 0, 0);
            bytes.extend_from_slice(&meta.encode());
            bytes.resize(PAGE_BYTES, 0);
            out.write_all(&bytes)?;
        }
        let mut free_list = page::header(FREE_LIST_PAGE, FREE_LIST, 0, 0);
        free_list.resize(PAGE_BYTES, 0);
        out.write_all(&free_list)?;
        out.flush()?;
        Ok(out)
    }
}
