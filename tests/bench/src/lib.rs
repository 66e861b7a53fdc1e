//! Ours beside RabbitMQ 3.10.8 and a null broker in one run.
