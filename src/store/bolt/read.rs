//! Reading a database, whoever wrote it.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use super::BoltError;
use super::page::{
    BRANCH, BUCKET, BUCKET_BYTES, ELEMENT_BYTES, HEADER_BYTES, LEAF, MAGIC, META_BYTES, Meta,
    PAGE_BYTES, u16_at, u32_at, u64_at, usize_at,
};

/// No tree of pages is deeper.
const DEPTH_MAX: usize = 32;
/// Longest page with those that belong to it: etcd's requests are far below.
const PAGE_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Buckets have short names and there are few; a bucket that is in its parent's page is small.
const BUCKETS_MAX: usize = 1000;

/// Whether `file` begins as a database does.
pub fn looks_like_one(file: &File) -> bool {
    let mut magic = [0; 4];
    let read = file.read_exact_at(&mut magic, HEADER_BYTES as u64);
    read.is_ok() && u32::from_le_bytes(magic) == MAGIC
}

/// A bucket of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Its name.
    pub name: Vec<u8>,
    place: Place,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Page(u64),
    /// In its parent's page.
    Inside(Vec<u8>),
}

/// A database that is being read. Each page is looked at once: read each bucket once.
#[derive(Debug)]
pub struct Database<'f> {
    file: &'f File,
    bytes: u64,
    page_size: u64,
    root: u64,
    /// How many there are, free ones too.
    pages: u64,
    /// How many pages may still be looked at: a tree that bites its own tail ends.
    pages_left: u64,
}

/// What is done with a leaf's element: its flags, key and value.
type Visit<'v, E> = dyn FnMut(u32, &[u8], &[u8]) -> Result<(), E> + 'v;

impl<'f> Database<'f> {
    /// Opens the database that the first `bytes` of `file` are.
    pub fn open(file: &'f File, bytes: u64) -> Result<Self, BoltError> {
        let first = meta(file, 0);
        let page_size = first.map_or(PAGE_BYTES as u64, |meta| meta.page_size);
        let second = meta(file, page_size);
        let newest = [first, second].into_iter().flatten().max_by_key(|meta| meta.transaction);
        let meta = newest.ok_or_else(|| BoltError::damaged("neither meta page is right"))?;
        let pages = bytes / meta.page_size;
        if meta.end > pages {
            return Err(BoltError::Damaged(format!(
                "it says that it has {} pages, and has {pages}: it is cut off",
                meta.end
            )));
        }
        let Meta { page_size, root, .. } = meta;
        Ok(Self { file, bytes, page_size, root, pages: meta.end, pages_left: pages })
    }

    /// The size of all its pages.
    pub fn bytes(&self) -> u64 {
        self.pages * self.page_size
    }

    /// Its buckets.
    pub fn buckets(&mut self) -> Result<Vec<Bucket>, BoltError> {
        let mut buckets = Vec::new();
        self.walk(self.root, 0, &mut None, &mut |flags, name, value| {
            if flags & BUCKET == 0 || buckets.len() >= BUCKETS_MAX {
                return Err(BoltError::damaged("its root holds something else than buckets"));
            }
            let place = match u64_at(value, 0)? {
                0 => Place::Inside(value.get(BUCKET_BYTES..).unwrap_or_default().to_vec()),
                root => Place::Page(root),
            };
            buckets.push(Bucket { name: name.to_vec(), place });
            Ok(())
        })?;
        Ok(buckets)
    }

    /// Gives each pair of a bucket, in order.
    pub fn pairs<E: From<BoltError>>(
        &mut self,
        bucket: &Bucket,
        mut give: impl FnMut(&[u8], &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut visit = |flags: u32, key: &[u8], value: &[u8]| {
            if flags & BUCKET == 0 {
                give(key, value)
            } else {
                Err(BoltError::damaged("there is a bucket in a bucket").into())
            }
        };
        match &bucket.place {
            Place::Page(root) => self.walk(*root, 0, &mut None, &mut visit),
            Place::Inside(page) => leaf(page, &mut None, &mut visit),
        }
    }

    fn walk<E: From<BoltError>>(
        &mut self,
        id: u64,
        depth: usize,
        last: &mut Option<Vec<u8>>,
        visit: &mut Visit<'_, E>,
    ) -> Result<(), E> {
        if depth > DEPTH_MAX {
            return Err(BoltError::damaged("its pages lead nowhere").into());
        }
        let page = self.page(id)?;
        match u16_at(&page, 8)? {
            LEAF => leaf(&page, last, visit),
            BRANCH => {
                for number in 0..usize::from(u16_at(&page, 10)?) {
                    let below = u64_at(&page, HEADER_BYTES + number * ELEMENT_BYTES + 8)?;
                    self.walk(below, depth + 1, last, visit)?;
                }
                Ok(())
            }
            _ => Err(BoltError::Damaged(format!("page {id} is of no known kind")).into()),
        }
    }

    /// A page with those that belong to it.
    fn page(&mut self, id: u64) -> Result<Vec<u8>, BoltError> {
        let lost = || BoltError::Damaged(format!("page {id} is not there"));
        let at = id.checked_mul(self.page_size).filter(|at| *at < self.bytes).ok_or_else(lost)?;
        let mut head = [0; HEADER_BYTES];
        self.file.read_exact_at(&mut head, at)?;
        let pages = u64::from(u32_at(&head, 12)?) + 1;
        let bytes = pages * self.page_size;
        if u64_at(&head, 0)? != id || bytes > PAGE_BYTES_MAX || bytes > self.bytes - at {
            return Err(lost());
        }
        // All together cannot be more than the file has.
        let left = self.pages_left.checked_sub(pages);
        self.pages_left = left.ok_or_else(|| BoltError::damaged("its pages lead in circles"))?;
        let mut page = vec![0; usize::try_from(bytes).unwrap_or(0)];
        self.file.read_exact_at(&mut page, at)?;
        Ok(page)
    }
}

fn meta(file: &File, at: u64) -> Option<Meta> {
    let mut page = [0; HEADER_BYTES + META_BYTES];
    file.read_exact_at(&mut page, at).ok()?;
    Meta::decode(&page)
}

/// Visits the elements of a leaf. Together they are no more than the leaf, and their keys are behind
/// `last`.
fn leaf<E: From<BoltError>>(
    page: &[u8],
    last: &mut Option<Vec<u8>>,
    visit: &mut Visit<'_, E>,
) -> Result<(), E> {
    let damaged = |reason: &str| E::from(BoltError::damaged(reason));
    let mut left = page.len();
    for number in 0..usize::from(u16_at(page, 10)?) {
        let start = HEADER_BYTES + number * ELEMENT_BYTES;
        let (at, key_bytes) = (usize_at(page, start + 4)?, usize_at(page, start + 8)?);
        let value_bytes = usize_at(page, start + 12)?;
        let key = start.saturating_add(at);
        let value = key.saturating_add(key_bytes);
        let end = value.saturating_add(value_bytes);
        let (Some(key), Some(value)) = (page.get(key..value), page.get(value..end)) else {
            return Err(damaged("an element goes beyond its page"));
        };
        let all = left.checked_sub(key_bytes.saturating_add(value_bytes));
        left = all.ok_or_else(|| damaged("the elements of a page overlap"))?;
        if last.as_deref().is_some_and(|last| last >= key) {
            return Err(damaged("its keys are not in order"));
        }
        let last = last.get_or_insert_default();
        last.clear();
        last.extend_from_slice(key);
        visit(u32_at(page, start)?, key, value)?;
    }
    Ok(())
}
