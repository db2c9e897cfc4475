//! What a medium holds, and what it may hold after a power cut.
//!
//! What enters: the log, change by change. What leaves: images of the directory. A file is what was fsynced and what was
//! written since; a directory is the names that were fsynced and what was done to names since. Until its fsync each of
//! those changes may have arrived, or not, or in part, in any order.

use super::chance::{Chance, hash};
use super::change::{Change, Entry};
use std::collections::BTreeMap;
use std::rc::Rc;

/// The piece that a cheap medium loses as a whole.
pub(crate) const BLOCK: u64 = 4096;
/// The piece that arrives as a whole.
const SECTOR: u64 = 512;

/// Names and contents: what is found after a power cut.
pub(crate) type Image = BTreeMap<String, Vec<u8>>;

/// What a cut may do to the neighbours of what was being written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Threat {
    /// Every block that was being written to may be garbage as a whole, with bytes in it that were fsynced long ago.
    Garbage,
    /// Only the bytes that were being written may be (`powersafe = true`).
    NeighboursKept,
}

/// How an image differs from what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Shape {
    /// Everything arrived.
    All,
    /// Nothing that wasn't fsynced did.
    None,
    /// In order up to some change of each file.
    Prefix,
    /// Some changes, in no order.
    Subset,
    /// Some sectors of one write.
    Torn,
    /// Blocks in flight are garbage.
    Garbage,
    /// Blocks in flight are zeros.
    Zeros,
    /// Of blocks in flight the first part is new and the rest garbage.
    Shorn,
    /// Contents arrived, some names did not.
    Names,
}

/// All of them; the first two have one image per boundary.
pub(crate) const SHAPES: [Shape; 9] = [
    Shape::All,
    Shape::None,
    Shape::Prefix,
    Shape::Subset,
    Shape::Torn,
    Shape::Garbage,
    Shape::Zeros,
    Shape::Shorn,
    Shape::Names,
];

#[derive(Debug, Clone)]
enum Edit {
    Write { at: u64, bytes: Rc<[u8]> },
    SetLength(u64),
}

impl Edit {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write { at, bytes } => put(content, *at, bytes),
            Self::SetLength(bytes) => content.resize(*bytes as usize, 0),
        }
    }

    /// As much of it as `fate` lets through, by the kernel's pages.
    fn apply_by(&self, fate: Fate, content: &mut Vec<u8>, chance: &mut Chance) {
        let (at, bytes) = match (self, fate) {
            (_, Fate::Dropped) => return,
            (_, Fate::Arrived) => return self.apply(content),
            (Self::SetLength(_), _) => {
                return if chance.one_in(2) {
                    self.apply(content)
                };
            }
            (Self::Write { at, bytes }, _) => (*at, bytes),
        };
        let end = at + bytes.len() as u64;
        let mut from = at;
        while from < end {
            let to = ((from / BLOCK + 1) * BLOCK).min(end);
            if chance.one_in(2) {
                put(content, from, &bytes[(from - at) as usize..(to - at) as usize]);
                if fate == Fate::Garbage && chance.one_in(2) {
                    spoil(Shape::Garbage, content, from as usize, to as usize, chance);
                }
            }
            from = to;
        }
    }
}

fn put(content: &mut Vec<u8>, at: u64, bytes: &[u8]) {
    let (at, end) = (at as usize, at as usize + bytes.len());
    if content.len() < end {
        content.resize(end, 0);
    }
    content[at..end].copy_from_slice(bytes);
}

#[derive(Debug, Clone, Default)]
struct Node {
    fsynced: Vec<u8>,
    /// Since an fsync failed: what it was asked for (true), which no later one brings, and what was fsynced between.
    since: Vec<(Edit, bool)>,
    pending: Vec<Edit>,
}

/// What became of what a failed fsync was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Dropped,
    Arrived,
    /// Some pages of it.
    Some,
    /// Its pages arrived, or not, or are garbage.
    Garbage,
}

#[derive(Debug, Clone)]
enum NameEdit {
    Link(String, usize),
    Move(String, String),
    Unlink(String),
}

impl NameEdit {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Link(name, node) => drop(names.insert(name.clone(), *node)),
            Self::Move(from, to) => {
                if let Some(node) = names.remove(from) {
                    names.insert(to.clone(), node);
                }
            }
            Self::Unlink(name) => drop(names.remove(name)),
        }
    }
}

