//! The invariants of ARCHITECTURE.md that can be read from the tree.
//!
//! Each rule is a function from what it looks at to a list of violations, with a test that shows it biting; `tests/tree.rs` applies
//! all rules to this repository.

pub mod documents;
pub mod floors;
pub mod sources;
pub mod tree;
pub mod workspace;
