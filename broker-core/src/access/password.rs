//! Hashes of passwords: RabbitMQ's salted SHA-2, verified as imported, and Argon2id, for new ones.

use std::fmt;

use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256, Sha512};
use subtle::ConstantTimeEq;

/// A password may be this long, in octets; a longer one is wrong.
pub const PASSWORD_MAX_BYTES: usize = 1024;
/// RabbitMQ puts this many octets of salt before the digest.
const RABBIT_SALT_BYTES: usize = 4;
const ARGON2_SALT_BYTES: usize = 16;
const ARGON2_HASH_BYTES: usize = 32;
const ARGON2_MEMORY_KIB: u32 = 19 * 1024;
const ARGON2_PASSES: u32 = 2;
/// Imported hashes may not ask for more memory than this.
const ARGON2_MEMORY_MAX_KIB: u32 = 64 * 1024;
const ARGON2_PASSES_MAX: u32 = 10;

/// What is stored of a password.
#[derive(Clone, PartialEq, Eq)]
pub enum PasswordHash {
    /// `rabbit_password_hashing_sha256`: salt and SHA-256 of salt and password.
    RabbitSha256([u8; RABBIT_SALT_BYTES], [u8; 32]),
    /// `rabbit_password_hashing_sha512`: the same with SHA-512.
    RabbitSha512([u8; RABBIT_SALT_BYTES], [u8; 64]),
    /// Argon2id.
    Argon2id {
        /// Memory in KiB.
        memory_kib: u32,
        /// Passes over it.
        passes: u32,
        /// Salt.
        salt: [u8; ARGON2_SALT_BYTES],
        /// The hash.
        hash: [u8; ARGON2_HASH_BYTES],
    },
}

/// Why a text is not taken as a password hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnknownHash {
    /// It is of no kind that is accepted, or damaged.
    #[error("not a password hash of a supported kind (RabbitMQ's SHA-256 or SHA-512, or Argon2id)")]
    Unsupported,
    /// It was made with MD5.
    #[error(
        "password hashes made with MD5 are not accepted: anyone who reads one finds the password; set a new password"
    )]
    Md5,
    /// The password is longer than [`PASSWORD_MAX_BYTES`].
    #[error("the password is longer than {PASSWORD_MAX_BYTES} octets")]
    TooLong,
}

impl PasswordHash {
    /// Hashes a new password; takes tens of milliseconds. `salt` must be random. Refused if the password is too long.
    pub fn argon2id(password: &[u8], salt: &[u8; ARGON2_SALT_BYTES]) -> Result<PasswordHash, UnknownHash> {
        if password.len() > PASSWORD_MAX_BYTES {
            return Err(UnknownHash::TooLong);
        }
        let hash = argon2id(password, salt, ARGON2_MEMORY_KIB, ARGON2_PASSES).ok_or(UnknownHash::Unsupported)?;
        Ok(PasswordHash::Argon2id { memory_kib: ARGON2_MEMORY_KIB, passes: ARGON2_PASSES, salt: *salt, hash })
    }

    /// Hashes as RabbitMQ does by default, for exports it shall be able to import. `salt` must be random.
    pub fn rabbit_sha256(password: &[u8], salt: [u8; RABBIT_SALT_BYTES]) -> PasswordHash {
        PasswordHash::RabbitSha256(salt, Sha256::new().chain_update(salt).chain_update(password).finalize().into())
    }

    /// Reads what [`PasswordHash::text`] wrote, or the pair a RabbitMQ definitions file holds: `hash` is base64 of salt and digest, `algorithm`
    /// `rabbit_password_hashing_sha256` or `..._sha512`. MD5 is refused.
    pub fn parse(algorithm: &str, hash: &str) -> Result<PasswordHash, UnknownHash> {
        match algorithm {
            "rabbit_password_hashing_sha256" => {
                let (salt, digest) = salted(hash)?;
                Ok(PasswordHash::RabbitSha256(salt, digest))
            }
            "rabbit_password_hashing_sha512" => {
                let (salt, digest) = salted(hash)?;
                Ok(PasswordHash::RabbitSha512(salt, digest))
            }
            "argon2id" => parse_argon2id(hash).ok_or(UnknownHash::Unsupported),
            "rabbit_password_hashing_md5" => Err(UnknownHash::Md5),
            _ => Err(UnknownHash::Unsupported),
        }
    }

