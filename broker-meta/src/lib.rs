//! The catalog: every change of metadata is a command applied by a pure function.
