//! The invariants of ARCHITECTURE.md that can be read from the tree.
