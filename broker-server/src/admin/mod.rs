//! What an operator has done from outside: definitions files imported, and the admin service.

pub mod definitions;
pub mod import;
