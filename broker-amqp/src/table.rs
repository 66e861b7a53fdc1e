//! Field tables, read in place: checked without recursion, looked up without building anything.
//!
//! Every table a client sends is checked here before anything else touches it, because generated parsers recurse once per nesting level and a few
//! kilobytes of nested arrays would overflow a stack.

/// The deepest nesting of tables and arrays that is accepted.
pub const DEPTH_MAX: usize = 64;

/// Whether the octets are a well-formed field table (without its length), nested at most [`DEPTH_MAX`] deep.
pub fn is_well_formed(table: &[u8]) -> bool {
    scan(table).is_some()
}

/// Reads a table from front to back, keeping the ends of the tables and arrays around the current place.
fn scan(table: &[u8]) -> Option<()> {
    // End of each open table or array, and whether its fields have names.
    let mut open = [(0_usize, false); DEPTH_MAX];
    let mut depth = 0;
    let mut at = 0;
    *open.first_mut()? = (table.len(), true);
    loop {
        let &(end, named) = open.get(depth)?;
        if at == end {
            match depth.checked_sub(1) {
                None => return Some(()),
                Some(outer) => depth = outer,
            }
            continue;
        }
        let field = table.get(at..end)?;
        let name_len = if named { 1 + usize::from(*field.first()?) } else { 0 };
        let value = field.get(name_len..)?;
        let (head, nested) = value_len(value)?;
        at += name_len;
        match nested {
            None => at += head,
            Some((len, named)) => {
                at += head;
                depth += 1;
                *open.get_mut(depth)? = (at.checked_add(len).filter(|&inner| inner <= end)?, named);
            }
        }
    }
}

/// Octets of the value that begins here with its type octet; or, for a table or array, octets before its content, and the content's length.
fn value_len(value: &[u8]) -> Option<(usize, Option<(usize, bool)>)> {
    let (&kind, rest) = value.split_first()?;
    let fixed = match kind {
        b'V' => 0,
        b't' | b'b' | b'B' => 1,
        b's' | b'u' => 2,
        b'I' | b'i' | b'f' => 4,
        b'D' => 5,
        b'l' | b'L' | b'd' | b'T' => 8,
        b'S' | b'x' | b'F' | b'A' => {
            let len = u32::from_be_bytes(*rest.first_chunk()?) as usize;
            rest.get(4..)?.get(..len)?;
            return Some(match kind {
                b'F' => (5, Some((len, true))),
                b'A' => (5, Some((len, false))),
                _ => (5 + len, None),
            });
        }
        _ => return None,
    };
    rest.get(..fixed)?;
    Some((1 + fixed, None))
}

/// The fields of a well-formed table: name and value, the value with its type octet. Ends early at what is not well formed.
pub fn fields(table: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = table;
    std::iter::from_fn(move || {
        let (&name_len, after) = rest.split_first()?;
        let (name, after) = after.split_at_checked(usize::from(name_len))?;
        let (value, after) = after.split_at_checked(whole_len(after)?)?;
        rest = after;
        Some((name, value))
    })
}

/// The values of a well-formed array's content, each with its type octet. Ends early at what is not well formed.
pub fn items(array: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = array;
    std::iter::from_fn(move || {
        let (value, after) = rest.split_at_checked(whole_len(rest)?)?;
        rest = after;
        Some(value)
    })
}

fn whole_len(value: &[u8]) -> Option<usize> {
    let (head, nested) = value_len(value)?;
    Some(head + nested.map_or(0, |(len, _)| len))
}

/// The value of the first field of that name, with its type octet.
pub fn lookup<'a>(table: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    fields(table).find(|(field, _)| *field == name).map(|(_, value)| value)
}

/// The octets of a long string, table, array or byte array value.
pub fn content_of(value: &[u8], kind: u8) -> Option<&[u8]> {
    (*value.first()? == kind).then(|| value.get(5..))?
}

/// Whether the field of that name is there and `true`.
pub fn is_true(table: &[u8], name: &[u8]) -> bool {
    matches!(lookup(table, name), Some([b't', value]) if *value != 0)
}

/// What RabbitMQ calls the type of a value, by its type octet.
pub fn type_name(value: &[u8]) -> &'static str {
    match value.first() {
        Some(b'S') => "longstr",
        Some(b'T') => "timestamp",
        Some(b'b') => "byte",
        Some(b'B') => "unsignedbyte",
        Some(b's') => "short",
        Some(b'u') => "unsignedshort",
        Some(b'I') => "signedint",
        Some(b'i') => "unsignedint",
        Some(b'd') => "double",
        Some(b'f') => "float",
        Some(b'l' | b'L') => "long",
        Some(b't') => "bool",
        Some(b'D') => "decimal",
        Some(b'F') => "table",
        Some(b'A') => "array",
        Some(b'x') => "binary",
        _ => "void",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nested(levels: usize) -> Vec<u8> {
        let mut array = Vec::new();
        for _ in 1..levels {
            let mut outer = vec![b'A'];
            outer.extend_from_slice(&(array.len() as u32).to_be_bytes());
            outer.extend_from_slice(&array);
            array = outer;
        }
        let mut table = b"\x01a".to_vec();
        table.push(b'A');
        table.extend_from_slice(&(array.len() as u32).to_be_bytes());
        table.extend_from_slice(&array);
        table
    }

    #[test]
    fn nesting_is_limited() {
        assert!(is_well_formed(&nested(DEPTH_MAX - 1)));
        assert!(!is_well_formed(&nested(DEPTH_MAX)));
        assert!(!is_well_formed(&nested(100_000)));
    }

    #[test]
    fn fields_are_found() {
        let table = b"\x01aS\0\0\0\x02hi\x01bt\x01\x01cA\0\0\0\x03s\0\x05";
        assert!(is_well_formed(table));
        assert_eq!(lookup(table, b"a").and_then(|value| content_of(value, b'S')), Some(&b"hi"[..]));
        assert!(is_true(table, b"b"));
        let array = lookup(table, b"c").and_then(|value| content_of(value, b'A')).unwrap();
        assert_eq!(items(array).collect::<Vec<_>>(), [b"s\0\x05"]);
        assert_eq!(lookup(table, b"d"), None);
    }

    #[test]
    fn lengths_that_leave_the_table_are_refused() {
        assert!(!is_well_formed(b"\x01aS\0\0\0\x03hi"));
        assert!(!is_well_formed(b"\x01aF\0\0\0\x03\x01bt\x01"));
        assert!(!is_well_formed(b"\x05a"));
        assert!(!is_well_formed(b"\x01aZ"));
        assert!(is_well_formed(b""));
    }

    proptest! {
        #[test]
        fn any_octets_are_judged_and_read(octets in prop::collection::vec(any::<u8>(), 0..200)) {
            let count = fields(&octets).count();
            if is_well_formed(&octets) {
                let read: usize = fields(&octets).map(|(name, value)| 1 + name.len() + value.len()).sum();
                prop_assert_eq!(read, octets.len());
            }
            prop_assert!(count <= octets.len());
        }
    }
}