/// The files of one directory under power.
#[derive(Debug, Clone, Default)]
pub(crate) struct Medium {
    nodes: Vec<Node>,
    fsynced: BTreeMap<String, usize>,
    names: BTreeMap<String, usize>,
    pending: Vec<NameEdit>,
}

impl Medium {
    /// A medium that holds `image`, all of it fsynced.
    pub(crate) fn holding(image: &Image) -> Self {
        let mut medium = Self::default();
        for (name, content) in image {
            medium.names.insert(name.clone(), medium.nodes.len());
            medium.nodes.push(Node { fsynced: content.clone(), ..Node::default() });
        }
        medium.fsynced = medium.names.clone();
        medium
    }

    /// Takes the next line of the log; whether it changed anything.
    pub(crate) fn take(&mut self, entry: &Entry) -> bool {
        let name = &entry.name;
        match &entry.change {
            Change::Begun(_) | Change::Acknowledged(_) => return false,
            Change::Settled => {
                *self = Self::holding(&self.cut(Shape::All, Threat::Garbage, &mut Chance::new(0)));
                return false;
            }
            Change::Create => {
                self.nodes.push(Node::default());
                self.rename(NameEdit::Link(name.clone(), self.nodes.len() - 1));
            }
            Change::Write { at, bytes } => self.edit(name, Edit::Write { at: *at, bytes: Rc::clone(bytes) }),
            Change::SetLength(bytes) => self.edit(name, Edit::SetLength(*bytes)),
            Change::Fsync => {
                if let Some(node) = self.names.get(name) {
                    self.nodes[*node].fsync();
                }
            }
            Change::FsyncFailed => {
                if let Some(node) = self.names.get(name) {
                    let node = &mut self.nodes[*node];
                    node.since.extend(node.pending.drain(..).map(|edit| (edit, true)));
                }
            }
            Change::FsyncDirectory => {
                self.pending.clear();
                self.fsynced = self.names.clone();
            }
            Change::Rename { to } => self.rename(NameEdit::Move(name.clone(), to.clone())),
            Change::Remove => self.rename(NameEdit::Unlink(name.clone())),
        }
        true
    }

    fn rename(&mut self, edit: NameEdit) {
        edit.apply(&mut self.names);
        self.pending.push(edit);
    }

    fn edit(&mut self, name: &str, edit: Edit) {
        let node = *self.names.get(name).unwrap_or_else(|| panic!("{name} was written and never made"));
        self.nodes[node].pending.push(edit);
    }

    /// Whether a cut now can leave more than one image.
    pub(crate) fn unsettled(&self) -> bool {
        let unsettled = |node: &Node| !node.pending.is_empty() || !node.since.is_empty();
        !self.pending.is_empty() || self.names.values().any(|node| unsettled(&self.nodes[*node]))
    }

    /// One image that a cut may leave now.
    pub(crate) fn cut(&self, shape: Shape, threat: Threat, chance: &mut Chance) -> Image {
        let names = self.names_after(shape, chance);
        let content = |node: &usize, chance: &mut Chance| self.nodes[*node].after(shape, threat, chance);
        names.iter().map(|(name, node)| (name.clone(), content(node, chance))).collect()
    }

    fn names_after(&self, shape: Shape, chance: &mut Chance) -> BTreeMap<String, usize> {
        match (shape, chance.below(4)) {
            (Shape::None, _) => self.fsynced.clone(),
            (Shape::All, _) => self.names.clone(),
            (Shape::Names, _) | (_, 0) => {
                let mut names = self.fsynced.clone();
                self.pending.iter().filter(|_| chance.one_in(2)).for_each(|edit| edit.apply(&mut names));
                names
            }
            (_, 1) => self.fsynced.clone(),
            _ => self.names.clone(),
        }
    }
}

impl Node {
    fn fsync(&mut self) {
        match self.since.is_empty() {
            true => self.pending.drain(..).for_each(|edit| edit.apply(&mut self.fsynced)),
            false => self.since.extend(self.pending.drain(..).map(|edit| (edit, false))),
        }
    }

    /// What is there of everything that an fsync was asked for.
    fn on_medium(&self, shape: Shape, chance: &mut Chance) -> Vec<u8> {
        let mut content = self.fsynced.clone();
        if self.since.is_empty() {
            return content;
        }
        let fate = match (shape, chance.below(4)) {
            (Shape::All | Shape::None, _) | (_, 0) => Fate::Dropped,
            (_, 1) => Fate::Some,
            (_, 2) => Fate::Garbage,
            _ => Fate::Arrived,
        };
        for (edit, failed) in &self.since {
            match failed {
                true => edit.apply_by(fate, &mut content, chance),
                false => edit.apply(&mut content),
            }
        }
        content
    }

