//! Direct reply-to: answers that go straight to the channel that asked, past every queue.
//!
//! A channel consumes [`QUEUE`], a queue that does not exist. What it then publishes with that name as its `reply-to` leaves with an [`Address`]
//! instead, and whoever publishes to the default exchange with the address as routing key reaches the consumer. The address says where the
//! channel is, so that nobody keeps a table of them, and holds a token that cannot be guessed: it is the only proof that one was asked.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The queue that is consumed to be sent direct replies; also what a request's `reply-to` says.
pub const QUEUE: &str = "amq.rabbitmq.reply-to";
/// What every address begins with.
const PREFIX: &[u8] = b"amq.rabbitmq.reply-to.";
/// Connection, channel and token.
const PACKED_BYTES: usize = 8 + 2 + TOKEN_BYTES;
/// Octets of the secret part of an address.
pub const TOKEN_BYTES: usize = 16;
/// Characters of an address behind its prefix.
const ENCODED_BYTES: usize = (PACKED_BYTES * 4).div_ceil(3);
/// Octets of an address.
pub const ADDRESS_BYTES: usize = PREFIX.len() + ENCODED_BYTES;

/// Where replies to a channel go.
#[derive(Clone, Copy)]
pub struct Address {
    /// The connection's number, which is the driver's.
    pub connection: u64,
    /// The channel.
    pub channel: u16,
    token: [u8; TOKEN_BYTES],
}

impl Address {
    /// The address of a channel. The token must be hard to guess, and another one each time the channel begins to consume.
    pub fn new(connection: u64, channel: u16, token: [u8; TOKEN_BYTES]) -> Address {
        Address { connection, channel, token }
    }

    /// Reads a routing key. That it is an address does not mean that anybody is there.
    pub fn parse(routing_key: &[u8]) -> Option<Address> {
        let encoded = routing_key.strip_prefix(PREFIX).filter(|encoded| encoded.len() == ENCODED_BYTES)?;
        let mut packed = [0; PACKED_BYTES];
        let len = URL_SAFE_NO_PAD.decode_slice(encoded, &mut packed).ok()?;
        let (connection, rest) = packed.get(..len)?.split_first_chunk()?;
        let (channel, token) = rest.split_first_chunk()?;
        let (connection, channel) = (u64::from_be_bytes(*connection), u16::from_be_bytes(*channel));
        Some(Address { connection, channel, token: *token.first_chunk()? })
    }

    /// The routing key that means it.
    pub fn octets(&self) -> [u8; ADDRESS_BYTES] {
        let mut packed = [0; PACKED_BYTES];
        let (connection, rest) = packed.split_at_mut(8);
        let (channel, token) = rest.split_at_mut(2);
        connection.copy_from_slice(&self.connection.to_be_bytes());
        channel.copy_from_slice(&self.channel.to_be_bytes());
        token.copy_from_slice(&self.token);
        let mut octets = [0; ADDRESS_BYTES];
        let (prefix, encoded) = octets.split_at_mut(PREFIX.len());
        prefix.copy_from_slice(PREFIX);
        // The room is exactly what so many octets take.
        let written = URL_SAFE_NO_PAD.encode_slice(packed, encoded);
        debug_assert_eq!(written, Ok(ENCODED_BYTES));
        octets
    }
}

impl PartialEq for Address {
    /// Takes as long whatever differs: how long a wrong guess takes must not say how wrong it is.
    fn eq(&self, other: &Address) -> bool {
        let differing = self.token.iter().zip(&other.token).fold(0, |differing, (one, two)| differing | (one ^ two));
        std::hint::black_box(differing) == 0 && (self.connection, self.channel) == (other.connection, other.channel)
    }
}

impl Eq for Address {}

impl std::fmt::Debug for Address {
    /// Without the token, which is a secret.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Address({}, {})", self.connection, self.channel)
    }
}

/// Whether the default exchange takes this routing key for an address, whoever made it.
#[inline]
pub fn is_address(routing_key: &[u8]) -> bool {
    routing_key.starts_with(PREFIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_back() {
        let address = Address::new(u64::MAX - 5, 65_535, [0xA5; TOKEN_BYTES]);
        let octets = address.octets();
        assert!(octets.len() <= 255 && is_address(&octets));
        let letters = |octet: &u8| octet.is_ascii_alphanumeric() || b"-_".contains(octet);
        assert!(octets[PREFIX.len()..].iter().all(letters));
        assert_eq!(Address::parse(&octets), Some(address));
    }

    #[test]
    fn every_octet_of_an_address_counts() {
        let address = Address::new(7, 1, [3; TOKEN_BYTES]);
        let octets = address.octets();
        for at in 0..octets.len() {
            for change in [1, 2, 64] {
                let mut changed = octets;
                changed[at] ^= change;
                assert_ne!(Address::parse(&changed), Some(address), "octet {at}");
            }
        }
        for wrong in [&octets[..octets.len() - 1], b"amq.rabbitmq.reply-to.", b"amq.rabbitmq.reply-to", b""] {
            assert_eq!(Address::parse(wrong), None);
        }
        assert_eq!(Address::parse(&[&octets[..], b"A"].concat()), None);
    }

    #[test]
    fn the_token_is_not_printed() {
        assert_eq!(format!("{:?}", Address::new(7, 1, [3; TOKEN_BYTES])), "Address(7, 1)");
    }
}
