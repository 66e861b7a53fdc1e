//! Choices, read from octets: when they are used up, every choice is the first.

use broker_core::field_table::{TableBuilder, Value};

/// Arrays and tables inside each other, so deep at most.
const DEPTH_MAX: usize = 3;

/// What is left of the octets.
pub struct Octets<'a>(pub &'a [u8]);

impl<'a> Octets<'a> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn next(&mut self) -> u8 {
        self.slice(1).first().copied().unwrap_or_default()
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        usize::from(self.next()) % end
    }

    pub fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    pub fn number(&mut self) -> i64 {
        match self.below(4) {
            0 => self.below(3) as i64,
            1 => -i64::from(self.next()),
            2 => i64::from(self.next()) << self.below(56),
            _ => i64::from_le_bytes(std::array::from_fn(|_| self.next())),
        }
    }

    pub fn slice(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// A few of the words one after the other.
    pub fn words(&mut self, words: &[&str], most: usize) -> String {
        let count = self.below(most + 1);
        (0..count).map(|_| self.one_of(words)).collect()
    }

    /// A field of any type. Texts are these words, or any octets.
    pub fn push_field(&mut self, table: &mut TableBuilder, name: &[u8], words: &[&str], depth: usize) {
        self.value(words, depth, &mut |value| table.push(name, value));
    }

    /// The same as an item of an array.
    pub fn push_item(&mut self, array: &mut TableBuilder, words: &[&str], depth: usize) {
        self.value(words, depth, &mut |value| array.item(value));
    }

    /// A table of up to `most` fields with names from `names`.
    pub fn table(&mut self, names: &[&str], words: &[&str], most: usize, depth: usize) -> TableBuilder {
        let mut table = TableBuilder::default();
        for _ in 0..self.below(most + 1) {
            let name = self.one_of(names);
            self.push_field(&mut table, name.as_bytes(), words, depth);
        }
        table
    }

    fn value(&mut self, words: &[&str], depth: usize, put: &mut dyn FnMut(Value<'_>)) {
        let number = self.number();
        match self.below(14) {
            0..=2 => put(Value::LongString(self.one_of(words).as_bytes())),
            3 => {
                let len = self.below(20);
                put(Value::LongString(self.slice(len)));
            }
            4 => put(Value::Int64(number)),
            5 => put(Value::Int32(number as i32)),
            6 => put(Value::UInt8(number as u8)),
            7 => put(Value::Double(number as f64)),
            8 => put(Value::Bool(number > 0)),
            9 => put(Value::Void),
            10 => put(Value::Timestamp(number as u64)),
            11 => put(Value::Bytes(self.one_of(words).as_bytes())),
            _ if depth >= DEPTH_MAX => put(Value::Void),
            12 => put(Value::Table(self.table(words, words, 4, depth + 1).table())),
            _ => {
                let mut array = TableBuilder::default();
                for _ in 0..self.below(5) {
                    self.push_item(&mut array, words, depth + 1);
                }
                put(Value::Array(array.array()));
            }
        }
    }
}
