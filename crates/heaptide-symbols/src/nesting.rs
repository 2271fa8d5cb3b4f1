//! Keeps addr2line from units that are nested deeper than any compiler nests.
//!
//! addr2line follows inlined functions into each other by recursion, as deep as the file says: a crafted one would
//! overflow the stack. So whatever unit it may look into for an address is looked through here first.

use std::cell::RefCell;

use gimli::{DebugInfoOffset, Dwarf, UnitType};
use rustc_hash::FxHashMap;

use crate::debug_info::Reader;

/// Deeper than what compilers make, and little enough for the stack of a thread.
const DEEPEST: isize = 1000;

/// Which units an address may be in, at least those that addr2line takes for it.
pub(crate) struct Nesting {
    ranges: Vec<Range>,
    /// They say nothing of where their code is.
    anywhere: Vec<DebugInfoOffset>,
    /// What was found of those that were looked through.
    too_deep: RefCell<FxHashMap<usize, bool>>,
}

struct Range {
    begin: u64,
    end: u64,
    /// The furthest end of this and all before it.
    furthest: u64,
    unit: DebugInfoOffset,
}

impl Nesting {
    /// Reads the first entry of each unit.
    pub(crate) fn new(dwarf: &Dwarf<Reader<'_>>) -> Result<Self, gimli::Error> {
        let mut listed: FxHashMap<usize, Vec<(u64, u64)>> = FxHashMap::default();
        let mut headers = dwarf.debug_aranges.headers();
        while let Some(header) = headers.next()? {
            let ranges = listed.entry(header.debug_info_offset().0).or_default();
            // The reader ends after an error.
            for range in header.entries().flatten() {
                ranges.push((range.range().begin, range.range().end));
            }
        }
        let mut ranges = Vec::new();
        let mut anywhere = Vec::new();
        let mut headers = dwarf.units();
        while let Some(header) = headers.next()? {
            let Some(offset) = header.debug_info_offset() else {
                continue;
            };
            if matches!(
                header.type_(),
                UnitType::Type { .. } | UnitType::SplitType { .. } | UnitType::Partial
            ) {
                continue;
            }
            let Ok(unit) = dwarf.unit(header) else {
                continue;
            };
            let mut known = listed.remove(&offset.0).unwrap_or_default();
            if let Ok(mut own) = dwarf.unit_ranges(&unit) {
                while let Ok(Some(range)) = own.next() {
                    known.push((range.begin, range.end));
                }
            }
            known.retain(|(begin, end)| begin < end);
            if known.is_empty() {
                anywhere.push(offset);
            }
            ranges.extend(known.into_iter().map(|(begin, end)| Range {
                begin,
                end,
                furthest: 0,
                unit: offset,
            }));
        }
        ranges.sort_unstable_by_key(|range| range.begin);
        let mut furthest = 0;
        for range in &mut ranges {
            furthest = furthest.max(range.end);
            range.furthest = furthest;
        }
        Ok(Self {
            ranges,
            anywhere,
            too_deep: RefCell::default(),
        })
    }

    /// Whether a unit that `address` may be in is nested too deeply.
    pub(crate) fn is_too_deep(&self, dwarf: &Dwarf<Reader<'_>>, address: u64) -> bool {
        let after = self.ranges.partition_point(|range| range.begin <= address);
        let before = self.ranges[..after].iter().rev();
        let near = before
            .take_while(|range| address < range.furthest)
            .filter(|range| address < range.end)
            .map(|range| range.unit);
        let mut units = near.chain(self.anywhere.iter().copied());
        units.any(|unit| {
            let mut known = self.too_deep.borrow_mut();
            *known
                .entry(unit.0)
                .or_insert_with(|| depth(dwarf, unit).is_some_and(|depth| depth > DEEPEST))
        })
    }
}

/// How deep entries are in each other, up to the first error or somewhat beyond the limit.
fn depth(dwarf: &Dwarf<Reader<'_>>, unit: DebugInfoOffset) -> Option<isize> {
    let header = dwarf.debug_info.header_from_offset(unit).ok()?;
    let unit = dwarf.unit(header).ok()?;
    let mut entries = unit.entries_raw(None).ok()?;
    // The lowest so far: depths of a broken unit may begin anywhere.
    let (mut lowest, mut deepest) = (0, 0);
    while !entries.is_empty() && deepest <= DEEPEST {
        let here = entries.next_depth();
        lowest = here.min(lowest);
        deepest = deepest.max(here.saturating_sub(lowest));
        let Ok(abbreviation) = entries.read_abbreviation() else {
            break;
        };
        let Some(abbreviation) = abbreviation else {
            continue;
        };
        if entries.skip_attributes(abbreviation.attributes()).is_err() {
            break;
        }
    }
    Some(deepest)
}
