//! Encoder and decoder against each other.

extern crate std;
use super::*;
use crate::columns::{COLUMNS, ColumnPlaces, Fields, InColumns, Written, sort_fields};
use crate::decoder::{BadEvent, Decoder, Receiver};
use crate::encoder::Encoder;
use crate::memory::{
    ADDRESS_MASK, ADDRESSES, SITES, address_in, address_place, place_in, place_of, site_in,
    site_slot, site_word,
};
use std::vec::Vec;

/// A chunk under construction.
struct Chunk {
    encoder: Encoder,
    bytes: Vec<u8>,
}

impl Chunk {
    fn add(&mut self, write: impl FnOnce(&mut Encoder, &mut [u8; MOST_EVENT_BYTES]) -> usize) {
        let mut out = [0; MOST_EVENT_BYTES];
        let length = write(&mut self.encoder, &mut out);
        assert!(length <= MOST_EVENT_BYTES);
        self.bytes.extend_from_slice(&out[..length]);
    }
}

/// Numbers that look random, the same each time.
fn noise(seed: &mut u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed
}

fn random_chunk(seed: u64, events: usize) -> (Vec<u8>, Vec<(Moment, Event)>) {
    let mut seed = seed;
    let mut chunk = Chunk {
        encoder: Encoder::new(),
        bytes: Vec::new(),
    };
    let mut expected = Vec::new();
    let mut turn = noise(&mut seed) >> 20;
    let mut stamp = noise(&mut seed) >> 8;
    let mut sites = [Site::default(); 20];
    let mut round = 0;
    let mut last_address = 0;
    chunk.add(|encoder, out| encoder.turn(out, turn));
    for _ in 0..events {
        stamp += noise(&mut seed) % 5000;
        let kind = noise(&mut seed);
        let address = match kind >> 8 & 7 {
            0 => noise(&mut seed),
            1..4 => 0x7f00_0000_0000 + (noise(&mut seed) % 100) * 16,
            4 => noise(&mut seed) % 4096 * 16,
            5 | 6 => last_address,
            _ => u64::MAX - noise(&mut seed) % 3,
        };
        last_address = address;
        let event = match kind % 16 {
            0 => {
                turn = if kind & 256 == 0 {
                    next_own_turn(turn)
                } else {
                    next_shared_turn(turn)
                };
                chunk.add(|encoder, out| encoder.turn(out, turn));
                continue;
            }
            1 => {
                chunk.add(|encoder, out| encoder.free_undone(out, stamp));
                Event::FreeUndone
            }
            2 => {
                let length = noise(&mut seed);
                chunk.add(|encoder, out| encoder.unmapped(out, address, length, stamp));
                Event::Unmapped { address, length }
            }
            3 => {
                chunk.add(|encoder, out| encoder.unmap_undone(out, stamp));
                Event::UnmapUndone
            }
            4 => {
                chunk.add(|encoder, out| encoder.object_gone(out, address, stamp));
                Event::ObjectGone { address }
            }
            5 => {
                let node = sites[(kind >> 16) as usize % 20].node;
                let type_name = match kind >> 24 & 7 {
                    0 => u32::MAX,
                    1 => noise(&mut seed) as u32,
                    some => some as u32,
                };
                chunk.add(|encoder, out| encoder.object_made(out, address, node, type_name, stamp));
                Event::ObjectMade {
                    address,
                    node,
                    type_name,
                }
            }
            6..10 => {
                chunk.add(|encoder, out| encoder.freed(out, address, stamp));
                Event::Freed { address }
            }
            _ => {
                // Half of them from a few; some in a round, so that one tells the next.
                let number = noise(&mut seed);
                let site = &mut sites[(number >> 8) as usize % 20];
                let site = match number % 8 {
                    0..3 => *site,
                    3 | 4 => {
                        round += 1;
                        sites[round % 5]
                    }
                    5 => {
                        site.size = noise(&mut seed) >> (noise(&mut seed) % 64);
                        *site
                    }
                    _ => {
                        *site = Site {
                            node: (noise(&mut seed) >> (32 + kind % 31)) as u32,
                            allocator: (kind >> 16) as u8,
                            size: noise(&mut seed) >> (noise(&mut seed) % 64),
                        };
                        *site
                    }
                };
                chunk.add(|encoder, out| encoder.allocated(out, address, site, stamp));
                Event::Allocated { address, site }
            }
        };
        let moment = Moment {
            turn,
            stamp: if turn_is_shared(turn) { stamp } else { 0 },
        };
        expected.push((moment, event));
    }
    (chunk.bytes, expected)
}

