//! The daemon brokerd: configuration, boot order, drivers.
