// Package sources names what is to be fetched.
package sources

import _ "github.com/rabbitmq/amqp091-go"
