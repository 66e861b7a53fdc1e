//! The daemon brokerd: configuration, boot order, drivers.

pub mod alarm;
pub mod args;
pub mod config;
pub mod data_dir;
pub mod exit;
pub mod logging;
pub mod reload;
pub mod signals;
