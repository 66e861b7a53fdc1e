//! What management tools of RabbitMQ read and write. So far: [`definitions`] files.

pub mod definitions;