    fn after(&self, shape: Shape, threat: Threat, chance: &mut Chance) -> Vec<u8> {
        let mut content = self.on_medium(shape, chance);
        let n = self.pending.len();
        if n == 0 {
            return content;
        }
        match shape {
            Shape::None => {}
            Shape::All | Shape::Names => self.pending.iter().for_each(|edit| edit.apply(&mut content)),
            Shape::Prefix => self.pending[..chance.below(n + 1)].iter().for_each(|edit| edit.apply(&mut content)),
            Shape::Subset => {
                let kept = self.pending.iter().filter(|_| chance.one_in(2));
                kept.for_each(|edit| edit.apply(&mut content));
            }
            Shape::Torn => {
                // Mostly the last one: that is the write the power went in.
                let torn = if chance.one_in(2) { n - 1 } else { chance.below(n) };
                self.pending[..torn].iter().for_each(|edit| edit.apply(&mut content));
                tear(&self.pending[torn], &mut content, chance);
            }
            Shape::Garbage | Shape::Zeros | Shape::Shorn => {
                let upto = if chance.one_in(2) { n } else { chance.below(n + 1) };
                self.pending[..upto].iter().for_each(|edit| edit.apply(&mut content));
                self.ruin(shape, threat, &mut content, chance);
            }
        }
        content
    }

    /// Ruins one piece in flight, some, or all.
    fn ruin(&self, shape: Shape, threat: Threat, content: &mut [u8], chance: &mut Chance) {
        let mut pieces = Vec::new();
        for edit in &self.pending {
            let Edit::Write { at, bytes } = edit else { continue };
            let end = at + bytes.len() as u64;
            let mut block = at / BLOCK * BLOCK;
            while block < end {
                pieces.push(match threat {
                    Threat::Garbage => (block, block + BLOCK),
                    Threat::NeighboursKept => (block.max(*at), (block + BLOCK).min(end)),
                });
                block += BLOCK;
            }
        }
        pieces.sort_unstable();
        pieces.dedup();
        let Some(one) = pieces.len().checked_sub(1).map(|most| chance.below(most + 1)) else { return };
        let (all, some) = (chance.one_in(6), chance.one_in(4));
        for (at, (from, to)) in pieces.into_iter().enumerate() {
            if at == one || all || (some && chance.one_in(2)) {
                spoil(shape, content, from as usize, to as usize, chance);
            }
        }
    }
}

/// Some sectors of a write arrive.
fn tear(edit: &Edit, content: &mut Vec<u8>, chance: &mut Chance) {
    let Edit::Write { at, bytes } = edit else { return };
    let end = at + bytes.len() as u64;
    // From the front, from the back, or here and there.
    let (way, cut) = (chance.below(3), at + chance.below(bytes.len().max(1)) as u64);
    let mut from = *at;
    while from < end {
        let to = ((from / SECTOR + 1) * SECTOR).min(end);
        let arrived = match way {
            0 => to <= cut,
            1 => from >= cut,
            _ => chance.one_in(2),
        };
        if arrived {
            put(content, from, &bytes[(from - at) as usize..(to - at) as usize]);
        }
        from = to;
    }
}

fn spoil(shape: Shape, content: &mut [u8], from: usize, to: usize, chance: &mut Chance) {
    let to = to.min(content.len());
    if from >= to {
        return;
    }
    // A shorn write stops after 3 or 7 eighths of the block.
    let eighths = [0, 3, 7][if shape == Shape::Shorn { 1 + chance.below(2) } else { 0 }];
    let piece = &mut content[from..to];
    let keep = piece.len() * eighths / 8;
    match shape {
        Shape::Zeros => piece.fill(0),
        _ => piece[keep..].chunks_mut(8).for_each(|word| {
            let noise = chance.next().to_le_bytes();
            word.copy_from_slice(&noise[..word.len()]);
        }),
    }
}

/// Identity of an image, to count distinct ones.
pub(crate) fn identity(image: &Image) -> u64 {
    image.iter().fold(0, |sum, (name, content)| hash(hash(sum, name.as_bytes()), content))
}