#[test]
fn what_was_written_is_read() {
    for seed in 1..200 {
        let (bytes, expected) = random_chunk(seed, 500);
        let mut fields = Written::new(&bytes, 0);
        assert_eq!(told(&mut fields), (expected, Ok(())));
        assert_eq!(fields.at(), bytes.len());
    }
}

#[test]
fn half_an_address_and_its_slot_are_the_address() {
    let mut seed = 7;
    let mut slots = std::vec![0; ADDRESSES];
    for _ in 0..40_000 {
        let rotated = noise(&mut seed) & ADDRESS_MASK;
        let (slot, half) = address_place(rotated).expect("short enough");
        assert_eq!(address_in(slot, half), rotated);
        slots[slot] += 1;
    }
    assert!(slots.iter().all(|&count| count < 40));
    assert_eq!(address_place(ADDRESS_MASK + 1), None);
    // Neighbours do not share slots: blocks of one arena, and pages.
    for stride in [1, 2, 4, 256] {
        let mut slots: Vec<usize> = (0..2000)
            .filter_map(|n| Some(address_place(0x7f0_0000_0000 + n * stride)?.0))
            .collect();
        slots.sort_unstable();
        slots.dedup();
        assert!(slots.len() > 1500, "{stride}: {}", slots.len());
    }
}

#[test]
fn a_word_is_its_site() {
    let mut seed = 3;
    for _ in 0..1000 {
        let site = Site {
            node: noise(&mut seed) as u32,
            allocator: noise(&mut seed) as u8,
            size: noise(&mut seed) >> 40,
        };
        let word = site_word(place_of(site.node, site.allocator), site.size);
        let word = word.expect("small enough");
        assert_eq!(site_in(word), site);
        assert_eq!(place_in(word), place_of(site.node, site.allocator));
        assert!(site_slot(word) < SITES);
    }
    assert_eq!(site_word(0, 1 << 24), None);
}

/// All that single steps give, and how it ends.
fn told(fields: &mut impl Fields) -> (Vec<(Moment, Event)>, Result<(), BadEvent>) {
    let mut decoder = Decoder::new();
    let mut events = Vec::new();
    loop {
        match decoder.next(fields) {
            Ok(Some(event)) => events.push(event),
            Ok(None) => return (events, Ok(())),
            Err(bad) => return (events, Err(bad)),
        }
    }
}

/// What a [`Decoder::run`] gives, and [`Decoder::next`] where it stops.
#[derive(Default)]
struct Told {
    turn: u64,
    events: Vec<(Moment, Event)>,
    in_runs: usize,
}

impl Told {
    fn tell(&mut self, event: Event) {
        let turn = self.turn;
        self.events.push((Moment { turn, stamp: 0 }, event));
        self.in_runs += 1;
    }
}

impl Receiver for Told {
    fn allocated(&mut self, address: u64, site: &Site) {
        let site = *site;
        self.tell(Event::Allocated { address, site });
    }

    fn freed(&mut self, address: u64) {
        self.tell(Event::Freed { address });
    }
}

fn told_in_runs<F: Fields + Copy>(fields: &mut F) -> (Told, Result<(), BadEvent>) {
    let mut told = Told::default();
    let mut decoder = Decoder::new();
    loop {
        match decoder.next(fields) {
            Ok(Some(event)) => told.events.push(event),
            Ok(None) => return (told, Ok(())),
            Err(bad) => return (told, Err(bad)),
        }
        told.turn = decoder.turn();
        if let Err(bad) = decoder.run(fields, &mut told) {
            return (told, Err(bad));
        }
    }
}

