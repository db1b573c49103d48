//! The states that a search has seen: fingerprints of 128 bits, and the parent of each.

use std::hash::{Hash, Hasher};

/// A hasher of two lanes, fed whole words.
struct Print {
    lanes: (u64, u64),
    word: u64,
    bytes: u32,
}

impl Print {
    fn mix(&mut self) {
        let (a, b) = self.lanes;
        let x = u128::from(a ^ self.word) * 0x9e37_79b9_7f4a_7c15_u128;
        let y = u128::from(b.wrapping_add(self.word)) * 0xd6e8_feb8_6659_fd93_u128;
        self.lanes = (
            (x as u64) ^ (y >> 64) as u64 ^ b.rotate_left(29),
            (y as u64) ^ (x >> 64) as u64 ^ a.rotate_left(17),
        );
        (self.word, self.bytes) = (0, 0);
    }

    fn finish(mut self) -> u128 {
        self.mix();
        self.mix();
        (u128::from(self.lanes.0) << 64) | u128::from(self.lanes.1)
    }
}

impl Hasher for Print {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u8(byte);
        }
    }

    fn write_u8(&mut self, byte: u8) {
        self.word = (self.word << 8) | u64::from(byte);
        self.bytes += 1;
        if self.bytes == 8 {
            self.mix();
        }
    }

    fn write_u16(&mut self, word: u16) {
        self.write_u8(word as u8);
        self.write_u8((word >> 8) as u8);
    }

    fn write_isize(&mut self, discriminant: isize) {
        self.write_u8(discriminant as u8);
    }

    fn write_usize(&mut self, _length: usize) {}

    fn finish(&self) -> u64 {
        self.lanes.0
    }
}

/// The fingerprint of a state.
pub(crate) fn fingerprint(world: &impl Hash) -> u128 {
    let mut print = Print {
        lanes: (0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344),
        word: 0,
        bytes: 0,
    };
    world.hash(&mut print);
    print.finish()
}

/// The states that were seen: fingerprints in order of discovery, their parents, and the same
/// fingerprints as an open-addressed set (0 marks a free slot).
pub(crate) struct Seen {
    prints: Vec<u128>,
    parents: Vec<u32>,
    set: Vec<u128>,
}

impl Seen {
    pub(crate) fn new() -> Self {
        Self {
            prints: Vec::new(),
            parents: Vec::new(),
            set: vec![0; 1 << 16],
        }
    }

    /// Returns the number of a new state; `None` for one seen before.
    pub(crate) fn insert(&mut self, print: u128, parent: u32) -> Option<u32> {
        if self.prints.len() * 8 > self.set.len() * 5 {
            self.grow();
        }
        let place = self.place(print);
        if self.set[place] != 0 {
            return None;
        }
        self.prints.push(print);
        self.parents.push(parent);
        self.set[place] = print;
        Some(self.prints.len() as u32 - 1)
    }

    /// How many states were seen.
    pub(crate) fn len(&self) -> usize {
        self.prints.len()
    }

    /// The fingerprint of state `number`.
    pub(crate) fn print(&self, number: u32) -> u128 {
        self.prints[number as usize]
    }

    /// The states from the first one after the start to `number`.
    pub(crate) fn way(&self, number: u32) -> Vec<u32> {
        let mut way = vec![number];
        while let Some(&last) = way.last().filter(|&&last| last != 0) {
            way.push(self.parents[last as usize]);
        }
        way.pop();
        way.reverse();
        way
    }

    fn place(&self, print: u128) -> usize {
        let mask = self.set.len() - 1;
        let mut place = print as usize & mask;
        while self.set[place] != 0 && self.set[place] != print {
            place = (place + 1) & mask;
        }
        place
    }

    fn grow(&mut self) {
        self.set = vec![0; self.set.len() * 2];
        for i in 0..self.prints.len() {
            let place = self.place(self.prints[i]);
            self.set[place] = self.prints[i];
        }
    }
}
