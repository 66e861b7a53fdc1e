package main

import (
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// failure is what a case panics with on the first difference.
type failure string

// must fails on an error.
func must(err error) {
	if err != nil {
		panic(failure(err.Error()))
	}
}

// that returns the value, or fails on the error.
func that[T any](value T, err error) T {
	must(err)
	return value
}

// equal fails with both values unless they are equal.
func equal(got, want any, what string) {
	if !reflect.DeepEqual(got, want) {
		panic(failure(fmt.Sprintf("%s: got %#v, want %#v", what, got, want)))
	}
}

// session holds the connections of one case, closed at its end.
type session struct {
	url  string
	open []*amqp.Connection
}

// dial opens a connection; change may edit the URI.
func (s *session) dial(config amqp.Config, change func(*amqp.URI)) (*amqp.Connection, error) {
	uri := that(amqp.ParseURI(s.url))
	change(&uri)
	connection, err := amqp.DialConfig(uri.String(), config)
	if err == nil {
		s.open = append(s.open, connection)
	}
	return connection, err
}

// connect opens a connection.
func (s *session) connect() *amqp.Connection {
	return that(s.dial(amqp.Config{Heartbeat: 10 * time.Second}, func(*amqp.URI) {}))
}

// channel opens a channel on a new connection.
func (s *session) channel() *amqp.Channel {
	return that(s.connect().Channel())
}

// queue makes a fresh queue, and a channel with confirms on a new connection.
func (s *session) queue(name string, f flags) *amqp.Channel {
	channel := s.channel()
	that(channel.QueueDelete(name, false, false, false))
	that(channel.QueueDeclare(name, f.durable, f.autoDelete, f.exclusive, false, nil))
	must(channel.Confirm(false))
	return channel
}

func (s *session) close() {
	for _, connection := range s.open {
		_ = connection.Close() // A case may have closed it, or the broker.
	}
}

// flags of a queue.
type flags struct{ durable, autoDelete, exclusive bool }

// texts are the decimal texts first to afterLast-1.
func texts(first, afterLast int) []string {
	bodies := []string{}
	for number := first; number < afterLast; number++ {
		bodies = append(bodies, strconv.Itoa(number))
	}
	return bodies
}

// send publishes one message and waits for its confirm.
func send(channel *amqp.Channel, exchange, key string, message amqp.Publishing) {
	confirm := that(channel.PublishWithDeferredConfirm(exchange, key, false, false, message))
	select {
	case <-confirm.Done():
		equal(confirm.Acked(), true, "confirm")
	case <-time.After(10 * time.Second):
		panic(failure("no confirm within 10 s"))
	}
}

// publish sends bodies to queue through the default exchange and waits for the last confirm.
func publish(channel *amqp.Channel, queue string, bodies []string) {
	for _, body := range bodies {
		send(channel, "", queue, amqp.Publishing{Body: []byte(body)})
	}
}

// count is the number of ready messages.
func count(channel *amqp.Channel, queue string) int {
	return that(channel.QueueDeclarePassive(queue, false, false, false, false, nil)).Messages
}

// drain gets and acknowledges everything.
func drain(channel *amqp.Channel, queue string) []string {
	bodies := []string{}
	for {
		message, some, err := channel.Get(queue, true)
		must(err)
		if !some {
			return bodies
		}
		bodies = append(bodies, string(message.Body))
	}
}

// get takes one message that must be body, unacknowledged.
func get(channel *amqp.Channel, queue, body string, redelivered bool) amqp.Delivery {
	message, some, err := channel.Get(queue, false)
	must(err)
	equal(some, true, "get "+body)
	equal([]any{string(message.Body), message.Redelivered}, []any{body, redelivered}, "get (body, redelivered)")
	return message
}

// consume starts a consumer.
func consume(channel *amqp.Channel, queue string, autoAck bool) <-chan amqp.Delivery {
	return that(channel.Consume(queue, "", autoAck, false, false, false, nil))
}

// take receives n deliveries.
func take(deliveries <-chan amqp.Delivery, n int) []amqp.Delivery {
	taken := []amqp.Delivery{}
	for len(taken) < n {
		select {
		case delivery, open := <-deliveries:
			equal(open, true, "consumer open")
			taken = append(taken, delivery)
		case <-time.After(10 * time.Second):
			panic(failure(fmt.Sprintf("%d of %d deliveries within 10 s", len(taken), n)))
		}
	}
	return taken
}

// none fails if a delivery comes within 300 ms.
func none(deliveries <-chan amqp.Delivery) {
	select {
	case delivery := <-deliveries:
		panic(failure("one delivery too many: " + string(delivery.Body)))
	case <-time.After(300 * time.Millisecond):
	}
}

// refused fails unless err is a close with this code and text.
func refused(err error, code int, text string) {
	var closed *amqp.Error
	if !errors.As(err, &closed) {
		panic(failure(fmt.Sprintf("no close %d but %v", code, err)))
	}
	equal([]any{closed.Code, closed.Reason}, []any{code, text}, "close")
}

// closes runs action, after which the server must close what notifications come from.
func closes(notifications <-chan *amqp.Error, code int, text string, action func() error) {
	_ = action() // The call that was waiting fails too; the close itself is what counts.
	select {
	case closed := <-notifications:
		if closed == nil {
			panic(failure("closed without a reason"))
		}
		refused(closed, code, text)
	case <-time.After(10 * time.Second):
		panic(failure(fmt.Sprintf("no close %d within 10 s", code)))
	}
}

// closesChannel is closes for a channel.
func closesChannel(channel *amqp.Channel, code int, text string, action func() error) {
	closes(channel.NotifyClose(make(chan *amqp.Error, 1)), code, text, action)
}

// missing fails unless queue does not exist; the channel is closed by asking.
func missing(channel *amqp.Channel, queue string) {
	text := "NOT_FOUND - no queue '" + queue + "' in vhost '/'"
	closesChannel(channel, amqp.NotFound, text, func() error {
		_, err := channel.QueueDeclarePassive(queue, false, false, false, false, nil)
		return err
	})
}