/// Damages every second chunk.
fn damaged(seed: u64, mut bytes: Vec<u8>) -> Vec<u8> {
    if seed.is_multiple_of(2) {
        let place = seed as usize * 7919 % bytes.len();
        bytes[place] ^= (seed % 255 + 1) as u8;
    }
    bytes
}

#[test]
fn runs_are_what_single_steps_are() {
    let mut in_runs = 0;
    for seed in 1..400 {
        let bytes = damaged(seed, random_chunk(seed, 300).0);
        let (events, end) = told(&mut Written::new(&bytes, 0));
        let (told, its_end) = told_in_runs(&mut Written::new(&bytes, 0));
        assert_eq!(told.events, events, "seed {seed}");
        assert_eq!(its_end, end, "seed {seed}");
        in_runs += told.in_runs;
    }
    assert!(in_runs > 10_000, "{in_runs}");
}

/// The columns of a chunk, side by side in other bytes.
fn sorted(bytes: &[u8]) -> Option<(Vec<u8>, ColumnPlaces)> {
    let mut columns: [Vec<u8>; COLUMNS] = Default::default();
    let mut heard = Vec::new();
    sort_fields(
        bytes,
        |column, byte| columns[column as usize].push(byte),
        |moment, event| heard.push((moment, event)),
    )?;
    assert_eq!(heard, told(&mut Written::new(bytes, 0)).0);
    let mut all = std::vec![0xff; 3];
    let mut places = ColumnPlaces::default();
    for (number, column) in columns.iter().enumerate() {
        places.at[number] = all.len();
        all.extend_from_slice(column);
        places.ends[number] = all.len();
    }
    Some((all, places))
}

#[test]
fn columns_are_what_was_written() {
    let (mut good, mut bad, mut in_runs) = (0, 0, 0);
    for seed in 1..400 {
        let bytes = damaged(seed, random_chunk(seed, 300).0);
        let (events, end) = told(&mut Written::new(&bytes, 0));
        let Some((mut all, places)) = sorted(&bytes) else {
            assert!(end.is_err(), "seed {seed}");
            bad += 1;
            continue;
        };
        assert_eq!(end, Ok(()));
        let length = all.len();
        assert!(length <= 2 * bytes.len() + 3);
        // With and without room for eight bytes behind the last column.
        for room in [0, 8] {
            all.resize(length + room, 0);
            let mut fields = InColumns::new(&all, places);
            assert_eq!(told(&mut fields), (events.clone(), Ok(())), "seed {seed}");
            assert_eq!(fields.places().at, places.ends);
            let mut fields = InColumns::new(&all, places);
            let (told, its_end) = told_in_runs(&mut fields);
            assert_eq!(told.events, events, "seed {seed}");
            assert_eq!((its_end, fields.places().at), (Ok(()), places.ends));
            in_runs += told.in_runs;
        }
        good += 1;
    }
    assert!(good > 200 && bad > 20, "{good} {bad}");
    assert!(in_runs > 10_000, "{in_runs}");
}

#[test]
fn every_column_counts_and_ends_where_it_ends() {
    // Its last event is one of a single control byte.
    let (bytes, _) = random_chunk(12, 2000);
    let (all, places) = sorted(&bytes).expect("events");
    let (events, _) = told(&mut InColumns::new(&all, places));
    for column in 0..COLUMNS {
        assert!(places.ends[column] - places.at[column] > 10, "{column}");
        let mut moved = places;
        moved.at[column] += 1;
        assert!(told(&mut InColumns::new(&all, moved)).0 != events);
        let mut cut = places;
        cut.ends[column] -= 1;
        let (read, end) = told(&mut InColumns::new(&all, cut));
        let (in_runs, its_end) = told_in_runs(&mut InColumns::new(&all, cut));
        assert!(read.len() < events.len() && events.starts_with(&read));
        assert_eq!((&in_runs.events, its_end), (&read, end));
        // Without a control byte there is no further event, else one is cut short.
        assert_eq!(end.is_ok(), column == 0, "{column}");
    }
}