    /// The name of the algorithm.
    pub fn algorithm(&self) -> &'static str {
        match self {
            PasswordHash::RabbitSha256(..) => "rabbit_password_hashing_sha256",
            PasswordHash::RabbitSha512(..) => "rabbit_password_hashing_sha512",
            PasswordHash::Argon2id { .. } => "argon2id",
        }
    }

    /// The hash as text; of Argon2id in the usual form with its parameters.
    pub fn text(&self) -> String {
        match self {
            PasswordHash::RabbitSha256(salt, digest) => STANDARD.encode([&salt[..], digest].concat()),
            PasswordHash::RabbitSha512(salt, digest) => STANDARD.encode([&salt[..], digest].concat()),
            PasswordHash::Argon2id { memory_kib, passes, salt, hash } => {
                let encode = |octets: &[u8]| STANDARD.encode(octets).trim_end_matches('=').to_owned();
                format!("$argon2id$v=19$m={memory_kib},t={passes},p=1${}${}", encode(salt), encode(hash))
            }
        }
    }

    /// Whether [`PasswordHash::matches`] takes its time for this password: imported hashes are cheap to try, and so is what is refused for its length.
    pub(super) fn takes_time(&self, password: &[u8]) -> bool {
        matches!(self, PasswordHash::Argon2id { .. }) && password.len() <= PASSWORD_MAX_BYTES
    }

    /// Whether it is the hash of that password. The comparison takes the same time wherever they differ.
    pub fn matches(&self, password: &[u8]) -> bool {
        if password.len() > PASSWORD_MAX_BYTES {
            return false;
        }
        match self {
            PasswordHash::RabbitSha256(salt, digest) => {
                let computed: [u8; 32] = Sha256::new().chain_update(salt).chain_update(password).finalize().into();
                computed.ct_eq(digest).into()
            }
            PasswordHash::RabbitSha512(salt, digest) => {
                let computed: [u8; 64] = Sha512::new().chain_update(salt).chain_update(password).finalize().into();
                computed.ct_eq(digest).into()
            }
            PasswordHash::Argon2id { memory_kib, passes, salt, hash } => {
                argon2id(password, salt, *memory_kib, *passes).is_some_and(|computed| computed.ct_eq(hash).into())
            }
        }
    }

    /// See [`super::Login::cache_key`].
    pub(super) fn cache_key(&self, key: &[u8; 32], user: &str, password: &[u8]) -> [u8; 32] {
        let stored = self.text();
        let mut digest = Sha256::new().chain_update(key);
        for part in [user.as_bytes(), stored.as_bytes(), password] {
            digest = digest.chain_update((part.len() as u64).to_le_bytes()).chain_update(part);
        }
        digest.finalize().into()
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PasswordHash({})", self.algorithm())
    }
}

/// What checking a new hash costs, for a user that does not exist.
pub(super) fn spend_time(password: &[u8]) {
    let password = password.get(..PASSWORD_MAX_BYTES).unwrap_or(password);
    std::hint::black_box(argon2id(password, &[0; ARGON2_SALT_BYTES], ARGON2_MEMORY_KIB, ARGON2_PASSES));
}

fn argon2id(
    password: &[u8],
    salt: &[u8; ARGON2_SALT_BYTES],
    memory_kib: u32,
    passes: u32,
) -> Option<[u8; ARGON2_HASH_BYTES]> {
    #[cfg(test)]
    RUNS.with(|runs| runs.set(runs.get() + 1));
    let params = Params::new(memory_kib, passes, 1, Some(ARGON2_HASH_BYTES)).ok()?;
    let mut hash = [0; ARGON2_HASH_BYTES];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params).hash_password_into(password, salt, &mut hash).ok()?;
    Some(hash)
}

