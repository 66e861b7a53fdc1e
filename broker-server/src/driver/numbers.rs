//! Numbers of connections: never used twice in a cluster, and they say where the connection is.
//!
//! ```text
//!  63        52 51                   20 19           0
//!  node (12)   counts upwards (32)      place (20)
//! ```

use broker_core::name::NodeId;

const PLACE_BITS: u32 = 20;
const SERIAL_BITS: u32 = 32;

/// The number of a connection in a place of its node's table; none if one of them is too large.
pub fn number(node: NodeId, serial: u64, place: usize) -> Option<u64> {
    let place = u64::try_from(place).ok()?;
    let fits = node.0 >> (64 - PLACE_BITS - SERIAL_BITS) == 0 && serial >> SERIAL_BITS == 0 && place >> PLACE_BITS == 0;
    fits.then_some((node.0 << (PLACE_BITS + SERIAL_BITS)) | (serial << PLACE_BITS) | place)
}

/// Where the connection with this number is or was in its node's table.
#[inline]
pub fn place_in(number: u64) -> usize {
    (number & ((1 << PLACE_BITS) - 1)) as usize
}

/// The node of the connection with this number.
#[inline]
pub fn node_in(number: u64) -> NodeId {
    NodeId(number >> (PLACE_BITS + SERIAL_BITS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_says_where_its_connection_is() {
        let last = number(NodeId(4095), u64::from(u32::MAX), (1 << 20) - 1).unwrap_or_default();
        assert_eq!((node_in(last), place_in(last), last), (NodeId(4095), (1 << 20) - 1, u64::MAX));
        let first = number(NodeId(1), 1, 0).unwrap_or_default();
        assert_eq!((node_in(first), place_in(first)), (NodeId(1), 0));
        assert_eq!(number(NodeId(4096), 1, 1), None);
        assert_eq!(number(NodeId(1), 1 << 32, 1), None);
        assert_eq!(number(NodeId(1), 1, 1 << 20), None);
        assert_eq!(broker_meta::catalog::NUMBERS_MAX, 4095);
    }
}
