//! The daemon brokerd: configuration, boot order, drivers.

pub mod admin;
pub mod alarm;
pub mod args;
pub mod assembly;
pub mod cluster;
pub mod config;
pub mod data_dir;
pub mod driver;
pub mod exit;
pub mod logging;
pub mod node;
pub mod reload;
pub mod signals;
pub mod tls;
