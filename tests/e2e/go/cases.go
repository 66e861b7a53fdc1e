package main

import (
	"crypto/sha256"
	"slices"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// cases are those of cases.txt, in order; each panics with a failure on the first difference.
var cases = []struct {
	name string
	body func(*session)
}{
	{"publish-confirm", publishConfirm},
	{"consume-prefetch", consumePrefetch},
	{"consumers-round-robin", consumersRoundRobin},
	{"requeue", requeue},
	{"recover", recoverAll},
	{"get", getCounts},
	{"mandatory-return", mandatoryReturn},
	{"large-bodies", largeBodies},
	{"properties", properties},
	{"error-404-passive", error404Passive},
	{"error-404-publish", error404Publish},
	{"error-405-exclusive", error405Exclusive},
	{"error-406-inequivalent", error406Inequivalent},
	{"error-406-double-ack", error406DoubleAck},
	{"error-503-exchange-type", error503ExchangeType},
	{"error-530-vhost", error530Vhost},
	{"error-403-login", error403Login},
	{"queue-server-named", queueServerNamed},
	{"queue-exclusive", queueExclusive},
	{"queue-auto-delete", queueAutoDelete},
	{"queue-purge-delete", queuePurgeDelete},
	{"exchange-direct", exchangeDirect},
	{"exchange-fanout", exchangeFanout},
	{"exchange-topic", exchangeTopic},
	{"exchange-headers", exchangeHeaders},
	{"exchange-to-exchange", exchangeToExchange},
	{"transactions", transactions},
	{"cancel-notification", cancelNotification},
	{"many-channels", manyChannels},
	{"heartbeat", heartbeat},
	{"close-requeues", closeRequeues},
	{"restart-term", func(s *session) { restartCase(s, "term") }},
	{"restart-kill", func(s *session) { restartCase(s, "kill") }},
}

func deleteQueue(channel *amqp.Channel, queue string) int {
	return that(channel.QueueDelete(queue, false, false, false))
}

func publishConfirm(s *session) {
	queue := "e2e.go.confirm"
	channel := s.queue(queue, flags{durable: true})
	confirms := []*amqp.DeferredConfirmation{}
	for _, body := range texts(0, 500) {
		message := amqp.Publishing{Body: []byte(body), DeliveryMode: amqp.Persistent}
		confirms = append(confirms, that(channel.PublishWithDeferredConfirm("", queue, false, false, message)))
	}
	for _, confirm := range confirms {
		equal(confirm.Wait(), true, "confirm")
	}
	equal(count(channel, queue), 500, "messages")
	deleteQueue(channel, queue)
}

func consumePrefetch(s *session) {
	queue := "e2e.go.prefetch"
	channel := s.queue(queue, flags{})
	publish(channel, queue, texts(0, 30))
	must(channel.Qos(10, 0, false))
	deliveries := consume(channel, queue, false)
	received := take(deliveries, 10)
	none(deliveries)
	must(received[4].Ack(true))
	received = append(received, take(deliveries, 5)...)
	none(deliveries)
	for len(received) < 30 {
		must(received[len(received)-1].Ack(true))
		received = append(received, take(deliveries, min(10, 30-len(received)))...)
	}
	bodies := []string{}
	for _, delivery := range received {
		bodies = append(bodies, string(delivery.Body))
	}
	equal(bodies, texts(0, 30), "bodies in order")
	must(channel.Ack(0, true))
	deleteQueue(channel, queue)
}

func consumersRoundRobin(s *session) {
	queue := "e2e.go.robin"
	channel := s.queue(queue, flags{})
	first, second := consume(channel, queue, true), consume(channel, queue, true)
	publish(channel, queue, texts(0, 10))
	bodies := []string{}
	for _, delivery := range append(take(first, 5), take(second, 5)...) {
		bodies = append(bodies, string(delivery.Body))
	}
	slices.Sort(bodies)
	equal(bodies, texts(0, 10), "bodies")
	deleteQueue(channel, queue)
}

func requeue(s *session) {
	queue := "e2e.go.requeue"
	channel := s.queue(queue, flags{})
	publish(channel, queue, []string{"a", "b", "c"})
	must(get(channel, queue, "a", false).Nack(false, true))
	must(get(channel, queue, "a", true).Reject(true))
	must(get(channel, queue, "a", true).Reject(false))
	get(channel, queue, "b", false)
	must(get(channel, queue, "c", false).Nack(true, true))
	get(channel, queue, "b", true)
	must(get(channel, queue, "c", true).Ack(true))
	equal(count(channel, queue), 0, "messages")
	deleteQueue(channel, queue)
}

func recoverAll(s *session) {
	queue := "e2e.go.recover"
	channel := s.queue(queue, flags{})
	publish(channel, queue, []string{"a", "b"})
	get(channel, queue, "a", false)
	get(channel, queue, "b", false)
	must(channel.Recover(true))
	get(channel, queue, "a", true)
	get(channel, queue, "b", true)
	deleteQueue(channel, queue)
}

func getCounts(s *session) {
	queue := "e2e.go.get"
	channel := s.queue(queue, flags{})
	equal(drain(channel, queue), []string{}, "get on an empty queue")
	publish(channel, queue, texts(0, 3))
	for index, body := range texts(0, 3) {
		message := get(channel, queue, body, false)
		equal(message.MessageCount, uint32(2-index), "message_count")
		equal([]string{message.Exchange, message.RoutingKey}, []string{"", queue}, "exchange and routing key")
		must(message.Ack(false))
	}
	equal(drain(channel, queue), []string{}, "get at the end")
	deleteQueue(channel, queue)
}

func mandatoryReturn(s *session) {
	channel := s.channel()
	must(channel.Confirm(false))
	returns := channel.NotifyReturn(make(chan amqp.Return, 1))
	message := amqp.Publishing{MessageId: "m-1", Body: []byte("back")}
	confirm := that(channel.PublishWithDeferredConfirm("amq.direct", "e2e.go.nowhere", true, false, message))
	equal(confirm.Wait(), true, "confirm")
	select {
	case got := <-returns:
		equal([]any{got.ReplyCode, got.ReplyText}, []any{uint16(312), "NO_ROUTE"}, "basic.return")
		equal([]string{got.Exchange, got.RoutingKey}, []string{"amq.direct", "e2e.go.nowhere"}, "address")
		equal([]string{got.MessageId, string(got.Body)}, []string{"m-1", "back"}, "content")
	default:
		panic(failure("not returned before the confirm"))
	}
}

func largeBodies(s *session) {
	queue := "e2e.go.large"
	channel := s.queue(queue, flags{})
	for _, size := range []int{0, 1, 200 * 1024, 5 * 1024 * 1024} {
		body := make([]byte, size)
		for index := range body {
			body[index] = byte(index * 31 % 251)
		}
		send(channel, "", queue, amqp.Publishing{Body: body})
		message, some, err := channel.Get(queue, true)
		must(err)
		equal(some, true, "get")
		equal(len(message.Body), size, "size")
		equal(sha256.Sum256(message.Body), sha256.Sum256(body), "hash")
	}
	deleteQueue(channel, queue)
}

func properties(s *session) {
	queue := "e2e.go.properties"
	channel := s.queue(queue, flags{})
	sent := amqp.Publishing{
		Headers: amqp.Table{
			"text":    "ü",
			"flag":    true,
			"byte":    byte(200),
			"int8":    int8(-8),
			"int16":   int16(-1600),
			"int32":   int32(-70000),
			"int64":   int64(1) << 40,
			"float32": float32(0.5),
			"float64": 0.25,
			"decimal": amqp.Decimal{Scale: 2, Value: 12345},
			"void":    nil,
			"octets":  []byte{0, 255},
			"when":    time.Unix(1700000000, 0),
			"list":    []any{int32(1), "two", []any{int32(3)}, amqp.Table{"four": int32(4)}},
			"table":   amqp.Table{"inner": amqp.Table{"deep": "yes"}},
		},
		ContentType:     "text/plain",
		ContentEncoding: "utf-8",
		DeliveryMode:    amqp.Persistent,
		Priority:        3,
		CorrelationId:   "correlation",
		ReplyTo:         "reply",
		Expiration:      "60000",
		MessageId:       "message",
		Timestamp:       time.Unix(1700000000, 0),
		Type:            "kind",
		UserId:          "guest",
		AppId:           "application",
		Body:            []byte("x"),
	}
	send(channel, "", queue, sent)
	got := get(channel, queue, "x", false)
	equal(got.Headers, sent.Headers, "headers")
	back := amqp.Publishing{
		Headers: got.Headers, ContentType: got.ContentType, ContentEncoding: got.ContentEncoding, DeliveryMode: got.DeliveryMode,
		Priority: got.Priority, CorrelationId: got.CorrelationId, ReplyTo: got.ReplyTo, Expiration: got.Expiration,
		MessageId: got.MessageId, Timestamp: got.Timestamp, Type: got.Type, UserId: got.UserId, AppId: got.AppId, Body: got.Body,
	}
	equal(back, sent, "properties")
	deleteQueue(channel, queue)
}

func error404Passive(s *session) {
	connection := s.connect()
	missing(that(connection.Channel()), "e2e.go.missing")
	must(that(connection.Channel()).ExchangeDeclarePassive("amq.direct", "direct", true, false, false, false, nil))
}

func error404Publish(s *session) {
	connection := s.connect()
	channel := that(connection.Channel())
	closesChannel(channel, amqp.NotFound, "NOT_FOUND - no exchange 'e2e.go.missing' in vhost '/'", func() error {
		return channel.Publish("e2e.go.missing", "k", false, false, amqp.Publishing{})
	})
	that(connection.Channel())
}

func error405Exclusive(s *session) {
	queue := "e2e.go.locked"
	s.queue(queue, flags{exclusive: true})
	text := "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '" + queue + "' in vhost '/'. It could be originally " +
		"declared on another connection or the exclusive property value does not match that of the original declaration."
	declaring := s.channel()
	closesChannel(declaring, amqp.ResourceLocked, text, func() error {
		_, err := declaring.QueueDeclare(queue, false, false, true, false, nil)
		return err
	})
	getting := s.channel()
	closesChannel(getting, amqp.ResourceLocked, text, func() error {
		_, _, err := getting.Get(queue, false)
		return err
	})
}

func error406Inequivalent(s *session) {
	queue := "e2e.go.inequivalent"
	channel := s.queue(queue, flags{})
	text := "PRECONDITION_FAILED - inequivalent arg 'durable' for queue '" + queue + "' in vhost '/': " +
		"received 'true' but current is 'false'"
	closesChannel(channel, amqp.PreconditionFailed, text, func() error {
		_, err := channel.QueueDeclare(queue, true, false, false, false, nil)
		return err
	})
	deleteQueue(s.channel(), queue)
}

func error406DoubleAck(s *session) {
	queue := "e2e.go.doubleack"
	channel := s.queue(queue, flags{})
	publish(channel, queue, []string{"a"})
	message := get(channel, queue, "a", false)
	closesChannel(channel, amqp.PreconditionFailed, "PRECONDITION_FAILED - unknown delivery tag 1", func() error {
		must(message.Ack(false))
		return message.Ack(false)
	})
	deleteQueue(s.channel(), queue)
}

func error503ExchangeType(s *session) {
	connection := s.connect()
	channel := that(connection.Channel())
	notifications := connection.NotifyClose(make(chan *amqp.Error, 1))
	closes(notifications, amqp.CommandInvalid, "COMMAND_INVALID - unknown exchange type 'x-nonsense'", func() error {
		return channel.ExchangeDeclare("e2e.go.nonsense", "x-nonsense", false, false, false, false, nil)
	})
}

func error530Vhost(s *session) {
	_, err := s.dial(amqp.Config{Vhost: "e2e-missing"}, func(*amqp.URI) {})
	refused(err, amqp.NotAllowed, "NOT_ALLOWED - vhost e2e-missing not found")
}

func error403Login(s *session) {
	_, err := s.dial(amqp.Config{}, func(uri *amqp.URI) { uri.Password = "wrong" })
	equal(err, error(amqp.ErrCredentials), "error") // The library has its own words for a 403 at login.
}

func queueServerNamed(s *session) {
	channel := s.channel()
	must(channel.Confirm(false))
	name := that(channel.QueueDeclare("", false, false, true, false, nil)).Name
	equal([]any{name[:8], len(name)}, []any{"amq.gen-", 30}, "prefix and length")
	last := that(channel.QueueDeclare("", false, false, true, false, nil)).Name
	equal(last == name, false, "the same name twice")
	must(channel.QueueBind("", "", "amq.fanout", false, nil))
	send(channel, "amq.fanout", "", amqp.Publishing{Body: []byte("to the last")})
	equal(drain(channel, last), []string{"to the last"}, "messages of the last declared queue")
}

func queueExclusive(s *session) {
	queue := "e2e.go.exclusive"
	s.queue(queue, flags{exclusive: true})
	s.close()
	time.Sleep(300 * time.Millisecond)
	missing(s.channel(), queue)
}

func queueAutoDelete(s *session) {
	queue := "e2e.go.autodelete"
	channel := s.queue(queue, flags{autoDelete: true})
	equal(count(channel, queue), 0, "it stays without a first consumer")
	that(channel.Consume(queue, "only", false, false, false, false, nil))
	must(channel.Cancel("only", false))
	missing(channel, queue)
}

func queuePurgeDelete(s *session) {
	queue := "e2e.go.purge"
	channel := s.queue(queue, flags{})
	publish(channel, queue, texts(0, 5))
	get(channel, queue, "0", false)
	equal(that(channel.QueuePurge(queue, false)), 4, "purged")
	publish(channel, queue, texts(0, 2))
	equal(deleteQueue(channel, queue), 2, "deleted")
	equal(deleteQueue(channel, queue), 0, "deleting what is missing")
}

// binding of one queue, and publish that must arrive in the queues `to`.
type (
	binding struct {
		key       string
		arguments amqp.Table
	}
	routed struct {
		key     string
		headers amqp.Table
		to      []int
	}
)

// route binds one queue each to a fresh exchange and checks where the publishes arrive.
func route(s *session, kind string, bindings []binding, publishes []routed) {
	exchange := "e2e.go." + kind
	channel := s.channel()
	must(channel.Confirm(false))
	must(channel.ExchangeDelete(exchange, false, false))
	must(channel.ExchangeDeclare(exchange, kind, false, false, false, false, nil))
	queues := []string{}
	for _, b := range bindings {
		queue := that(channel.QueueDeclare("", false, false, true, false, nil)).Name
		must(channel.QueueBind(queue, b.key, exchange, false, b.arguments))
		queues = append(queues, queue)
	}
	want := make([][]string, len(queues))
	for index := range want {
		want[index] = []string{}
	}
	for number, p := range publishes {
		body := texts(number, number+1)[0]
		send(channel, exchange, p.key, amqp.Publishing{Headers: p.headers, Body: []byte(body)})
		for _, index := range p.to {
			want[index] = append(want[index], body)
		}
	}
	for index, queue := range queues {
		equal(drain(channel, queue), want[index], "messages of the queue bound with "+bindings[index].key)
	}
	must(channel.ExchangeDelete(exchange, false, false))
}

func exchangeDirect(s *session) {
	route(s, "direct", []binding{{"a", nil}, {"b", nil}}, []routed{{"a", nil, []int{0}}, {"b", nil, []int{1}}, {"c", nil, nil}})
}

func exchangeFanout(s *session) {
	route(s, "fanout", []binding{{"a", nil}, {"", nil}}, []routed{{"a", nil, []int{0, 1}}, {"z", nil, []int{0, 1}}})
}

func exchangeTopic(s *session) {
	route(s, "topic", []binding{{"*.orange.*", nil}, {"lazy.#", nil}, {"#", nil}, {"a.#.b", nil}}, []routed{
		{"quick.orange.fox", nil, []int{0, 2}},
		{"lazy", nil, []int{1, 2}},
		{"lazy.orange.cat", nil, []int{0, 1, 2}},
		{"a.b", nil, []int{2, 3}},
		{"a.x.y.b", nil, []int{2, 3}},
		{"", nil, []int{2}},
	})
}

func exchangeHeaders(s *session) {
	bindings := []binding{
		{"", amqp.Table{"x-match": "all", "a": "1", "b": int32(2)}},
		{"", amqp.Table{"x-match": "any", "a": "1", "b": int32(2)}},
	}
	route(s, "headers", bindings, []routed{
		{"", amqp.Table{"a": "1", "b": int32(2)}, []int{0, 1}},
		{"", amqp.Table{"a": "1"}, []int{1}},
		{"", amqp.Table{"a": "2", "c": int32(2)}, nil},
		{"", nil, nil},
	})
}

func exchangeToExchange(s *session) {
	source, middle := "e2e.go.source", "e2e.go.middle"
	channel := s.channel()
	must(channel.Confirm(false))
	for name, kind := range map[string]string{source: "topic", middle: "fanout"} {
		must(channel.ExchangeDelete(name, false, false))
		must(channel.ExchangeDeclare(name, kind, false, false, false, false, nil))
	}
	queue := that(channel.QueueDeclare("", false, false, true, false, nil)).Name
	must(channel.ExchangeBind(middle, "k.*", source, false, nil))
	must(channel.QueueBind(queue, "", middle, false, nil))
	send(channel, source, "k.1", amqp.Publishing{Body: []byte("through")})
	send(channel, source, "other", amqp.Publishing{Body: []byte("not")})
	equal(drain(channel, queue), []string{"through"}, "messages")
	must(channel.ExchangeUnbind(middle, "k.*", source, false, nil))
	send(channel, source, "k.1", amqp.Publishing{Body: []byte("late")})
	equal(drain(channel, queue), []string{}, "messages after unbind")
	must(channel.ExchangeDelete(source, false, false))
	must(channel.ExchangeDelete(middle, false, false))
}

func transactions(s *session) {
	queue := "e2e.go.tx"
	watcher := s.queue(queue, flags{})
	connection := s.connect()
	channel := that(connection.Channel())
	sendAll := func(bodies []string) {
		for _, body := range bodies {
			must(channel.Publish("", queue, false, false, amqp.Publishing{Body: []byte(body)}))
		}
	}
	must(channel.Tx())
	sendAll(texts(0, 3))
	count(channel, queue)
	equal(count(watcher, queue), 0, "messages before commit")
	must(channel.TxCommit())
	equal(count(watcher, queue), 3, "messages after commit")
	sendAll(texts(3, 6))
	must(channel.TxRollback())
	equal(count(watcher, queue), 3, "messages after rollback")
	message := get(channel, queue, "0", false)
	must(message.Ack(false))
	must(channel.TxRollback()) // Forgets the ack: the delivery is outstanding again.
	must(message.Ack(false))
	must(channel.TxCommit())
	must(connection.Close())
	equal(drain(watcher, queue), texts(1, 3), "messages after the acknowledged one")
	deleteQueue(watcher, queue)
}

func cancelNotification(s *session) {
	queue := "e2e.go.cancelled"
	channel := s.queue(queue, flags{})
	cancels := channel.NotifyCancel(make(chan string, 1))
	that(channel.Consume(queue, "mine", false, false, false, false, nil))
	deleteQueue(s.channel(), queue)
	select {
	case tag := <-cancels:
		equal(tag, "mine", "cancelled consumer")
	case <-time.After(10 * time.Second):
		panic(failure("no basic.cancel within 10 s"))
	}
}

func manyChannels(s *session) {
	queue := "e2e.go.channels"
	watcher := s.queue(queue, flags{})
	connection := s.connect()
	channels := []*amqp.Channel{}
	for range 50 {
		channel := that(connection.Channel())
		must(channel.Confirm(false))
		channels = append(channels, channel)
	}
	for number, channel := range channels {
		publish(channel, queue, texts(number, number+1))
	}
	equal(drain(watcher, queue), texts(0, 50), "messages")
	deleteQueue(watcher, queue)
}

func heartbeat(s *session) {
	connection := that(s.dial(amqp.Config{Heartbeat: time.Second}, func(*amqp.URI) {}))
	channel := that(connection.Channel())
	time.Sleep(4 * time.Second)
	that(channel.QueueDeclare("", false, false, true, false, nil))
}

func closeRequeues(s *session) {
	queue := "e2e.go.closed"
	channel := s.queue(queue, flags{})
	publish(channel, queue, texts(0, 3))
	for _, body := range texts(0, 3) {
		get(channel, queue, body, false)
	}
	must(channel.Close())
	other := s.channel()
	for _, body := range texts(0, 3) {
		get(other, queue, body, true)
	}
	deleteQueue(other, queue)
}

// restartCase checks that durable things and persistent messages survive a restart, acknowledged and transient ones do not.
func restartCase(s *session, how string) {
	durable := "e2e.go." + how
	transient, exchange := durable+".transient", durable+".exchange"
	channel := s.queue(durable, flags{durable: true})
	deleteQueue(channel, transient)
	that(channel.QueueDeclare(transient, false, false, false, false, nil))
	must(channel.ExchangeDeclare(exchange, "direct", true, false, false, false, nil))
	must(channel.QueueBind(durable, "k", exchange, false, nil))
	for number, body := range texts(0, 100) {
		headers := amqp.Table{"number": int32(number)}
		send(channel, exchange, "k", amqp.Publishing{Body: []byte(body), DeliveryMode: amqp.Persistent, Headers: headers})
		send(channel, exchange, "k", amqp.Publishing{Body: []byte("transient"), DeliveryMode: amqp.Transient})
	}
	for _, body := range texts(0, 10) {
		must(get(channel, durable, body, false).Ack(false))
		must(get(channel, durable, "transient", false).Ack(false))
	}
	that(channel.QueueDeclarePassive(durable, true, false, false, false, nil)) // A reply: the acks were read.
	time.Sleep(500 * time.Millisecond)
	restart(how)
	channel = s.channel()
	for number := 10; number < 100; number++ {
		message, some, err := channel.Get(durable, true)
		must(err)
		equal(some, true, "one more message")
		want := []any{texts(number, number+1)[0], int32(number)}
		equal([]any{string(message.Body), message.Headers["number"]}, want, "message after the restart")
	}
	equal(drain(channel, durable), []string{}, "more messages after the restart")
	must(channel.Confirm(false))
	send(channel, exchange, "k", amqp.Publishing{Body: []byte("routed")})
	equal(drain(channel, durable), []string{"routed"}, "routing after the restart")
	must(channel.ExchangeDelete(exchange, false, false))
	deleteQueue(channel, durable)
	missing(channel, transient)
}
