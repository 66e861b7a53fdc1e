// Names the client whose suite is run, so that Go fetches it with the hashes of go.sum. Nothing of it is built.
module clientsuites

go 1.26

require github.com/rabbitmq/amqp091-go v1.16.0
