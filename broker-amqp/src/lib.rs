//! AMQP 0-9-1 as pure state machines: frames, methods, connections, channels.
