//! Reads protocol buffers field by field, after the specification of the encoding.

/// A value as it is on the wire.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Field<'a> {
    Integer(u64),
    Bytes(&'a [u8]),
}

impl<'a> Field<'a> {
    pub(crate) fn bytes(self) -> &'a [u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Integer(_) => panic!("an integer where bytes belong"),
        }
    }
}

/// The fields of a message, in the order of the file.
#[derive(Debug)]
pub(crate) struct Message<'a>(Vec<(u64, Field<'a>)>);

impl<'a> Message<'a> {
    pub(crate) fn parse(mut bytes: &'a [u8]) -> Self {
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let tag = varint(&mut bytes);
            let field = match tag & 7 {
                0 => Field::Integer(varint(&mut bytes)),
                2 => {
                    let length = varint(&mut bytes) as usize;
                    let (value, rest) = bytes.split_at(length);
                    bytes = rest;
                    Field::Bytes(value)
                }
                other => panic!("wire type {other}"),
            };
            fields.push((tag >> 3, field));
        }
        Self(fields)
    }

    pub(crate) fn all(&self, number: u64) -> impl Iterator<Item = Field<'a>> {
        self.0
            .iter()
            .filter(move |field| field.0 == number)
            .map(|field| field.1)
    }

    pub(crate) fn messages(&self, number: u64) -> impl Iterator<Item = Message<'a>> {
        self.all(number).map(|field| Message::parse(field.bytes()))
    }

    /// The last value of a field; zero without one.
    pub(crate) fn integer(&self, number: u64) -> u64 {
        match self.all(number).last() {
            Some(Field::Integer(value)) => value,
            Some(Field::Bytes(_)) => panic!("bytes where an integer belongs"),
            None => 0,
        }
    }

    pub(crate) fn packed(&self, number: u64) -> Vec<u64> {
        let mut values = Vec::new();
        for field in self.all(number) {
            let mut bytes = field.bytes();
            while !bytes.is_empty() {
                values.push(varint(&mut bytes));
            }
        }
        values
    }
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().expect("an integer");
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return value;
        }
    }
    panic!("an integer of more than ten bytes")
}
