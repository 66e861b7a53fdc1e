//! HTTP API in RabbitMQ's dialect, dashboard and metrics. Filled by the management issues; it will see the broker only through the admin service of `proto`.
