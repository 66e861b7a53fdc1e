//! The same scenario against RabbitMQ 3.10.8 and ours; the frame transcripts compared.