/// Salt and digest from base64.
fn salted<const N: usize>(text: &str) -> Result<([u8; RABBIT_SALT_BYTES], [u8; N]), UnknownHash> {
    let octets = STANDARD.decode(text.trim()).map_err(|_| UnknownHash::Unsupported)?;
    let (salt, digest) = octets.split_first_chunk::<RABBIT_SALT_BYTES>().ok_or(UnknownHash::Unsupported)?;
    Ok((*salt, digest.try_into().map_err(|_| UnknownHash::Unsupported)?))
}

/// `$argon2id$v=19$m=19456,t=2,p=1$salt$hash`, base64 without padding.
fn parse_argon2id(text: &str) -> Option<PasswordHash> {
    let (params, rest) = text.strip_prefix("$argon2id$v=19$m=")?.split_once('$')?;
    let (memory, passes) = params.strip_suffix(",p=1")?.split_once(",t=")?;
    let (memory_kib, passes) = (memory.parse().ok()?, passes.parse().ok()?);
    if memory_kib > ARGON2_MEMORY_MAX_KIB || passes > ARGON2_PASSES_MAX {
        return None;
    }
    let (salt, hash) = rest.split_once('$')?;
    let decode = |text: &str| base64::engine::general_purpose::STANDARD_NO_PAD.decode(text).ok();
    Some(PasswordHash::Argon2id {
        memory_kib,
        passes,
        salt: decode(salt)?.try_into().ok()?,
        hash: decode(hash)?.try_into().ok()?,
    })
}

#[cfg(test)]
thread_local! {
    /// How often this thread has hashed with Argon2id.
    pub(super) static RUNS: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rabbitmqs_hashes_are_verified() {
        // The example of RabbitMQ's documentation: the password is "test12".
        let hash =
            PasswordHash::parse("rabbit_password_hashing_sha256", "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR")
                .unwrap();
        assert!(hash.matches(b"test12"));
        assert!(!hash.matches(b"test13") && !hash.matches(b""));
        assert_eq!(PasswordHash::parse(hash.algorithm(), &hash.text()), Ok(hash));
        assert_eq!(PasswordHash::parse("rabbit_password_hashing_md5", "AAAA"), Err(UnknownHash::Md5));
        assert_eq!(PasswordHash::parse("rabbit_password_hashing_sha256", "AAAA"), Err(UnknownHash::Unsupported));
    }

    #[test]
    fn sha512_hashes_are_verified() {
        let digest: [u8; 64] = Sha512::digest([&[1, 2, 3, 4][..], b"pass"].concat()).into();
        let text = STANDARD.encode([&[1, 2, 3, 4][..], &digest].concat());
        let hash = PasswordHash::parse("rabbit_password_hashing_sha512", &text).unwrap();
        assert!(hash.matches(b"pass") && !hash.matches(b"Pass"));
    }

    #[test]
    fn new_hashes_read_back_and_say_nothing_when_printed() {
        let hash = PasswordHash::argon2id(b"secret", &[3; 16]).unwrap();
        let text = hash.text();
        assert!(text.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{text}");
        assert_eq!(PasswordHash::parse("argon2id", &text), Ok(hash.clone()));
        assert!(hash.matches(b"secret") && !hash.matches(b"secret "));
        assert_eq!(format!("{hash:?}"), "PasswordHash(argon2id)");
        assert_eq!(PasswordHash::parse("argon2id", &text.replace("19456", "999999999")), Err(UnknownHash::Unsupported));
        assert_eq!(PasswordHash::argon2id(&[b'a'; PASSWORD_MAX_BYTES + 1], &[0; 16]), Err(UnknownHash::TooLong));
    }
}
