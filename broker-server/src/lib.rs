//! The daemon brokerd: configuration, boot order, drivers.

pub mod args;
pub mod config;