#[test]
fn any_bytes_end_somewhere_and_alike() {
    let mut seed = 5;
    for round in 1..300 {
        let (mut bytes, _) = random_chunk(round, 40);
        if round % 3 == 0 {
            bytes
                .iter_mut()
                .for_each(|byte| *byte = noise(&mut seed) as u8);
        } else {
            let place = round as usize * 7 % bytes.len();
            bytes[place] ^= (round % 255 + 1) as u8;
            bytes.truncate(bytes.len() - round as usize % 5);
        }
        let (events, end) = told(&mut Written::new(&bytes, 0));
        assert!(events.len() <= bytes.len());
        let (told_again, its_end) = told_in_runs(&mut Written::new(&bytes, 0));
        assert_eq!((told_again.events, its_end), (events, end));
        // The same bytes as columns that begin, end and overlap anywhere, even outside.
        let mut places = ColumnPlaces::default();
        for column in 0..COLUMNS {
            places.at[column] = noise(&mut seed) as usize % (bytes.len() + 20);
            places.ends[column] = noise(&mut seed) as usize % (bytes.len() + 20);
        }
        let (events, end) = told(&mut InColumns::new(&bytes, places));
        assert!(events.len() <= bytes.len() + 20);
        let (told_again, its_end) = told_in_runs(&mut InColumns::new(&bytes, places));
        assert_eq!((told_again.events, its_end), (events, end));
    }
}

#[test]
fn a_loop_costs_four_bytes_a_pair() {
    let mut chunk = Chunk {
        encoder: Encoder::new(),
        bytes: Vec::new(),
    };
    chunk.add(|encoder, out| encoder.turn(out, 2));
    for round in 0..10_000u64 {
        let address = 0x5555_0000_1000 + round % 50 * 0x230;
        let site = Site {
            node: 70_000 + (round % 3) as u32,
            allocator: 6,
            size: 512,
        };
        chunk.add(|encoder, out| encoder.allocated(out, address, site, 0));
        chunk.add(|encoder, out| encoder.freed(out, address, 0));
    }
    assert!(chunk.bytes.len() < 41_000, "{}", chunk.bytes.len());
}

/// Objects that are made and destroyed again in a loop, among the blocks that they lie in.
#[test]
fn a_loop_of_objects_costs_few_bytes() {
    let mut chunk = Chunk {
        encoder: Encoder::new(),
        bytes: Vec::new(),
    };
    chunk.add(|encoder, out| encoder.turn(out, 2));
    for round in 0..10_000u64 {
        let address = 0x7f00_0000_1000 + round % 50 * 0x40;
        let node = 70_000 + (round % 3) as u32;
        chunk.add(|encoder, out| encoder.object_made(out, address, node, 4, 0));
        // From a free list, where it is given back to.
        chunk.add(|encoder, out| encoder.object_made(out, 0x7f11_0000_0010, node, 9, 0));
        chunk.add(|encoder, out| encoder.object_gone(out, 0x7f11_0000_0010, 0));
        chunk.add(|encoder, out| encoder.object_gone(out, address, 0));
    }
    assert!(chunk.bytes.len() < 112_000, "{}", chunk.bytes.len());
}

#[test]
fn an_object_is_no_turn_and_nothing_rare() {
    for (bytes, cut_short) in [
        (&[252, 2, 254][..], true),
        (&[252, 2, 254, 252, 2], false),
        (&[252, 2, 254, 253, 1], false),
        (&[252, 2, 254, 254], false),
        (&[252, 2, 254, 255], false),
        (&[252, 2, 255], false),
    ] {
        let (events, end) = told(&mut Written::new(bytes, 0));
        assert_eq!(
            (events, end),
            (Vec::new(), Err(BadEvent { cut_short })),
            "{bytes:?}"
        );
    }
}
